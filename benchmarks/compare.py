"""What `compare` costs over a bare loop, and how much faster the vectorised runner is on JAX.

    python benchmarks/compare.py

The loop builds, fits and evaluates, under TensorFlow. The runners are timed under JAX, compilation included,
each in a process of its own: 16 seeds on a CPU, 64 on a GPU where JAX has one. What Ray brings is measured by
`compare_ray.py`. On a machine that does other work it tells nothing.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

INITIALIZER = "initx>HeScaled"
LOOP = {"dense": 150, "convnet": 20}  # epochs for trials of about 10 seconds
RUNNERS = [("narrow", 30), ("dense", 30), ("dense", 150), ("convnet", 3)]
TRIALS = 2  # of each group of the loop's
COLUMNS = ["what", "model", "trials", "epochs", "one (s)", "other (s)", "ratio", "range", "aim"]


def dense(units: int = 64) -> Any:
    """10 layers, of which the last has an output per class."""
    import keras

    layers = keras.layers
    hidden = [layers.Dense(units, "relu", kernel_initializer=INITIALIZER) for _ in range(9)]
    head = layers.Dense(10, "softmax", kernel_initializer=INITIALIZER)
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Rescaling(1 / 16), layers.Flatten(), *hidden, head]
    )
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def convnet() -> Any:
    """The image example's 20 layers."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
    import image_classification

    return image_classification.build_model(
        image_classification.load_data("initx_digits"), "plain", INITIALIZER
    )


BUILDS = {"narrow": functools.partial(dense, 32), "dense": dense, "convnet": convnet}


def read() -> tuple[Any, Any, Any]:
    """Digits to train on, to choose on and to report on."""
    from keras_initx.datasets import read_digits

    digits = read_digits()
    x, y = digits.train
    return (x[:1152], y[:1152]), (x[1152:], y[1152:]), digits.test


def bare(build: Callable[[], Any], epochs: int) -> None:
    """What one writes without the package."""
    import keras

    train, validation, test = read()
    for seed in range(TRIALS):
        keras.utils.set_random_seed(seed)
        model = build()
        model.fit(*train, epochs=epochs, validation_data=validation, verbose=0)
        model.evaluate(*test, verbose=0)


def compared(build: Callable[[], Any], epochs: int, seeds: int = TRIALS, runner: Any = None) -> None:
    """The same trials by `compare`."""
    import keras_initx as initx
    from keras_initx.experiments import Sequential

    train, validation, test = read()
    found = initx.compare(
        build,
        [INITIALIZER],
        train,
        validation,
        test=test,
        seeds=seeds,
        epochs=epochs,
        metric="accuracy",
        runner=runner or Sequential(progress=False),
    )
    if found.rows[0].failed:
        raise RuntimeError(found.rows[0].failures)


def seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(part: str, name: str, groups: int, epochs: int) -> dict[str, Any]:
    """Pairs of seconds, in a process of its own."""
    build = BUILDS[name]
    if part == "overhead":
        bare(build, 1)  # imports, and the first of all that is built once
        pairs = [
            (seconds(lambda: compared(build, epochs)), seconds(lambda: bare(build, epochs)))
            for _ in range(groups)
        ]
        return {"pairs": pairs, "trials": TRIALS, "device": "CPU"}
    import jax

    from keras_initx.experiments import Sequential, Vectorized

    device = jax.devices()[0]
    count = 16 if device.platform == "cpu" else 64
    runners = {"sequential": Sequential(progress=False), "vectorized": Vectorized(progress=False)}
    compared(dense, 1, 1, runners["sequential"])
    spent = seconds(lambda: compared(build, epochs, count, runners[part]))
    return {
        "seconds": spent,
        "trials": count,
        "device": "CPU" if device.platform == "cpu" else device.device_kind,
    }


def run(backend: str, part: str, name: str, epochs: int, groups: int = 1) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--model", name, "--epochs", str(epochs)]
    command += ["--groups", str(groups)]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    told = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def row(what: str, name: str, epochs: int, trials: int, pairs: list[tuple[float, float]]) -> list[str]:
    """The medians of pairs of seconds, their ratio and its range."""
    ratios = [one / other for one, other in pairs]
    one, other = (statistics.median(values) for values in zip(*pairs, strict=True))
    spread = f"{min(ratios):.3g} to {max(ratios):.3g}" if len(pairs) > 1 else "one run"
    told = [f"{one:.1f}", f"{other:.1f}", f"{statistics.median(ratios):.3g}", spread]
    return [what, name, str(trials), str(epochs), *told]


def overhead(groups: int) -> list[list[str]]:
    if importlib.util.find_spec("tensorflow") is None:
        return [["`compare` / bare loop", "not measured: no TensorFlow", *[""] * (len(COLUMNS) - 2)]]
    rows = []
    for name, epochs in LOOP.items():
        pairs = run("tensorflow", "overhead", name, epochs, groups)["pairs"]
        cells = row("`compare` / bare loop", name, epochs, TRIALS, pairs)
        rows.append([*cells, f"at most 1.05: {'met' if float(cells[6]) <= 1.05 else 'missed'}"])
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def vectorised(groups: int) -> tuple[list[list[str]], str]:
    rows = []
    for name, epochs in RUNNERS:
        pairs, aimed = [], name != "convnet" and epochs == 30
        for _ in range(groups if aimed else 1):
            found = [run("jax", part, name, epochs) for part in ("sequential", "vectorized")]
            pairs.append(tuple(one["seconds"] for one in found))
        where, trials = found[0]["device"], found[0]["trials"]
        cells = row(f"sequential / vectorised, {where}", name, epochs, trials, pairs)
        aim = f"at least 4: {'met' if float(cells[6]) >= 4 else 'missed'}" if aimed else ""
        rows.append([*cells, aim])
        print(*rows[-1], sep=" | ", flush=True)
    return rows, where


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=["overhead", "sequential", "vectorized"], help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=list(BUILDS), default="dense", help=argparse.SUPPRESS)
    parser.add_argument("--groups", type=int, default=3, help="of what is measured, for the median (3)")
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measure(options.part, options.model, options.groups, options.epochs)))
        return
    import report

    rows = overhead(options.groups)
    more, device = vectorised(options.groups)
    if device == "CPU":
        more.append(
            ["sequential / vectorised, GPU", "not measured: no GPU was at hand", *[""] * (len(COLUMNS) - 2)]
        )
    report.write(
        "compare",
        "A comparison against a bare loop, and all seeds at once",
        "python benchmarks/compare.py",
        COLUMNS,
        [*rows, *more],
        "Digits: 1,152 rows to train on, 285 to choose on, 360 to report on, batches of 32. `narrow` has 10 "
        "layers of 32 units, `dense` of 64, `convnet` is the image example's plain net of 20 layers. Seconds "
        f"are of all trials, compilation included; medians of {options.groups}. The loop builds, fits with "
        "validation after each epoch, and evaluates on the test data; `compare` also draws all weights, "
        "diagnoses the signal and says what came of it.\n\n"
        "What vectorising saves is dispatch and compilation; arithmetic it only gathers. The steps of 16 "
        "nets of 64 units are 115 million operations, at which two cores are busy; XLA has no fast "
        "convolution for CPUs with other kernels for each seed, nor one inside a compiled loop.",
        device="no GPU at hand" if device == "CPU" else device,
    )


if __name__ == "__main__":
    main()
