"""Trains a deep plain convnet from several initializations and shows what becomes of each.

The net has 20 layers, ReLU, no normalization and no skip connections: nothing in it hides the initialization.
A run that was killed goes on after its last finished epoch when the same command is given again, and ends
with the weights that it would have had without the interruption.

    python examples/image_classification.py
    python examples/image_classification.py --dataset mnist --initializer he_normal "initx>OrthogonalScaled"
"""

import argparse
import json
import os
import pathlib
import time
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
import tensorflow as tf

import keras_initx as initx
import keras_initx.datasets

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
    default = ["initx>GlorotScaled", "initx>HeScaled", "initx>LSUV"]
    parser.add_argument("--dataset", default="initx_digits", help="any tfds image classification set")
    parser.add_argument("--initializer", nargs="+", default=default, help="Keras or initx names to compare")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mixed-precision", action="store_true", help="float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="logs, checkpoints")
    parser.add_argument("--saved-models", type=pathlib.Path, default=pathlib.Path("saved_models"))
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1. Received: {arguments.epochs}.")
    return parser, arguments


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
    return keras.Model(inputs, head(x), name="plain20")


def batches(data: Data, seed: int, first: int, last: int) -> tf.data.Dataset:
    """The batches of the epochs from `first` to `last`, each in an order that its number alone decides."""

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        return data.train.shuffle(SHUFFLE_BUFFER, seed=1_000_003 * seed + epoch).batch(BATCH)

    return tf.data.Dataset.range(first, last).flat_map(one_epoch).prefetch(2)


def replace(path: pathlib.Path, write: Any) -> None:
    """Lets `write` make a new file and renames it to `path`: a kill leaves the old file or the new one."""
    beside = path.with_name(f"new-{path.name}")
    write(beside)
    beside.replace(path)


class Checkpoint(keras.callbacks.Callback):
    """After each epoch saves its metrics, then the model with its optimizer."""

    def __init__(self, folder: pathlib.Path, record: dict) -> None:
        super().__init__()
        self.folder, self.record = folder, record

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.record["epochs"][str(epoch + 1)] = {key: float(value) for key, value in (logs or {}).items()}
        replace(self.folder / "record.json", lambda path: path.write_text(json.dumps(self.record)))
        replace(self.folder / "checkpoint.keras", self.model.save)


