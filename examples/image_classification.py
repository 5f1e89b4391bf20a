"""Trains a deep plain convnet from several initializations and shows what becomes of each.

The net has 20 layers, ReLU, no normalization and no skip connections: nothing in it hides the initialization.
A run that was killed goes on after its last finished epoch when the same command is given again, and ends
with the weights that it would have had without the interruption.

    python examples/image_classification.py
    python examples/image_classification.py --dataset mnist --initializer he_normal "initx>OrthogonalScaled"
"""

import argparse
import os
import pathlib
import time
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_initx as initx
import keras_initx.datasets
import training

BATCH = 64
LEARNING_RATE = 0.05  # halved smoothly every HALVE_EPOCHS
HALVE_EPOCHS = 5
SHUFFLE_BUFFER = 10_000


class Data(NamedTuple):
    """A data set, and what the model and the calibration need to know of it."""

    train: tf.data.Dataset
    test: tf.data.Dataset
    shape: tuple[int, ...]
    classes: int
    images: np.ndarray  # 256 training images, to calibrate and measure on

    @property
    def steps(self) -> int:
        return -(-len(self.train) // BATCH)


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="initx_digits", help="any tfds image classification set")
    return parser, training.parse(parser, ["initx>GlorotScaled", "initx>HeScaled", "initx>LSUV"], epochs=15)


def load_data(name: str) -> Data:
    (train, test), info = keras_initx.datasets.load(name, ["train", "test"])
    if set(info.supervised_keys) != {"image", "label"}:
        raise ValueError(f"--dataset must hold labelled images. Received: {name}, {info.supervised_keys}.")
    images = np.stack([image for image, _ in train.take(256).as_numpy_iterator()])
    label = info.features["label"]
    return Data(train.cache(), test.cache(), images.shape[1:], label.num_classes, images)


def build_model(data: Data, initializer: str) -> keras.Model:
    """19 convolutions and a dense layer on raw pixels, which are standardized inside the model."""
    inputs = keras.layers.Input(data.shape, name="image")
    mean, variance = float(data.images.mean()), float(data.images.var())
    x = keras.layers.Normalization(axis=None, mean=mean, variance=variance, name="standardize")(inputs)
    for depth in range(1, 20):
        convolution = keras.layers.Conv2D(
            filters=16,
            kernel_size=3,
            strides=2 if depth == 5 else 1,
            padding="same",
            activation="relu",
            kernel_initializer=initializer,
            name=f"conv{depth:02}",
        )
        x = convolution(x)
    x = keras.layers.Flatten(name="flatten")(x)
    head = keras.layers.Dense(
        data.classes, "softmax", kernel_initializer=initializer, dtype="float32", name="probabilities"
    )
    model = keras.Model(inputs, head(x), name="plain20")
    rate = keras.optimizers.schedules.ExponentialDecay(LEARNING_RATE, HALVE_EPOCHS * data.steps, 0.5)
    model.compile(
        optimizer=keras.optimizers.SGD(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def batches(data: Data, seed: int, first: int, last: int) -> tf.data.Dataset:
    """The batches of the epochs from `first` to `last`, each in an order that its number alone decides."""

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        return data.train.shuffle(SHUFFLE_BUFFER, seed=1_000_003 * seed + epoch).batch(BATCH)

    return tf.data.Dataset.range(first, last).flat_map(one_epoch).prefetch(2)


def train(data: Data, initializer: str, seed: int, epochs: int, folder: pathlib.Path) -> tuple[Any, dict]:
    """Trains from one initialization, or goes on where an earlier call was interrupted."""

    def build() -> keras.Model:
        keras.utils.set_random_seed(seed)
        return build_model(data, initializer)

    def start(model: keras.Model) -> dict[str, float]:
        training.calibrate(model, initializer, data.images)
        return initx.probe.preactivation_std(model, data.images)

    return training.train(
        initializer,
        folder,
        epochs,
        data.steps,
        build,
        start,
        lambda first, last: batches(data, seed, first, last),
        data.test.batch(256),
    )


def main(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    training.check(arguments)
    keras.utils.set_random_seed(arguments.seed)
    policy = training.set_up_device(arguments.mixed_precision)
    data = load_data(arguments.dataset)
    folder = arguments.runs / f"{arguments.dataset.replace('/', '-')}-{policy}-seed{arguments.seed}"
    models, records = {}, {}
    for name in arguments.initializer:
        run = folder / name.replace(">", "-")
        models[name], records[name] = train(data, name, arguments.seed, arguments.epochs, run)

    training.show_table(records, "layer 1", "layer 20")
    picture = folder / "initializations.png"
    training.draw(records, data.classes, arguments.dataset, picture, ticks=[1, 5, 10, 15, 20])
    print(f"\nPicture: {picture}")
    print(f"TensorBoard: tensorboard --logdir {folder}")

    best = training.best_of(records)
    target = arguments.saved_models / arguments.dataset.removeprefix("initx_").replace("/", "-")
    arguments.saved_models.mkdir(parents=True, exist_ok=True)
    models[best].save(f"{target}.keras")
    print(f"Saved the model from {best}: {target}.keras")
    if keras.backend.backend() == "tensorflow":
        print(f"Exported it: {initx.export(models[best], target)}")
    print(f"{time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    parser, arguments = parse_arguments()
    training.run(parser, lambda: main(arguments))
