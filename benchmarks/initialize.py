"""Time and memory of initialize over what Keras needs to draw the same variables, in one run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import report

import keras_initx as initx
from keras_initx.walk import iter_kernels, iter_weights, own_initializer

ROUNDS, LIMIT = 7, 1.1
LLAMA = {"hidden_dim": 1280, "intermediate_dim": 4864, "num_layers": 20, "vocabulary_size": 32000}


def resnet() -> Any:
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))


def gpt2() -> Any:
    import keras_hub

    return keras_hub.models.GPT2Backbone(
        vocabulary_size=50257,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        max_sequence_length=1024,
    )


def llama(num_layers: int = LLAMA["num_layers"], dtype: str = "float32") -> Any:
    import keras_hub

    sizes = LLAMA | {"num_layers": num_layers}
    return keras_hub.models.LlamaBackbone(
        num_query_heads=20, num_key_value_heads=4, dtype=dtype, tie_word_embeddings=True, **sizes
    )


MODELS: dict[str, Callable[[], Any]] = {"ResNet-50": resnet, "GPT-2": gpt2, "Llama, 0.5 billion": llama}


def keras_draws(model: Any, kernel: Any = None) -> list[tuple[Any, Any]]:
    """What Keras draws each variable with: the layers' own, or one initializer for all kernels."""
    sites = list(iter_kernels(model, trace=False))
    pairs = [(s.kernel, (kernel if s.fans else None) or own_initializer(s)) for s in sites]
    pairs += [(w.kernel, w.initializer) for w in iter_weights(model, sites)]
    return [(variable, initializer) for variable, initializer in pairs if initializer is not None]


def draw_by_keras(draws: list[tuple[Any, Any]]) -> None:
    for variable, initializer in draws:
        variable.assign(initializer(tuple(variable.shape), dtype=variable.dtype))


INITIALIZERS: dict[str, tuple[Any, Any]] = {
    "None": (None, None),
    "he_normal": ("he_normal", keras.initializers.HeNormal()),
    "by_role": (
        initx.strategies.ByRole(),
        keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal"),
    ),
}


def seconds(function: Callable[[], Any], model: Any) -> float:
    started = time.perf_counter()
    function()
    if keras.backend.backend() == "jax":
        for variable in model.variables:
            variable.value.block_until_ready()
    return time.perf_counter() - started


def compare(name: str, model: Any, initializer: str, rounds: int) -> list[list[str]]:
    ours, kernel = INITIALIZERS[initializer]
    draws = keras_draws(model, kernel)
    functions = (
        lambda: draw_by_keras(draws),
        lambda: initx.initialize(model, ours, seed=1),
        lambda: initx.initialize(model, ours, seed=1, transactional=False),
    )
    for function in functions:
        seconds(function, model)
    times = [tuple(seconds(function, model) for function in functions) for _ in range(rounds)]
    rows = []
    for column, undo in ((1, ""), (2, ", transactional=False")):
        ratios = [row[column] / row[0] for row in times]
        ratio = statistics.median(ratios)
        rows.append(
            [
                f"{name}, {initializer}{undo}",
                f"{statistics.median(row[0] for row in times):.2f} s",
                f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "met" if ratio <= LIMIT else "missed",
            ]
        )
    return rows


def high_water() -> int:
    """Returns the peak resident size of this process in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def print_peak(whose: str, name: str, initializer: str) -> None:
    """Prints what drawing adds to the peak of a process that holds the model, in bytes."""
    model = MODELS[name]()
    ours, kernel = INITIALIZERS[initializer]
    small = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8)])
    initx.initialize(small, ours, seed=1)  # what is loaded at the first use
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
    before = high_water()
    if whose == "ours":
        initx.initialize(model, ours, seed=1, transactional=False)
    else:
        draw_by_keras(keras_draws(model, kernel))
    print(high_water() - before)


def peak(whose: str, name: str, initializer: str) -> float:
    command = [sys.executable, __file__, "peak", whose, name, initializer]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_row(name: str, initializer: str) -> list[str]:
    theirs, ours = (peak(whose, name, initializer) for whose in ("keras", "ours"))
    ratio = ours / theirs
    return [
        f"{name}, {initializer}: memory, transactional=False",
        f"{theirs / 2**20:.0f} MiB",
        f"{ratio:.2f}",
        "met" if ratio <= LIMIT else "missed",
    ]


def print_largest(num_layers: int) -> None:
    """Builds a Llama-like model in bfloat16, initializes it, and prints parameters and peak GiB."""
    model = llama(num_layers, "bfloat16")
    initx.initialize(model, "by_role", seed=1, transactional=False)
    print(model.count_params() / 1e9, high_water() / 2**30)


def measure(names: list[str]) -> list[list[str]]:
    rows = []
    for name in names:
        model = MODELS[name]()
        rounds = 3 if name.startswith("Llama") else ROUNDS
        rows += [row for initializer in INITIALIZERS for row in compare(name, model, initializer, rounds)]
        del model
    return rows + [
        memory_row(name, initializer) for name in names for initializer in ("he_normal", "by_role")
    ]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["peak", whose, name, initializer]:
            print_peak(whose, name, initializer)
        case ["largest", count]:
            print_largest(int(count))
        case names:
            backend = keras.backend.backend()
            report.write(
                f"initialize_{backend}",
                f"initialize over Keras' own draws of the same variables, {backend}, float32",
                f"KERAS_BACKEND={backend} python benchmarks/initialize.py",
                ["model, initializer", "Keras", "ours over Keras", f"limit {LIMIT}"],
                measure(names or list(MODELS)),
                "Keras draws with the layers' own initializers for None, with HeNormal for he_normal, and "
                "with the normal law of fan_in for by_role. Times: Keras' median, then the median and range "
                f"of the ratio within {ROUNDS} interleaved rounds (3 for Llama). Memory: what drawing adds "
                "to the peak resident size of a fresh process that holds the model.",
            )