def start(data: Data, initializer: str, seed: int) -> tuple[keras.Model, dict]:
    """Builds and compiles a model, calibrates it if its initializer needs data, and measures its signal."""
    keras.utils.set_random_seed(seed)
    model = build_model(data, initializer)
    rate = keras.optimizers.schedules.ExponentialDecay(LEARNING_RATE, HALVE_EPOCHS * data.steps, 0.5)
    model.compile(
        optimizer=keras.optimizers.SGD(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    if isinstance(initx.initializers.get(initializer), initx.initializers.LSUV):
        print(initx.calibrate(model, data.images))
    return model, {"signal": initx.probe.preactivation_std(model, data.images), "epochs": {}}


def train(data: Data, initializer: str, seed: int, epochs: int, folder: pathlib.Path) -> tuple[Any, dict]:
    """Trains from one initialization, or goes on where an earlier call was interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "checkpoint.keras").exists():
        model = keras.models.load_model(folder / "checkpoint.keras")
        record = json.loads((folder / "record.json").read_text())
    else:
        model, record = start(data, initializer, seed)
    done = int(model.optimizer.iterations) // data.steps
    record["epochs"] = {epoch: logs for epoch, logs in record["epochs"].items() if int(epoch) <= done}
    if done > epochs:
        raise ValueError(f"{folder} holds {done} epochs of training already; choose another --runs folder.")
    print(f"\n{initializer}: {f'goes on after epoch {done}' if done else 'starts'}, logs in {folder}")
    if done < epochs:
        model.fit(
            batches(data, seed, done, epochs),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=data.steps,
            shuffle=False,  # `batches` has done it
            validation_data=data.test.batch(256),
            callbacks=[
                initx.callbacks.WeightHistograms(folder),
                keras.callbacks.TensorBoard(folder, write_graph=False),
                Checkpoint(folder, record),
            ],
        )
    return model, record


def draw(records: dict[str, dict], data: Data, dataset: str, path: pathlib.Path) -> None:
    """Pre-activation std by depth before training, and held-out accuracy by epoch, a line per initializer."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Okabe and Ito's colours, which colour-blind readers can tell apart.
    colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    pyplot.rcParams.update({"font.size": 14})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for number, (name, record) in enumerate(records.items()):
        style = {"color": colors[number % 7], "marker": "osD^vPX"[number % 7], "linewidth": 2, "label": name}
        stds = list(record["signal"].values())
        left.plot(range(1, len(stds) + 1), stds, **style)
        accuracies = [100 * logs["val_accuracy"] for logs in record["epochs"].values()]
        right.plot(range(1, len(accuracies) + 1), accuracies, **style)
    left.set(title="Signal before training", xlabel="layer", ylabel="pre-activation std", yscale="log")
    left.set_xticks([1, 5, 10, 15, 20])
    right.set(title=f"Training on {dataset}", xlabel="epoch", ylabel="held-out accuracy (%)", ylim=(0, 102))
    right.axhline(100 / data.classes, color="gray", linestyle="--", label="chance")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(loc="center right")
    figure.savefig(path, dpi=100)


def show_table(records: dict[str, dict]) -> None:
    print(
        f"\n{'initializer':<24}{'std, layer 1':>14}{'std, layer 20':>15}{'loss':>9}{'held-out accuracy':>20}"
    )
    for name, record in records.items():
        stds, last = list(record["signal"].values()), list(record["epochs"].values())[-1]
        print(
            f"{name:<24}{stds[0]:>14.3g}{stds[-1]:>15.3g}{last['val_loss']:>9.3f}{last['val_accuracy']:>20.3f}"
        )


def set_up_device(mixed_precision: bool) -> str:
    """Prints the device, sets the precision, and makes runs repeatable to the bit; returns the precision."""
    gpus = tf.config.list_physical_devices("GPU")
    policy = ("mixed_float16" if gpus else "mixed_bfloat16") if mixed_precision else "float32"
    keras.mixed_precision.set_dtype_policy(policy)
    tf.config.experimental.enable_op_determinism()
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    print(f"Device: {', '.join(names) or 'CPU'}; precision: {policy}; backend: {keras.backend.backend()}.")
    return policy


def main(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    for name in arguments.initializer:
        initx.initializers.get(name)
    keras.utils.set_random_seed(arguments.seed)
    policy = set_up_device(arguments.mixed_precision)
    data = load_data(arguments.dataset)
    folder = arguments.runs / f"{arguments.dataset.replace('/', '-')}-{policy}-seed{arguments.seed}"
    models, records = {}, {}
    for name in arguments.initializer:
        run = folder / name.replace(">", "-")
        models[name], records[name] = train(data, name, arguments.seed, arguments.epochs, run)

    show_table(records)
    draw(records, data, arguments.dataset, folder / "initializations.png")
    print(f"\nPicture: {folder / 'initializations.png'}")
    print(f"TensorBoard: tensorboard --logdir {folder}")

    best = max(records, key=lambda name: list(records[name]["epochs"].values())[-1]["val_accuracy"])
    target = arguments.saved_models / arguments.dataset.removeprefix("initx_").replace("/", "-")
    arguments.saved_models.mkdir(parents=True, exist_ok=True)
    models[best].save(f"{target}.keras")
    print(f"Saved the model from {best}: {target}.keras")
    if keras.backend.backend() == "tensorflow":
        print(f"Exported it: {initx.export(models[best], target)}")
    print(f"{time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    parser, arguments = parse_arguments()
    try:
        main(arguments)
    except (NotImplementedError, ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
