"""Time and peak memory of `calibrate` by the depth of a residual stack, compared with one plain pass."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import report

import keras_initx as initx
from keras_initx import probe

DEPTHS = (16, 32, 64, 128, 256)
PAIRS = 5
# The aims of the project: the exponent of time by depth, and the ratio of the peaks of memory.
EXPONENT, MEMORY = 1.1, 1.2


def build(depth: int):
    """Returns a stack of residual blocks of one convolution each, and a batch."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.layers.Input((32, 32, 32))
    for number in range(depth):
        branch = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name=f"conv_{number}")(x)
        x = keras.layers.Add(name=f"add_{number}")([x, branch])
    images = np.random.default_rng(1).standard_normal((16, 32, 32, 32)).astype("float32")
    return keras.Model(inputs, x), images


def plain(model, batch) -> None:
    """Runs the model once and waits for its outputs."""
    keras.ops.convert_to_numpy(probe.run(model, batch, [], lambda _, output: output))


def calibrated(model, images) -> None:
    """Calibrates the model, and waits for the last weight."""
    initx.calibrate(model, images, "initx>LSUV")
    keras.ops.convert_to_numpy(model.weights[-1].value)


def timed(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def peak(kind: str, depth: int) -> float:
    """Runs the measured code once in a fresh process and returns the peak memory, in MiB."""
    command = [sys.executable, __file__, kind, str(depth)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(depth: int) -> tuple[float, float, float, float, float]:
    model, images = build(depth)
    batch = keras.ops.convert_to_tensor(images)
    plain(model, batch)
    calibrated(model, images)
    pairs = [(timed(plain, model, batch), timed(calibrated, model, images)) for _ in range(PAIRS)]
    passes, calibrations = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    memory = [statistics.median(peak(kind, depth) for _ in range(3)) for kind in ("plain", "calibrate")]
    return passes, calibrations, ratio, *memory


if __name__ == "__main__":
    if len(sys.argv) > 1:
        model, images = build(int(sys.argv[2]))
        if sys.argv[1] == "plain":
            plain(model, keras.ops.convert_to_tensor(images))
        else:
            calibrated(model, images)
        # Not `getrusage`: a process inherits that peak from the process that started it.
        status = pathlib.Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        sys.exit()
    found = {depth: measure(depth) for depth in DEPTHS}
    rows = [
        [
            str(depth),
            f"{passes * 1e3:.0f} ms",
            f"{seconds * 1e3:.0f} ms",
            f"{ratio:.2f}",
            *(f"{value:.0f} MiB" for value in memory),
            f"{memory[1] / memory[0]:.2f}",
        ]
        for depth, (passes, seconds, ratio, *memory) in found.items()
    ]
    logs = np.log([[depth, passes, seconds] for depth, (passes, seconds, *_) in found.items()])
    of_pass, of_calibrate = (np.polyfit(logs[:, 0], logs[:, column], 1)[0] for column in (1, 2))
    worst = max(memory[1] / memory[0] for _, _, _, *memory in found.values())
    backend = keras.backend.backend()
    report.write(
        f"calibrate_depth_{backend}",
        f"`calibrate` by depth, {backend}, eager: residual 3x3 convolutions of 32 channels, 32x32, batch 16",
        f"KERAS_BACKEND={backend} python benchmarks/calibrate_depth.py",
        ["depth", "plain pass", "calibrate", "ratio", "peak, plain", "peak, calibrate", "ratio of peaks"],
        rows,
        f"Time grows as depth to the power {of_calibrate:.2f} for `calibrate`, and to the power "
        f"{of_pass:.2f} for a plain pass, by least squares of the logarithms (aim {EXPONENT}: "
        f"{'met' if of_calibrate <= EXPONENT else 'missed'}). Times are medians of {PAIRS} "
        "interleaved pairs. Peaks are medians of 3 fresh processes: resident memory, with the "
        f"framework. The largest ratio is {worst:.2f} (aim {MEMORY}: "
        f"{'met' if worst <= MEMORY else 'missed'}).",
    )
