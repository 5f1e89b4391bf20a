"""Draws the pictures of docs/plots.md: a ReLU net of 12 layers from three initializers, and its training."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from keras_initx import plots

IMAGES = pathlib.Path(__file__).parents[1] / "docs" / "images"


def build() -> keras.Model:
    hidden = [layers.Dense(64, "relu", name=f"dense_{number}") for number in range(12)]
    model = keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(4, name="head")])
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 64)).astype("float32"), rng.integers(0, 4, 256)
    reports = {}
    for start in ("glorot_uniform", "by_role", "LSUV"):
        model = build()
        if start == "LSUV":
            initx.calibrate(model, x, "initx>LSUV", redraw=True, seed=1)
        else:
            initx.initialize(model, start, seed=1)
        reports[start] = initx.diagnose(model, x, y, seed=0)
    plots.plot_signal(reports).savefig(IMAGES / "signal.png")
    with tempfile.TemporaryDirectory() as folder:
        monitor = initx.callbacks.SignalMonitor(folder, (x, y), images=False)
        model.fit(x, y, epochs=8, verbose=0, callbacks=[monitor])
    label = "standard deviation of gradients"
    plots.plot_over_steps(monitor.reports, "gradient_std", label).savefig(IMAGES / "gradients_over_steps.png")
