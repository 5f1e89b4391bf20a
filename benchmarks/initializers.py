"""Time and memory of our initializers, compared with their counterparts in Keras, in one run."""

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

from keras_initx import initializers as initx

SIDE = 4096
TALL = (32000, 1024)
SMALL, MANY = (64, 64), 10_000
VARIANCE_PAIRS, ORTHOGONAL_PAIRS, SMALL_PAIRS = 15, 5, 5
WITHIN, FASTER, MEMORY = 1.1, 2.0, 3.0

VARIANCE = {
    "GlorotScaled()": (initx.GlorotScaled(), keras.initializers.GlorotUniform()),
    "GlorotScaled, truncated": (
        initx.GlorotScaled(distribution="truncated_normal"),
        keras.initializers.GlorotNormal(),
    ),
    "HeScaled()": (
        initx.HeScaled(),
        keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal"),
    ),
    "HeScaled, truncated": (
        initx.HeScaled(distribution="truncated_normal"),
        keras.initializers.HeNormal(),
    ),
    "HeScaled, uniform": (initx.HeScaled(distribution="uniform"), keras.initializers.HeUniform()),
    "LecunScaled()": (initx.LecunScaled(), keras.initializers.LecunNormal()),
    "LecunScaled, uniform": (
        initx.LecunScaled(distribution="uniform"),
        keras.initializers.LecunUniform(),
    ),
    "ConstantFill()": (initx.ConstantFill(), keras.initializers.Constant(0.05)),
}
ORTHOGONAL = {"ours": initx.OrthogonalScaled, "Keras": keras.initializers.Orthogonal}


def seconds(draw: Callable[[], Any]) -> float:
    """Times a draw until its values are there, because JAX, and PyTorch on a GPU, return earlier."""
    started = time.perf_counter()
    result = draw()
    if keras.backend.backend() == "jax":
        result.block_until_ready()
    elif keras.backend.backend() == "torch" and result.is_cuda:
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started


def draw_many(initializer: Any) -> Any:
    for _ in range(MANY - 1):
        initializer(SMALL)
    return initializer(SMALL)


def compare(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, limit: float
) -> list[str]:
    """Returns a row: the median time of Keras, and the median of the ratio within interleaved pairs."""
    for draw in (ours, theirs):
        seconds(draw)
    times = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    ratios = [mine / other for mine, other in times]
    ratio = statistics.median(ratios)
    return [
        name,
        f"{statistics.median(other for _, other in times):.3f} s",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{limit:.2f}",
        "met" if ratio <= limit else "missed",
    ]


def peak_memory(whose: str, shape: tuple[int, int]) -> float:
    """Returns the growth of a fresh process' peak during a first draw, in units of its result."""
    command = [sys.executable, __file__, whose, *map(str, shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak_memory(whose: str, shape: tuple[int, int]) -> None:
    initializer = ORTHOGONAL[whose](seed=1)
    seconds(lambda: initializer((600, 300)))  # loads the code that the libraries load at their first use
    before = high_water()
    seconds(lambda: initializer(shape))
    print((high_water() - before) / (4 * shape[0] * shape[1]))


def high_water() -> int:
    """Returns the peak resident bytes of this process alone. `ru_maxrss` counts the parent's peak, too."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def memory_row(shape: tuple[int, int]) -> list[str]:
    ours, theirs = (peak_memory(whose, shape) for whose in ORTHOGONAL)
    name = f"OrthogonalScaled(), {shape[0]} x {shape[1]}: peak memory over the result's"
    return [name, f"{theirs:.2f}", f"{ours:.2f}", f"{MEMORY:.2f}", "met" if ours <= MEMORY else "missed"]


def measure() -> list[list[str]]:
    rows = [
        compare(f"{name}, {SIDE} x {SIDE}", *_draws(*pair, (SIDE, SIDE)), VARIANCE_PAIRS, WITHIN)
        for name, pair in VARIANCE.items()
    ]
    for name in ("GlorotScaled()", "HeScaled, truncated", "LecunScaled()"):
        ours, theirs = VARIANCE[name]
        many = (lambda ours=ours: draw_many(ours)), (lambda theirs=theirs: draw_many(theirs))
        rows.append(compare(f"{name}, {MANY:,} of 64 x 64", *many, SMALL_PAIRS, WITHIN))
    for shape in ((SIDE, SIDE), TALL):
        name = f"OrthogonalScaled(), {shape[0]} x {shape[1]}"
        pair = (initializer() for initializer in ORTHOGONAL.values())
        rows.append(compare(name, *_draws(*pair, shape), ORTHOGONAL_PAIRS, 1 / FASTER))
    return rows + [memory_row(shape) for shape in ((SIDE, SIDE), TALL)]


def _draws(ours: Any, theirs: Any, shape: tuple[int, int]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return (lambda: ours(shape)), (lambda: theirs(shape))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(sys.argv[1], (int(sys.argv[2]), int(sys.argv[3])))
    else:
        report.write(
            f"initializers_{keras.backend.backend()}",
            f"Initializers over their counterparts in Keras, {keras.backend.backend()}, float32",
            f"KERAS_BACKEND={keras.backend.backend()} python benchmarks/initializers.py",
            ["initializer", "Keras", "ours over Keras", "limit", ""],
            measure(),
            "Times are the median of Keras, then the median and range of the ratio within "
            f"interleaved pairs ({VARIANCE_PAIRS} pairs; {SMALL_PAIRS} for small and orthogonal "
            "kernels). Memory is the growth of the peak resident size of a fresh process during the "
            "first draw, in units of the result, for Keras and for us.",
        )
