"""Draws the pictures of docs/experiments.md: a ReLU net of 10 layers on digits, from four initializers."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib

import keras
from keras import layers

import keras_initx as initx
from keras_initx import datasets, plots

IMAGES = pathlib.Path(__file__).parents[1] / "docs" / "images"
STARTS = ("glorot_uniform", "initx>HeScaled", "initx>LSUV", "by_role")
ROWS = 1150  # rows of the training split that train; learning rates are chosen on the rest


def build() -> keras.Model:
    hidden = [layers.Dense(64, "relu") for _ in range(10)]
    model = keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(), loss, metrics=["accuracy"])
    return model


if __name__ == "__main__":
    digits = datasets.read_digits()
    (x, y), (test_x, test_y) = (
        (images.reshape(-1, 64).astype("float32") / 16, labels)
        for images, labels in (digits.train, digits.test)
    )
    found = initx.compare(
        build,
        STARTS,
        (x[:ROWS], y[:ROWS]),
        (x[ROWS:], y[ROWS:]),
        test=(test_x, test_y),
        learning_rates=(0.01, 0.03, 0.3),
        epochs=10,
        metric="accuracy",
    )
    print(found)
    plots.plot_curves(found).savefig(IMAGES / "compare_curves.png")
    plots.plot_finals(found).savefig(IMAGES / "compare_finals.png")
    plots.plot_rates(found).savefig(IMAGES / "compare_rates.png")
