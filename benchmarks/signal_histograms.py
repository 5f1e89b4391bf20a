"""The cost of histograms of a model of 5 million parameters: time, memory, and the time of `fit` with them.

With `--memory ours` or `--memory TensorFlow` the script prints the extra memory of one process, in MiB.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import report
import tensorflow as tf
from keras import layers

from keras_initx.callbacks import WeightHistograms
from keras_initx.summaries import EventWriter

WIDTH, DEPTH, SAMPLES, EPOCHS = 1000, 5, 1024, 3
RUNS = 7
# The aims of the project.
TIMES_FASTER, FIT_RATIO = 30, 1.05


def build() -> Any:
    hidden = [layers.Dense(WIDTH, "relu") for _ in range(DEPTH)]
    model = keras.Sequential([layers.Input((WIDTH,)), *hidden, layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def with_ours(model: Any, folder: str) -> None:
    with EventWriter(folder) as writer:
        for variable in model.weights:
            writer.histogram(variable.path, np.asarray(keras.ops.copy(variable.value)), step=0)


def with_tensorflow(model: Any, folder: str) -> None:
    """Writes histograms as `keras.callbacks.TensorBoard` does."""
    with tf.summary.create_file_writer(folder).as_default():
        for variable in model.weights:
            tf.summary.histogram(variable.path, variable.value, step=0)


WRITERS: dict[str, Callable[[Any, str], None]] = {"ours": with_ours, "TensorFlow": with_tensorflow}


def peak() -> int:
    """Returns the peak memory of this process since the last reset of the peak, in KiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def extra_memory(name: str) -> float:
    """Returns the memory that the histograms take in addition to the model, in MiB."""
    model, small = build(), keras.Sequential([layers.Input((2,)), layers.Dense(2)])
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](small, folder)  # imports and allocates everything that is needed only once
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        WRITERS[name](model, folder)
        return (peak() - before) / 2**10


def seconds(function: Callable[[str], object]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        function(folder)
        return time.perf_counter() - started


def interleaved(calls: dict[str, Callable[[str], object]]) -> dict[str, list[float]]:
    for call in calls.values():
        seconds(call)
    runs = [{name: seconds(call) for name, call in calls.items()} for _ in range(RUNS)]
    return {name: [run[name] for run in runs] for name in calls}


def row(what: str, ours: str, theirs: str, ratio: str, aim: str, met: bool) -> list[str]:
    return [what, ours, theirs, ratio, aim, "met" if met else "missed"]


def measure_time(model: Any) -> list[str]:
    calls = {name: lambda folder, write=write: write(model, folder) for name, write in WRITERS.items()}
    found = interleaved(calls)
    ours, theirs = (statistics.median(found[name]) for name in WRITERS)
    faster = statistics.median(b / a for a, b in zip(found["ours"], found["TensorFlow"], strict=True))
    times = f"{ours * 1e3:.0f} ms", f"{theirs * 1e3:.0f} ms"
    return row("all weights, once", *times, f"{faster:.0f}", f">= {TIMES_FASTER}", faster >= TIMES_FASTER)


def measure_memory(largest: float) -> list[str]:
    command = [sys.executable, __file__, "--memory"]
    found = {
        name: statistics.median(
            float(subprocess.run([*command, name], capture_output=True, text=True, check=True).stdout)
            for _ in range(3)
        )
        for name in WRITERS
    }
    ours, theirs = found["ours"], found["TensorFlow"]
    sizes = f"{ours:.1f} MiB", f"{theirs:.0f} MiB"
    return row("memory on top", *sizes, f"{theirs / ours:.0f}", f"<= {largest:.1f} MiB", ours <= largest)


def measure_fit(model: Any) -> list[str]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((SAMPLES, WIDTH)).astype("float32"), rng.integers(0, 10, SAMPLES)

    def fit(*callbacks: Any) -> None:
        model.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))

    found = interleaved(
        {
            "plain": lambda _: fit(),
            "ours": lambda folder: fit(WeightHistograms(folder)),
            "Keras": lambda folder: fit(
                keras.callbacks.TensorBoard(folder, histogram_freq=1, write_graph=False)
            ),
        }
    )
    plain = statistics.median(found["plain"])
    ratios = {
        name: statistics.median(b / a for a, b in zip(found["plain"], found[name], strict=True))
        for name in ("ours", "Keras")
    }
    return row(
        f"`fit` of {EPOCHS} epochs, {plain:.2f} s without",
        *(f"{statistics.median(found[name]):.2f} s" for name in ratios),
        f"{ratios['ours']:.2f} and {ratios['Keras']:.2f} times without",
        f"<= {FIT_RATIO}",
        ratios["ours"] <= FIT_RATIO,
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(extra_memory(sys.argv[-1]))
        sys.exit()
    net = build()
    largest = max(int(np.prod(variable.shape)) * 4 for variable in net.weights) / 2**20
    report.write(
        "signal_histograms",
        f"Histograms of {net.count_params() / 1e6:.2f} million parameters in {DEPTH + 1} dense layers",
        "python benchmarks/signal_histograms.py",
        ["", "ours", "TensorFlow's", "ratio", "aim", ""],
        [measure_time(net), measure_memory(largest), measure_fit(net)],
        f"Times are medians of {RUNS} interleaved runs; ratios are medians of the ratios within each "
        "run. Memory has medians of 3 processes. Ours are `EventWriter.histogram` of every weight, "
        "and `WeightHistograms`, which also writes the initialization. TensorFlow's are "
        "`tf.summary.histogram`, and `keras.callbacks.TensorBoard(histogram_freq=1)`. Memory is the "
        f"growth of the peak of the process; the aim is the largest kernel. `fit` runs on {SAMPLES} "
        "rows in batches of 32.",
    )
