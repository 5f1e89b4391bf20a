"""Time of `calibrate` over the time of one plain forward pass, on models that others wrote."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import report

import keras_initx as initx

# What the project aims at, in units of one plain eager forward pass.
TARGETS = {"ResNet50": 1.15, "VGG16": 1.15, "MobileNetV2": 1.35}
PAIRS = 7
RUNS = 5


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(name: str) -> list[str]:
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3))
    images = np.random.default_rng(1).standard_normal((16, 64, 64, 3)).astype("float32")
    batch = keras.ops.convert_to_tensor(images)

    def plain() -> object:
        return keras.ops.convert_to_numpy(model(batch, training=False))

    def calibrate() -> object:
        return initx.calibrate(model, images, "initx>LSUV")

    plain(), calibrate()
    medians, forward = [], []
    for _ in range(RUNS):
        pairs = [(seconds(calibrate), seconds(plain)) for _ in range(PAIRS)]
        medians.append(statistics.median(a / b for a, b in pairs))
        forward.append(statistics.median(b for _, b in pairs))
    report_rows = calibrate().rows
    stds = initx.probe.preactivation_std(model, batch)
    worst = max(abs(stds[row.path] - 1) for row in report_rows if row.iterations)
    ratio = statistics.median(medians)
    return [
        name,
        f"{statistics.median(forward) * 1e3:.0f} ms",
        f"{ratio:.2f} ({min(medians):.2f} to {max(medians):.2f})",
        f"{TARGETS[name]:.2f}",
        "met" if ratio <= TARGETS[name] else "missed",
        f"{worst:.0e}",
    ]


if __name__ == "__main__":
    report.write(
        f"calibrate_{keras.backend.backend()}",
        f"`calibrate` over one plain forward pass, {keras.backend.backend()}, eager, 64x64x3, batch 16",
        "python benchmarks/calibrate.py",
        ["model", "forward pass", "ratio", "aim", "", "worst abs(std - 1)"],
        [measure(name) for name in TARGETS],
        f"Ratio: median over {PAIRS} interleaved pairs; the median of {RUNS} such medians and their range. "
        "The last column is a second, independent probe of the same batch.",
    )
