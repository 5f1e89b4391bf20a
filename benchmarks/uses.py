"""The cost of finding kernels by their operations: of the trace, of `calibrate`, and of the first `diagnose`.

`--before PATH` names a checkout of an older state of the package (`git worktree add PATH 53a7bc4`), with
which the trace and `calibrate` of Keras' own layers are compared. `--quick` runs everything once on small
models and writes no table: it shows that the script works, and measures nothing.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import contextlib
import pathlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")

# The aims of the project. A plain pass is the model called eagerly, on the same batch.
TRACE, KNOWN, OWN = 2.0, 1.0, 1.2 if BACKEND == "jax" else 1.5
PAIRS = 5
DEPTH, ROWS, LENGTH, WIDTH = 6, 512, 64, 256
GPT = {"num_heads": 4, "hidden_dim": 64, "intermediate_dim": 256, "vocabulary_size": 1000}


def build(name: str, quick: bool) -> tuple[Any, Any]:
    """Returns a model with random weights and one batch of NumPy arrays."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    if name == "own":
        rows, width = (4, 16) if quick else (ROWS, WIDTH)
        return own_layers(width), rng.standard_normal((rows, LENGTH, width)).astype("float32")
    if name.startswith("GPT-2"):
        import keras_hub

        layers = 2 if quick else int(name.split()[1])
        tokens = rng.integers(0, GPT["vocabulary_size"], (16, LENGTH)).astype("int32")
        model = keras_hub.models.GPT2Backbone(**GPT, num_layers=layers, max_sequence_length=LENGTH)
        return model, {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    size, rows = (32, 1) if quick else (64, 16)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    return model, rng.standard_normal((rows, size, size, 3)).astype("float32")


def own_layers(width: int) -> Any:
    """A model of layers that someone wrote by hand, attention and SwiGLU in turn."""
    import keras

    sys.path.insert(0, str(ROOT / "tests"))
    from support.zoo import Attention, SwiGLU

    kinds = [(Attention, SwiGLU)[place % 2] for place in range(DEPTH)]
    return keras.Sequential([keras.layers.Input((LENGTH, width)), *(kind() for kind in kinds)])


class Work:
    """The measured functions, in a process that has one checkout of the package.

    Args:
        quick: Whether the models are small.
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.built: dict[str, tuple[Any, Any, Any]] = {}
        self.programs = 0
        if BACKEND == "jax":
            import jax

            jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event: str, _: float, **__: object) -> None:
        self.programs += event == "/jax/core/compile/backend_compile_duration"

    def of(self, name: str) -> tuple[Any, Any, Any]:
        """A model, its batch as arrays, and its batch as tensors."""
        import keras

        if name not in self.built:
            model, batch = build(name, self.quick)
            self.built[name] = model, batch, keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
        return self.built[name]

    def trace(self, name: str) -> None:
        from keras_initx.walk import iter_kernels

        list(iter_kernels(self.of(name)[0]))

    def plain(self, name: str) -> None:
        import keras

        model, _, batch = self.of(name)
        with contextlib.ExitStack() as scope:
            if BACKEND == "torch":
                import torch

                scope.enter_context(torch.no_grad())
            for output in keras.tree.flatten(model(batch)):
                keras.ops.convert_to_numpy(output)

    def calibrate(self, name: str) -> None:
        import keras

        import keras_initx

        model, batch, _ = self.of(name)
        rows = len(keras.tree.flatten(batch)[0])
        keras_initx.calibrate(model, batch, "initx>LSUV", samples=rows)
        for variable in model.weights:  # JAX returns before it has finished
            keras.ops.convert_to_numpy(variable.value)

    def gradients(self, name: str) -> None:
        from signal_diagnose import passes

        from keras_initx.gradients import choose_loss

        model, batch, _ = self.of(name)
        passes(model, batch, choose_loss(model, None, None, "diagnose", needed=False, seed=0))()

    def diagnose(self, name: str) -> None:
        import keras_initx

        model, batch, _ = self.of(name)
        keras_initx.diagnose(model, batch, seed=0)

    def serve(self) -> None:
        """Does what the lines of stdin say, and answers each with CPU seconds and compiled programs."""
        warnings.simplefilter("ignore")
        for line in sys.stdin:
            task, name = line.rstrip().split(maxsplit=1)
            self.of(name)
            before, started = self.programs, time.process_time()
            getattr(self, task)(name)
            print("took", time.process_time() - started, self.programs - before, flush=True)


@contextlib.contextmanager
def worker(checkout: pathlib.Path, quick: bool) -> Iterator[Callable[[str, str], tuple[float, int]]]:
    """A process with the package of a checkout. Yields a function of a task and the name of a model."""
    command = [sys.executable, str(HERE / "uses.py"), "--work", *["--quick"] * quick]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def ask(task: str, name: str) -> tuple[float, int]:
            print(task, name, file=process.stdin, flush=True)
            for line in process.stdout:
                if line.startswith("took "):
                    _, seconds, programs = line.split()
                    return float(seconds), int(programs)
            raise RuntimeError(f"the process that measures `{task} {name}` has ended")

        yield ask


def compared(title: str, aim: float, base: Sequence[float], ours: Sequence[float]) -> list[str]:
    """A row of the table from CPU seconds of pairs that ran one after the other."""
    ratios = [one / other for one, other in zip(ours, base, strict=True)]
    ratio = statistics.median(ratios)
    return [
        title,
        f"{statistics.median(base):.3f} s",
        f"{statistics.median(ours):.3f} s",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{aim:.1f}",
        "met" if ratio <= aim else "missed",
    ]


def against_before(before: pathlib.Path, quick: bool, pairs: int) -> list[list[str]]:
    """Rows of the trace and of `calibrate` on Keras' own layers, over the older state."""
    rows = []
    with worker(before, quick) as theirs, worker(ROOT, quick) as ours:
        for task, aim in (("trace", TRACE), ("calibrate", KNOWN)):
            for name in ("ResNet-50", "GPT-2 12"):
                for ask in (theirs, ours):
                    ask(task, name)
                times = [(theirs(task, name)[0], ours(task, name)[0]) for _ in range(pairs)]
                title = f"{task}, {name.replace(' 12', ', 12 layers')}, over the older state"
                rows.append(compared(title, aim, *zip(*times, strict=True)))
    return rows


def on_own_layers(quick: bool, pairs: int) -> list[list[str]]:
    """Rows of `calibrate` over a plain pass, on layers that no table has: the first time and later."""
    with worker(ROOT, quick) as ask:
        (plain, some), (first, more) = ask("plain", "own"), ask("calibrate", "own")
        times = [(ask("plain", "own")[0], ask("calibrate", "own")[0]) for _ in range(pairs)]
    title = f"calibrate, own layers, {DEPTH} deep, over a plain pass"
    return [
        compared(title, OWN, *zip(*times, strict=True)),
        single("the first calibrate there, after and over the first plain pass", plain, first, some, more),
    ]


def first_diagnose(quick: bool) -> list[list[str]]:
    """Rows of the first and second `diagnose` of a small GPT, each over a pass forward and backward."""
    name = "GPT-2 4"
    with worker(ROOT, quick) as ask:
        plain = [ask("gradients", name) for _ in range(2)]
    with worker(ROOT, quick) as ask:
        ours = [ask("diagnose", name) for _ in range(2)]
    return [
        single(f"the {which} diagnose, GPT-2, 4 layers, over forward and backward", one, other, some, more)
        for which, (one, some), (other, more) in zip(("first", "second"), plain, ours, strict=True)
    ]


def single(title: str, base: float, ours: float, some: int, more: int) -> list[str]:
    """A row of one measurement, with the programs that JAX compiled."""
    programs = (f", {count} programs" if BACKEND == "jax" else "" for count in (some, more))
    left, right = (f"{value:.3f} s{more}" for value, more in zip((base, ours), programs, strict=True))
    return [title, left, right, f"{ours / base:.2f}", "-", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=pathlib.Path, help="a checkout of an older state to compare with")
    parser.add_argument("--quick", action="store_true", help="run once on small models, and write no table")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        Work(options.quick).serve()
        return
    pairs = 1 if options.quick else PAIRS
    rows = against_before(options.before, options.quick, pairs) if options.before else []
    rows += on_own_layers(options.quick, pairs) + first_diagnose(options.quick)
    import report

    report.write(
        f"uses_{BACKEND}",
        "Not a measurement" if options.quick else f"Finding kernels by their operations, {BACKEND}, eager",
        f"KERAS_BACKEND={BACKEND} python benchmarks/uses.py{' --before PATH' * bool(options.before)}",
        ["measurement", "base", "ours", "ratio", "aim", ""],
        rows,
        "All times are CPU seconds of the process that measures, of all its threads, since other work may "
        f"run beside it. Ratios are medians and ranges over {PAIRS} pairs, in which base and ours run one "
        "after the other; the first round is left out. The older state is commit 53a7bc4, before kernels "
        "were found by operations, in a process of its own. ResNet-50 has 16 images of 64x64, and GPT-2 is "
        f"keras_hub's backbone of width 64, on 16 sequences of {LENGTH} tokens. Own layers are attention and "
        f"SwiGLU of `tests/support/zoo.py` in turn, of width {WIDTH}, on {ROWS} sequences of {LENGTH}. The "
        "rows without an aim are one measurement each, in a fresh process.",
        keep=not options.quick,
    )


if __name__ == "__main__":
    main()
