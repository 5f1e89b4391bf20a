"""A small comparison, its table, and what its trials log: for tests of runners in other processes."""

import collections
import contextlib
import importlib.util
import json
import os
import pathlib
import time

import keras
import numpy as np
import pytest

from keras_initx.experiments import compare

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'ray[serve,tune]')"
)
INITIALIZERS = ["initx>HeScaled", "glorot_uniform", "ones"]
SEEDS, EPOCHS = 3, 4


def build():
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def data(rows=128):
    x = np.random.default_rng(0).normal(size=(rows, 8)).astype("float32")
    return x, x.sum(axis=1)


class Log(keras.callbacks.Callback):
    """Writes who makes which trial, and stays with it for a while."""

    def __init__(self, path, trial, seconds):
        super().__init__()
        self.path, self.trial, self.seconds = path, trial, seconds

    def on_train_begin(self, logs=None):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {self.trial.key}\n")

    def on_epoch_end(self, epoch, logs=None):
        time.sleep(self.seconds / EPOCHS)


class Logs:
    """Callbacks for trials, and what they wrote."""

    def __init__(self, folder, seconds=2.0, fault=lambda trial: None):
        self.path, self.seconds, self.fault = pathlib.Path(folder) / "log", seconds, fault
        self.path.touch()

    def __call__(self, trial):
        self.fault(trial)
        return [Log(self.path, trial, self.seconds)]

    def lines(self):
        return [line.split() for line in self.path.read_text().splitlines()]

    def counts(self):
        """How many times each trial was begun."""
        return collections.Counter(key for _, key in self.lines())

    def __str__(self):
        return f"{len(self.lines())} starts of {len(self.counts())} trials"


def run(runner, callbacks=None, **given):
    options = {"seeds": SEEDS, "epochs": EPOCHS, "target": 1.0, "test": data(), "callbacks": callbacks}
    return compare(build, INITIALIZERS, data(), data(64), runner=runner, **options | given)


def table(found):
    """All that does not depend on the clock."""
    clocks = {"seconds", "seconds_to_target"}
    rows = [{name: value for name, value in vars(row).items() if name not in clocks} for row in found.rows]
    results = [{**result.to_dict(), **dict.fromkeys(clocks)} for result in found.results]
    return [json.dumps(row) for row in (*rows, *results)]  # in which NaN is NaN


def others(found, trial):
    """The results of all trials but one."""
    return [line for line in table(found) if '"curves"' in line and json.dumps(vars(trial)) not in line]


def left_over():
    """Folders and processes of a cluster of the runner's own."""
    folders = list(pathlib.Path("/tmp").glob("initx-*/session_*"))
    processes = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"/tmp/initx-" in (entry / "cmdline").read_bytes():
                processes.append(int(entry.name))
    return folders, processes
