"""Shared code of the examples: options, batches, and a training that continues after a kill."""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_initx as initx
import keras_initx.datasets
from keras_initx.strategies import STRATEGIES
from keras_initx.summaries import EventWriter

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # changes a batch of inputs for training
BATCH = 64
FREE_BYTES = 200_000_000  # a run may write this much: logs, checkpoints, exports


def parse(
    parser: argparse.ArgumentParser, initializers: Mapping[str, Sequence[str]], epochs: int
) -> argparse.Namespace:
    """Adds the options of all examples, and parses the command line.

    Args:
        parser: The parser with the options of one example.
        initializers: For each model, the initializers that it is trained from by default. The first model is
            the default.
        epochs: The default of `--epochs`.
    """
    models = list(initializers)
    parser.add_argument("--model", choices=models, default=models[0])
    help_ = f"names to compare: initializers of Keras or initx, or strategies: {', '.join(STRATEGIES)}"
    parser.add_argument("--initializer", nargs="+", help=help_)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mixed-precision", action="store_true", help="float16 on a GPU, bfloat16 on a CPU")
    help_ = "compile each step: by XLA, or by torch.compile on PyTorch; JAX always compiles"
    parser.add_argument("--jit-compile", action="store_const", const=True, default="auto", help=help_)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="logs, checkpoints")
    parser.add_argument("--saved-models", type=pathlib.Path, default=pathlib.Path("saved_models"))
    arguments = parser.parse_args()
    chosen = arguments.initializer or initializers[arguments.model]
    # Layers take only registered names. A shell reads their ">" as "write to a file", so users leave it out.
    own = set(initx.initializers.names())
    arguments.initializer = [f"initx>{name}" if f"initx>{name}" in own else name for name in chosen]
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1. Received: {arguments.epochs}.")
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Refuses unknown initializers, and folders that cannot be written, before any work starts."""
    for name in arguments.initializer:
        initx.strategies.resolve(name)
    for option, folder in (("--runs", arguments.runs), ("--saved-models", arguments.saved_models)):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(
                f"{option} must be a folder that can be written. Received: {folder}. Choose another."
            )
        if shutil.disk_usage(there).free < FREE_BYTES:
            cure = "Make room, or choose a folder on another disk."
            raise ValueError(
                f"{option} needs {FREE_BYTES // 10**6} MB of free space. Received: {folder}. {cure}"
            )


def run(parser: argparse.ArgumentParser, main: Callable[[], None]) -> None:
    """Runs `main`. An error that a user can cure ends with one line and exit code 2."""
    try:
        main()
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted. The same command continues after the last finished epoch.\n")
    except (ImportError, NotImplementedError, ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {' '.join(str(error).split())}\n")


def set_up_device(arguments: argparse.Namespace) -> str:
    """Prints the device, sets the precision, and makes runs repeatable to the bit.

    Returns the settings that change the last bits (precision and compilation), for the name of a folder.
    """
    keras.utils.set_random_seed(arguments.seed)
    backend = keras.backend.backend()
    names = gpu_names(backend)
    half = "mixed_float16" if names else "mixed_bfloat16"
    policy = half if arguments.mixed_precision else "float32"
    keras.mixed_precision.set_dtype_policy(policy)
    print(f"Device: {', '.join(names) or 'CPU'}; precision: {policy}; backend: {backend}.")
    return policy if arguments.jit_compile == "auto" else f"{policy}-jit"


def gpu_names(backend: str) -> list[str]:
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        gpus = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def read_tfds(name: str, feature: str) -> tuple[list[tuple], list[tuple], list[str]]:
    """Reads pairs of example and label from tfds: for training, and held out; and the names of the labels."""
    if keras.backend.backend() != "tensorflow" and importlib.util.find_spec("tensorflow"):
        import tensorflow as tf

        tf.config.set_visible_devices(
            [], "GPU"
        )  # TensorFlow would take the memory that the other backend needs
    splits, info = keras_initx.datasets.load(name, ["train", "test"])
    kinds = [type(info.features[key]).__name__ for key in info.supervised_keys]
    if kinds != [feature, "ClassLabel"]:
        raise ValueError(
            f"--dataset must hold labelled {feature.lower()}s. Received: {name}, {', '.join(kinds)}. "
            f"Choose another, for example {'mnist' if feature == 'Image' else 'imdb_reviews'}."
        )
    train, test = ([(example, int(label)) for example, label in s.as_numpy_iterator()] for s in splits)
    return train, test, info.features[info.supervised_keys[1]].names


def batches(
    inputs: np.ndarray, labels: np.ndarray, seed: int, first: int, last: int, change: Change | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of the epochs from `first` to `last`.

    Each epoch has its own random stream, so that a resumed run sees the same batches.
    """
    for epoch in range(first, last):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(labels))
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            yield (change(inputs[rows], random) if change else inputs[rows]), labels[rows]


def replace(path: pathlib.Path, write: Any) -> None:
    """Lets `write` make a file, and renames it to `path`: after a kill the old or the new file is whole."""
    beside = path.with_name(f"new-{path.name}")
    write(beside)
    beside.replace(path)


