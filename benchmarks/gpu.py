"""The speed of the examples' models on a GPU in mixed precision, and the time to an accuracy by start.

It needs JAX or torch with CUDA. It needs neither TensorFlow nor tensorflow-datasets:

    KERAS_BACKEND=jax python benchmarks/gpu.py

Without a GPU nothing is measured, and the table says so. `--cpu` runs a few steps of the same code on the
CPU, to show that it works. It prints its numbers and does not keep them.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import report

import image_classification
import keras_initx as initx
import text_classification
import training

GROUPS = 5  # of timed epochs, and of calibrations
SEED = 1
COLUMNS = [
    *("model", "start", "samples per second", "range", "calibration (s)"),
    *("accuracy", "epochs to it", "seconds to it", "at the end"),
]


class Case(NamedTuple):
    """The model and data of one example, and the held-out accuracy to reach."""

    name: str
    data: Any
    build: Callable[[str], keras.Model]
    starts: list[str]
    accuracy: float
    epochs: int


class Clock(keras.callbacks.Callback):
    """The seconds of each epoch without validation, and the epoch that reached the accuracy."""

    def __init__(self, accuracy: float) -> None:
        super().__init__()
        self.accuracy, self.reached, self.seconds = accuracy, None, []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:  # noqa: ARG002
        self.begun = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:  # noqa: ARG002
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        # Waits for work that was only enqueued.
        keras.ops.convert_to_numpy(self.model.trainable_variables[-1])
        self.seconds.append(time.perf_counter() - self.begun)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.last = logs["val_accuracy"]
        if self.reached is None and self.last >= self.accuracy:
            self.reached = epoch + 1


def cases(quick: bool) -> list[Case]:
    images = image_classification.load_data("initx_digits")
    texts = text_classification.load_data("initx_pydoc/code", 64)
    if quick:
        images, texts = (
            data._replace(
                train=tuple(part[:128] for part in data.train), test=tuple(part[:64] for part in data.test)
            )
            for data in (images, texts)
        )
    return [
        Case(
            "image, plain 20 layers",
            images,
            functools.partial(image_classification.build_model, images, "plain"),
            ["initx>GlorotScaled", "initx>HeScaled", "initx>LSUV"],
            0.9,
            2 if quick else 30,
        ),
        Case(
            "text, ReLU RNN",
            texts,
            functools.partial(text_classification.build_model, texts, "relu_rnn"),
            ["initx>GlorotScaled", "initx>OrthogonalScaled", "initx>LSUV"],
            0.9,
            2 if quick else 8,
        ),
    ]


def fit(model: keras.Model, case: Case, epochs: int) -> Clock:
    """Trains on the batches of the examples."""
    inputs, labels = case.data.train
    clock = Clock(case.accuracy)
    model.fit(
        training.batches(inputs, labels, SEED, 0, epochs),
        epochs=epochs,
        steps_per_epoch=-(-len(labels) // training.BATCH),
        shuffle=False,
        validation_data=case.data.test,
        validation_batch_size=256,
        callbacks=[clock],
        verbose=0,
    )
    return clock


def measure(case: Case) -> list[list[str]]:
    """Returns a row for each start. The model is compiled before the clock starts; `initialize` resets it."""
    sample = case.data.train[0][np.random.default_rng(SEED).permutation(len(case.data.train[0]))[:256]]
    rows = []
    for start in case.starts:
        model = case.build(start)
        fit(model, case, 1)
        seconds = []
        for _ in range(GROUPS if start == "initx>LSUV" else 0):
            initx.initialize(model, start, seed=SEED)
            begun = time.perf_counter()
            initx.calibrate(model, sample, start)
            seconds.append(time.perf_counter() - begun)
        if not seconds:
            initx.initialize(model, start, seed=SEED)
        clock = fit(model, case, case.epochs)
        rates = [len(case.data.train[1]) / spent for spent in clock.seconds[-GROUPS:]]
        waited = "" if clock.reached is None else f"{sum(clock.seconds[: clock.reached]):.2f}"
        rows.append(
            [
                *(
                    case.name,
                    start,
                    f"{statistics.median(rates):.0f}",
                    f"{min(rates):.0f} to {max(rates):.0f}",
                ),
                f"{statistics.median(seconds):.3f}" if seconds else "",
                *(f"{case.accuracy:.2f}", str(clock.reached or "not reached"), waited, f"{clock.last:.3f}"),
            ]
        )
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="run a few steps on the CPU, and keep no table")
    on_cpu = parser.parse_args().cpu
    backend = keras.backend.backend()
    names = training.gpu_names(backend)
    if on_cpu:
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
        print("CPU, not a GPU: this run shows that the code works. It is not a measurement.")
        for case in cases(quick=True):
            measure(case._replace(starts=case.starts[-1:]))
        return
    if names:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    rows = [row for case in cases(quick=False) for row in measure(case)] if names else []
    report.write(
        "gpu",
        "The examples' models on a GPU",
        f"KERAS_BACKEND={backend} python benchmarks/gpu.py",
        COLUMNS,
        rows or [["not measured: no GPU was at hand", *[""] * (len(COLUMNS) - 1)]],
        f"Mixed precision (float16), batches of {training.BATCH}, as in the examples. Samples per "
        f"second are the median and range of the last {GROUPS} epochs, without validation. "
        f"Calibration is the median of {GROUPS}. The seconds to the held-out accuracy count only "
        "training, after compilation.",
        device=", ".join(names) or "no GPU at hand",
    )


if __name__ == "__main__":
    main()
