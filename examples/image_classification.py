"""Trains convnets without normalization from several initializations and compares the results.

Nothing in these nets hides the initialization. `plain` has 20 layers and no skip connections. `residual` adds
nine branches of two convolutions to its signal. `separable` has six separable layers, and Keras counts wrong
fans for their kernels.

The script runs on any backend: KERAS_BACKEND=tensorflow, jax or torch. JAX and PyTorch need no TensorFlow.
After a kill, give the same command again: the run continues after its last finished epoch, and ends with the
same weights as without the interruption.

    python examples/image_classification.py
    python examples/image_classification.py --model separable --augment
    python examples/image_classification.py --dataset fashion_mnist --epochs 3
    python examples/image_classification.py --dataset mnist --initializer he_normal OrthogonalScaled
"""

import argparse
import importlib.util
import os
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_initx as initx
import keras_initx.datasets
import outcome
import training

LEARNING_RATE = 0.05  # falls smoothly, by half in HALVE_EPOCHS epochs
HALVE_EPOCHS = 5
TURN = np.radians(10)  # the largest turn of an augmented image
SHIFT = 0.1  # the largest shift, as a part of its height or width
INITIALIZERS = {
    "plain": ["initx>GlorotScaled", "initx>HeScaled", "initx>LSUV"],
    "residual": ["initx>GlorotScaled", "initx>HeScaled", "Fixup", "SkipInit"],
    "separable": ["initx>GlorotScaled", "initx>HeScaled", "by_role"],
}


class Data(NamedTuple):
    """A data set in memory: images with unscaled pixels, and labels."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    labels: Sequence[str]


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    help_ = "any image classification data set of tfds with images of one size; it is read into memory"
    parser.add_argument("--dataset", default="initx_digits", help=help_)
    parser.add_argument(
        "--augment", action="store_true", help="turn and shift the images, differently each epoch"
    )
    return parser, training.parse(parser, INITIALIZERS, epochs=15)


def load_data(name: str) -> Data:
    datasets = keras_initx.datasets
    read = {"initx_digits": datasets.read_digits, "fashion_mnist": datasets.read_fashion_mnist}
    if name in read:  # from their files, so these need no TensorFlow
        images = read[name]()
        return Data(images.train, images.test, images.labels)
    train, test, labels = training.read_tfds(name, "Image")
    shapes = {image.shape for image, _ in train + test}
    if len(shapes) > 1:
        raise ValueError(
            f"--dataset must hold images of one size. Received: {name} with {len(shapes)} sizes, from "
            f"{min(shapes)} to {max(shapes)}. Choose another, for example mnist or cifar10."
        )

    def arrays(rows: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
        images, numbers = zip(*rows, strict=True)
        return np.stack(images), np.array(numbers, "int32")

    return Data(arrays(train), arrays(test), labels)


def build_model(data: Data, kind: str, initializer: str, jit_compile: bool | str = "auto") -> keras.Model:
    """Returns a compiled model from raw pixels to probabilities. It standardizes the pixels itself."""
    images, labels = data.train
    inputs = keras.Input(images.shape[1:], name="image")
    mean, variance = float(images[:256].mean()), float(images[:256].var())
    x = layers.Normalization(axis=None, mean=mean, variance=variance, name="standardize")(inputs)
    x = {"plain": plain, "residual": residual, "separable": separable}[kind](x, initializer)
    head = layers.Dense(
        len(data.labels), "softmax", kernel_initializer=initializer, dtype="float32", name="probabilities"
    )
    model = keras.Model(inputs, head(x), name=kind)
    steps = -(-len(labels) // training.BATCH)
    rate = keras.optimizers.schedules.ExponentialDecay(LEARNING_RATE, HALVE_EPOCHS * steps, 0.5)
    model.compile(
        optimizer=keras.optimizers.SGD(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def convolve(x: keras.KerasTensor, initializer: str, name: str, **options: int | str) -> keras.KerasTensor:
    """Applies 16 filters of 3 x 3, the only kind of convolution in `plain` and `residual`."""
    return layers.Conv2D(16, 3, padding="same", kernel_initializer=initializer, name=name, **options)(x)


def plain(x: keras.KerasTensor, initializer: str) -> keras.KerasTensor:
    """Applies 19 convolutions."""
    for depth in range(1, 20):
        strides = 2 if depth == 5 else 1
        x = convolve(x, initializer, f"conv{depth:02}", activation="relu", strides=strides)
    return layers.Flatten(name="flatten")(x)


def residual(x: keras.KerasTensor, initializer: str) -> keras.KerasTensor:
    """Applies a convolution and nine branches of two. Their scales start at 1, so they are added in full."""
    x = convolve(x, initializer, "conv01")
    for block in range(1, 10):
        if block == 3:
            x = layers.MaxPooling2D(name="halve")(x)
        y = layers.ReLU(name=f"relu{2 * block:02}")(x)
        y = convolve(y, initializer, f"conv{2 * block:02}", activation="relu")
        y = convolve(y, initializer, f"conv{2 * block + 1:02}")
        x = layers.Add(name=f"add{block}")([x, initx.layers.ResidualScale(1.0, name=f"scale{block}")(y)])
    return layers.Flatten(name="flatten")(layers.ReLU(name="relu20")(x))


def separable(x: keras.KerasTensor, initializer: str) -> keras.KerasTensor:
    """Applies a convolution and six separable ones. A depthwise output sums 9 inputs; Keras counts 9 x 32."""
    options = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(32, 3, kernel_initializer=initializer, name="conv", **options)(x)
    for block in range(1, 7):
        layer = layers.SeparableConv2D(
            filters=32,
            kernel_size=3,
            depthwise_initializer=initializer,
            pointwise_initializer=initializer,
            name=f"separable{block}",
            **options,
        )
        x = layer(x)
    return layers.Flatten(name="flatten")(x)


def augment(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turns and shifts each image a little, and mirrors none, because a mirrored digit is not a digit."""
    height, width = images.shape[1:3]
    turn = random.uniform(-TURN, TURN, len(images))
    down, right = random.uniform(-SHIFT, SHIFT, (2, len(images))) * [[height], [width]]
    cos, sin, zeros = np.cos(turn), np.sin(turn), np.zeros(len(images))
    # Pixel (x, y) comes from (cos x - sin y, sin x + cos y) about the centre, plus the shift.
    x, y = (width - 1) / 2, (height - 1) / 2
    to_x = [cos, -sin, x - cos * x + sin * y + right]
    to_y = [sin, cos, y - sin * x - cos * y + down]
    transform = np.stack([*to_x, *to_y, zeros, zeros], axis=1).astype("float32")
    moved = keras.ops.image.affine_transform(images.astype("float32"), transform, fill_mode="nearest")
    return keras.ops.convert_to_numpy(moved)