class Checkpoint(keras.callbacks.Callback):
    """Saves the metrics after each epoch, then the model with its optimizer."""

    def __init__(self, folder: pathlib.Path, record: dict) -> None:
        super().__init__()
        self.folder, self.record = folder, record

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = {**(logs or {}), "steps": self.model.optimizer.iterations}
        self.record["epochs"][str(epoch + 1)] = {key: float(value) for key, value in logs.items()}
        replace(self.folder / "record.json", lambda path: path.write_text(json.dumps(self.record)))
        replace(self.folder / "checkpoint.keras", self.model.save)


class Scalars(keras.callbacks.Callback):
    """Writes the metrics as `keras.callbacks.TensorBoard` does, but without TensorFlow."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        for part, prefix in (("train", ""), ("validation", "val_")):
            with EventWriter(self.folder / part, first_step=epoch) as writer:
                for key in ("loss", "accuracy"):
                    writer.scalar(f"epoch_{key}", logs[prefix + key], epoch)


def compare(
    arguments: argparse.Namespace,
    folder: pathlib.Path,
    data: Any,
    build: Callable[[str], keras.Model],
    change: Change | None = None,
) -> tuple[dict[str, keras.Model], dict[str, dict]]:
    """Trains a model from each initializer, or continues an interrupted call.

    Args:
        arguments: The result of `parse`.
        folder: The folder of logs and checkpoints.
        data: A data set: `data.train` and `data.test` are pairs of arrays, inputs and labels.
        build: Returns a compiled model for the name of an initializer.
        change: Changes a batch of inputs for training. None leaves inputs as they are.

    Returns:
        The models by initializer, and for each initializer the signal before training and the metrics of
        each epoch.
    """
    own = {name: "glorot_uniform" if name in STRATEGIES else name for name in arguments.initializer}
    for name in own:
        if name in STRATEGIES:  # refuses a strategy that does not fit the model before any training
            initx.initialize(build(own[name]), name, seed=arguments.seed)
    models, records = {}, {}
    for name in own:
        keras.utils.set_random_seed(arguments.seed)
        run = folder / name.replace(">", "-")
        models[name], records[name] = train(build(own[name]), name, arguments, run, data, change)
    return models, records


def train(
    model: keras.Model,
    name: str,
    arguments: argparse.Namespace,
    folder: pathlib.Path,
    data: Any,
    change: Change | None,
) -> tuple[keras.Model, dict]:
    inputs, labels = data.train
    if (folder / "checkpoint.keras").exists():
        model, record = restore(folder, model)
    else:
        sample = inputs[np.random.default_rng(arguments.seed).permutation(len(inputs))[:256]]
        record = {"signal": initialize(model, name, arguments.seed, sample), "epochs": {}}
    done = len(record["epochs"])
    if done > arguments.epochs:
        raise ValueError(f"{folder} holds {done} epochs of training already; choose another --runs folder.")
    print(f"\n{name}: {f'goes on after epoch {done}' if done else 'starts'}, logs in {folder}")
    if done < arguments.epochs:
        folder.mkdir(parents=True, exist_ok=True)
        with_tensorflow = keras.backend.backend() == "tensorflow"
        board = keras.callbacks.TensorBoard(folder, write_graph=False) if with_tensorflow else Scalars(folder)
        model.fit(
            batches(inputs, labels, arguments.seed, done, arguments.epochs, change),
            initial_epoch=done,
            epochs=arguments.epochs,
            steps_per_epoch=-(-len(labels) // BATCH),
            shuffle=False,  # `batches` shuffles
            validation_data=data.test,
            validation_batch_size=256,
            callbacks=[initx.callbacks.WeightHistograms(folder), board, Checkpoint(folder, record)],
        )
    return model, record


def initialize(model: keras.Model, name: str, seed: int, sample: np.ndarray) -> dict[str, float]:
    """Applies a strategy or a law that needs data. Returns each kernel's pre-activation std on the sample."""
    if name in STRATEGIES:
        print(initx.initialize(model, name, seed=seed))
    elif initx.initializers.needs_of(initx.initializers.get(name)) == {"inputs"}:
        print(initx.calibrate(model, sample))
    rows = initx.diagnose(model, sample).rows  # one std for all gates and steps of a recurrent layer
    return {row.path: row.preactivation_std for row in rows if "embeddings" not in row.path}


def restore(folder: pathlib.Path, like: keras.Model) -> tuple[keras.Model, dict]:
    """Returns the model after its last whole epoch, and its record.

    The record is written first, so a kill may leave it one epoch ahead. That epoch is dropped.
    """
    try:
        model = keras.models.load_model(folder / "checkpoint.keras")
        record = json.loads((folder / "record.json").read_text())
        # The optimizer does not count steps with overflowing float16 gradients, so the number of
        # steps does not tell the epoch: the record holds the number of steps after each epoch.
        steps = int(model.optimizer.iterations)
        record["epochs"] = {epoch: logs for epoch, logs in record["epochs"].items() if logs["steps"] <= steps}
    except Exception as error:  # of zipfile, h5py, Keras or json
        cure = "Delete this folder to start over, or choose another --runs folder."
        raise ValueError(f"{folder} holds a checkpoint that cannot be read. {cure}") from error
    if describe(model) != describe(like):
        cure = "Choose another --runs folder."
        raise ValueError(f"{folder} holds a checkpoint of another architecture or data set. {cure}")
    return model, record


def describe(model: keras.Model) -> tuple:
    return model.name, model.input_shape, [tuple(weight.shape) for weight in model.weights]
