"""What the examples share: their options, a training that resumes after a kill, the table and the picture."""

import argparse
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

import keras_initx as initx
from keras_initx.summaries import EventWriter

FREE_BYTES = 200_000_000  # what a run may write: logs, checkpoints, exports


def parse(parser: argparse.ArgumentParser, initializers: Sequence[str], epochs: int) -> argparse.Namespace:
    """Adds the options that all examples have, and parses the command line."""
    help_ = "Keras or initx names to compare"
    parser.add_argument("--initializer", nargs="+", default=list(initializers), help=help_)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mixed-precision", action="store_true", help="float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="logs, checkpoints")
    parser.add_argument("--saved-models", type=pathlib.Path, default=pathlib.Path("saved_models"))
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1. Received: {arguments.epochs}.")
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Refuses unknown initializers, and folders that cannot be written, before anything is done."""
    for name in arguments.initializer:
        initx.initializers.get(name)
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
    """Runs `main`; what a user can cure ends with one line and exit code 2."""
    try:
        main()
    except (ImportError, NotImplementedError, ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {' '.join(str(error).split())}\n")


def set_up_device(mixed_precision: bool) -> str:
    """Prints the device, sets the precision, and makes runs repeatable to the bit; returns the precision."""
    backend = keras.backend.backend()
    names = gpu_names(backend)
    policy = ("mixed_float16" if names else "mixed_bfloat16") if mixed_precision else "float32"
    keras.mixed_precision.set_dtype_policy(policy)
    print(f"Device: {', '.join(names) or 'CPU'}; precision: {policy}; backend: {backend}.")
    return policy


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


def calibrate(model: keras.Model, initializer: str, samples: Any) -> None:
    """Rescales the weights on data if that is what the initializer asks for."""
    if isinstance(initx.initializers.get(initializer), initx.initializers.DataDependent):
        print(initx.calibrate(model, samples))


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


class Scalars(keras.callbacks.Callback):
    """The metrics in TensorBoard as `keras.callbacks.TensorBoard` writes them, but without TensorFlow."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        for part, prefix in (("train", ""), ("validation", "val_")):
            with EventWriter(self.folder / part, first_step=epoch) as writer:
                for key in ("loss", "accuracy"):
                    writer.scalar(f"epoch_{key}", logs[prefix + key], epoch)


def train(
    name: str,
    folder: pathlib.Path,
    epochs: int,
    steps: int,
    build: Callable[[], keras.Model],
    start: Callable[[keras.Model], dict],
    batches: Callable[[int, int], Any],
    validation: Any,
) -> tuple[keras.Model, dict]:
    """Trains a model, or goes on where an earlier call was interrupted.

    `build` compiles a model, `start` makes it ready for the first epoch and returns its pre-activation stds
    by layer, and `batches(first, last)` are the `steps` batches of each of these epochs. Returns the model,
    and the record of its epochs and of its start.
    """
    model = build()
    if (folder / "checkpoint.keras").exists():
        layout = describe(model)
        model = keras.models.load_model(folder / "checkpoint.keras")
        record = json.loads((folder / "record.json").read_text())
        if describe(model) != layout:
            cure = "Choose another --runs folder."
            raise ValueError(f"{folder} holds a checkpoint of another architecture or data set. {cure}")
    else:
        record = {"signal": start(model), "epochs": {}}
    done = int(model.optimizer.iterations) // steps
    record["epochs"] = {epoch: logs for epoch, logs in record["epochs"].items() if int(epoch) <= done}
    if done > epochs:
        raise ValueError(f"{folder} holds {done} epochs of training already; choose another --runs folder.")
    print(f"\n{name}: {f'goes on after epoch {done}' if done else 'starts'}, logs in {folder}")
    if done < epochs:
        folder.mkdir(parents=True, exist_ok=True)
        with_tensorflow = keras.backend.backend() == "tensorflow"
        model.fit(
            batches(done, epochs),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,  # `batches` has done it
            validation_data=validation,
            callbacks=[
                initx.callbacks.WeightHistograms(folder),
                keras.callbacks.TensorBoard(folder, write_graph=False)
                if with_tensorflow
                else Scalars(folder),
                Checkpoint(folder, record),
            ],
        )
    return model, record


def describe(model: keras.Model) -> tuple:
    return model.name, model.input_shape, [tuple(weight.shape) for weight in model.weights]


def best_of(records: dict[str, dict]) -> str:
    return max(records, key=lambda name: list(records[name]["epochs"].values())[-1]["val_accuracy"])


def draw(
    records: dict[str, dict], classes: int, dataset: str, path: pathlib.Path, ticks: Sequence[int]
) -> None:
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
    left.set_xticks(ticks)
    right.set(title=f"Training on {dataset}", xlabel="epoch", ylabel="held-out accuracy (%)", ylim=(0, 102))
    right.axhline(100 / classes, color="gray", linestyle="--", label="chance")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(loc="center right")
    figure.savefig(path, dpi=100)


def show_table(records: dict[str, dict], first: str, last: str) -> None:
    """Prints a row per initializer; `first` and `last` name the first and the last layer."""
    titles = f"{f'std, {first}':>14}{f'std, {last}':>15}{'loss':>9}{'held-out accuracy':>20}"
    print(f"\n{'initializer':<24}{titles}")
    for name, record in records.items():
        stds, end = list(record["signal"].values()), list(record["epochs"].values())[-1]
        print(
            f"{name:<24}{stds[0]:>14.3g}{stds[-1]:>15.3g}{end['val_loss']:>9.3f}{end['val_accuracy']:>20.3f}"
        )