def save(model: keras.Model, data: Data, target: pathlib.Path) -> None:
    """Saves the model, its labels and warm-up rows. Under TensorFlow it also exports them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    labels, rows = pathlib.Path(f"{target}.labels.txt"), pathlib.Path(f"{target}.warmup.npy")
    training.replace(pathlib.Path(f"{target}.keras"), model.save)
    labels.write_text("\n".join(data.labels) + "\n", "utf-8")
    np.save(rows, data.test[0][:8])
    if keras.backend.backend() == "tensorflow":
        # Warm-up requests are messages of TensorFlow Serving, which the extra `serve` installs.
        warmup = data.test[0][:8] if importlib.util.find_spec("tensorflow_serving") else None
        print(f"Exported: {initx.export(model, target, labels=data.labels, warmup=warmup)}")
    else:
        print("TensorFlow turns it into a SavedModel, on this machine or another one:")
        print(
            f"    export KERAS_BACKEND=tensorflow\n    initx export {target}.keras {target} --labels {labels}"
        )
        print(f"If the extra `serve` is installed, add --warmup {rows}")


def main(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    training.check(arguments)
    policy = training.set_up_device(arguments)
    data = load_data(arguments.dataset)
    dataset = arguments.dataset.replace("/", "-")
    augmented = "-augmented" if arguments.augment else ""
    folder = arguments.runs / f"{dataset}-{arguments.model}{augmented}-{policy}-seed{arguments.seed}"
    models, records = training.compare(
        arguments,
        folder,
        data,
        lambda initializer: build_model(data, arguments.model, initializer, arguments.jit_compile),
        augment if arguments.augment else None,
    )
    best = outcome.show(records, 1 / len(data.labels), arguments.dataset, folder)
    target = arguments.saved_models / dataset.removeprefix("initx_")
    print(f"Saving the model from {best}: {target}.keras")
    save(models[best], data, target)
    print(f"{time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    parser, arguments = parse_arguments()
    training.run(parser, lambda: main(arguments))
