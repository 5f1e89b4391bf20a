"""Two small models that learned one thing, and learn another one by adapters.

    task = adapted.text(width=128, depth=2, trained=1500)   # or adapted.images(trained=1500)
    model = adapted.with_adapters(task, rank=4)

Text: a decoder learned the characters of Python's own source, and learns docstrings by adapters on its
queries and values. The source has docstrings, too. Images: a convolutional net learned the digits, and learns
Fashion-MNIST by adapters on its second convolution and its dense layer; its head is a linear probe on the
features of the digits, and stays.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import sklearn.datasets
from keras import layers

import decoder
import keras_initx as initx
import keras_initx.datasets
from keras_initx.adapters import enable_lora

LENGTH, HEAD_WIDTH = 32, 32  # LoRA-GA takes ranks up to half the width of a head

Rows = tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """A trained model, the layers that get adapters, and the rows to learn from, to choose by and to test."""

    build: Callable[[], keras.Model]
    weights: list[np.ndarray]
    layers: tuple[str, ...]
    batch: int
    learned: Rows
    chosen_by: Rows
    tested: Rows


def compiled(model: keras.Model) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def train(model: keras.Model, rows: Rows, rate: float, batch: int, order: np.ndarray) -> None:
    """Trains on rows in an order, once."""
    model.optimizer.learning_rate = rate
    model.fit(rows[0][order], rows[1][order], batch_size=batch, shuffle=False, verbose=0)


def cut(rows: Rows, number: int) -> tuple[Rows, Rows]:
    """Cuts rows, in an order that is as good as chance, into a first part and the last `number` ones."""
    parts = np.split(np.random.default_rng(0).permutation(len(rows[1])), [-number])
    before, last = ((rows[0][part], rows[1][part]) for part in parts)
    return before, last


def text(width: int, depth: int, trained: int) -> Task:
    """A decoder that learned Python's own source for some steps of 16 rows, and docstrings."""

    def build() -> keras.Model:
        return decoder.build(width, depth, head_width=HEAD_WIDTH, length=LENGTH)

    model = compiled(build())
    initx.initialize(model, seed=0)
    read = initx.datasets.read_pysource()
    source = initx.datasets.windows(read.train, LENGTH)
    order = np.random.default_rng(0).permutation(len(source[0]))[: trained * 16]
    train(model, source, 2.0**-8, 16, order)
    prose = initx.datasets.read_pydoc("code")
    number = {character: place for place, character in enumerate(read.vocabulary)}

    def rows(lines: tuple[tuple[str, int], ...]) -> Rows:
        joined = "".join(f"{line}\n" for line, label in lines if label == 0)
        return initx.datasets.windows(np.array([number.get(one, 1) for one in joined]), LENGTH)

    learned, chosen_by = cut(rows(prose.train), 500)
    _, tested = cut(rows(prose.test), 1000)
    return Task(build, model.get_weights(), ("*query", "*value"), 16, learned, chosen_by, tested)


def images(trained: int) -> Task:
    """A net that learned digits of 16x16 pixels for some steps of 50, and Fashion-MNIST of the same size."""

    def build() -> keras.Model:
        return keras.Sequential(
            [
                layers.Input((16, 16, 1)),
                layers.Conv2D(32, 3, 2, "same", activation="relu", name="conv1"),
                layers.Conv2D(32, 3, 2, "same", activation="relu", name="conv2"),
                layers.Flatten(),
                layers.Dense(64, "relu", name="hidden"),
                layers.Dense(10, name="head"),
            ]
        )

    model = compiled(build())
    initx.initialize(model, seed=0)
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    digits = standardized(x.reshape(-1, 8, 8, 1).repeat(2, axis=1).repeat(2, axis=2)), y.astype("int32")
    order = np.resize(np.random.default_rng(0).permutation(len(y)), trained * 50)
    train(model, digits, 2.0**-9, 50, order)
    read = initx.datasets.read_fashion_mnist()
    learned, chosen_by = cut((shrunk(read.train[0]), read.train[1]), 2000)
    _, tested = cut((shrunk(read.test[0]), read.test[1]), 5000)
    initx.calibrate(model, (learned[0][:1000], learned[1][:1000]), "initx>LinearProbe", include="head")
    return Task(build, model.get_weights(), ("conv2", "hidden"), 50, learned, chosen_by, tested)


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Returns images of 28x28 pixels as standardized ones of 16x16, with an empty margin."""
    halves = pixels.astype("float32").reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4))
    return standardized(np.pad(halves, [(0, 0), (1, 1), (1, 1), (0, 0)]))


def standardized(pixels: np.ndarray) -> np.ndarray:
    return ((pixels - pixels.mean()) / pixels.std()).astype("float32")


def with_adapters(task: Task, rank: int) -> keras.Model:
    """Returns the trained model with adapters, which alone are trainable; not compiled."""
    model = task.build()
    model.set_weights(task.weights)
    enable_lora(model, dict.fromkeys(task.layers, rank))
    for weight in model.variables:
        weight.trainable = weight.name.startswith("lora_")
    return model


def draw_as_keras(model: keras.Model, seed: int) -> None:
    """Draws each A as `enable_lora` does: by its shape alone."""
    for number, weight in enumerate(model.trainable_variables):
        if weight.name == "lora_kernel_a":
            weight.assign(keras.initializers.HeUniform(seed=100 * seed + number)(weight.shape))
