"""The problem of a comparison: the model, the data, the initializers and the metric of all trials."""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras import tree

from keras_initx._keras_internals import SEED_STATE
from keras_initx._types import Initializer, Model
from keras_initx.experiments._batches import is_arrays
from keras_initx.experiments._identity import code_of, identity_of
from keras_initx.experiments._reading import Counted, Source, is_read_once, seed_all
from keras_initx.experiments._trial import Trial
from keras_initx.state import fresh_names
from keras_initx.strategies import Strategy, describe, resolve

__all__ = [
    "AnyInitializer",
    "FileModel",
    "Problem",
    "build_model",
    "fixed_rows",
    "label_initializers",
    "rows_to_try",
]

# An initializer of layers, a strategy for a whole model, or None for the model as it is built.
AnyInitializer: TypeAlias = Initializer | Strategy | type[Strategy] | None


@dataclasses.dataclass(frozen=True)
class Problem:
    """The model, the data and the settings that all trials share.

    A problem can be pickled if its data and functions can.

    Attributes:
        build: Returns a fresh compiled model.
        initializers: Initializers and strategies by label; None stands for the model as it is built.
        train: Training data: arrays, or anything that `fit` takes, or a function without arguments that
            returns the data.
        validation: Validation data in the same forms. Learning rates are chosen on them.
        test: Test data in the same forms, to report on; or None.
        metric: Name of the metric, as in the logs of `evaluate`.
        minimize: Whether less of the metric is better.
        target: The value of the metric that a trial should reach; or None.
        batch_size: Rows of a batch of arrays.
        callbacks: Returns fresh Keras callbacks for a trial; or None.
        batches: Number of batches of the data that are an iterator, by name: `train`, `validation`, `test`.
    """

    build: Callable[[], Model]
    initializers: Mapping[str, AnyInitializer]
    train: Source
    validation: Source
    test: Source | None
    metric: str
    minimize: bool
    target: float | None
    batch_size: int
    callbacks: Callable[[Trial], list[keras.callbacks.Callback]] | None
    batches: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def data(self, name: str, seed: int | None = None) -> Any:
        """Returns the training, validation or test data; data that are a function are called.

        Args:
            name: `train`, `validation` or `test`.
            seed: Seed of all random generators, set before the data are made; None to leave the generators
                as they are.
        """
        if seed is not None:  # the order of the data must not depend on anything that was drawn before
            seed_all(seed)
        found = getattr(self, name)
        makes = isinstance(found, type) or (callable(found) and not hasattr(found, "__getitem__"))
        return found() if makes else found

    def open(self, name: str, seed: int) -> Any:
        """Returns the training, validation or test data as `fit` takes them, for any number of epochs.

        Args:
            name: `train`, `validation` or `test`.
            seed: Seed of all random generators, set before the data are made.
        """
        data = self.data(name, seed)
        if not is_read_once(data):
            return data
        return Counted(lambda: self.data(name), self.batches.get(name))

    def fingerprint(self, model: Model) -> str:
        """Returns a hash of the problem, so that results of different problems are not mixed.

        The hash covers the layers, the arguments of `compile`, the metric and its settings, the code of the
        callbacks, and all data that are arrays. Other data have no contents that could be hashed.

        Args:
            model: A model that `build` returned.
        """
        try:
            layers = model.get_config()
        except NotImplementedError:  # a subclassed model
            layers = [(weight.path, weight.shape) for weight in model.weights]
        settings = [self.metric, self.minimize, self.target, self.batch_size]
        told = identity_of([layers, model.get_compile_config(), settings], "build_fn")
        told = [told, code_of(self.callbacks)]
        digest = hashlib.sha256(json.dumps(told).encode())
        for name in ("train", "validation", "test"):
            data = getattr(self, name)
            for leaf in tree.flatten(data) if is_arrays(data) else []:
                digest.update(f"{leaf.shape}{leaf.dtype}".encode())
                # The bytes of an array of objects are addresses, which differ in each process.
                digest.update(str(leaf.tolist()).encode() if leaf.dtype == object else leaf.tobytes())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class FileModel:
    """Builds a model from the bytes of a `.keras` file. Unlike a path, bytes can go to other machines.

    The slots of the file's optimizer are left behind: every trial starts anew.

    Attributes:
        content: The bytes of the file.
        classes: The classes and functions that the file needs and the user registered with Keras, by name. A
            file holds the names alone, and the process of a trial may not have imported their modules.
    """

    content: bytes
    classes: Mapping[str, Any]

    @classmethod
    def read(cls, path: pathlib.Path) -> "FileModel":
        """Returns the builder of a file, with the classes that are registered in this process.

        Args:
            path: A `.keras` file.
        """
        content, config = path.read_bytes(), ""
        with contextlib.suppress(zipfile.BadZipFile, KeyError):  # `load_model` says what is wrong with a file
            config = zipfile.ZipFile(io.BytesIO(content)).read("config.json").decode()
        registered = keras.saving.get_custom_objects()
        return cls(content, {name: one for name, one in registered.items() if f'"{name}"' in config})

    def __call__(self) -> Model:
        """Returns the model, with random seeds of its own and a fresh optimizer."""
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # The optimizer is not kept, so its missing variables are no news to the user.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            path = pathlib.Path(folder) / "model.keras"
            path.write_bytes(self.content)
            model = keras.models.load_model(path, custom_objects=dict(self.classes))
        if model.compiled:
            model.compile_from_config(model.get_compile_config())
        for variable in model.non_trainable_variables:  # else dropout would be the same for all seeds
            if variable.path.endswith(SEED_STATE):
                variable.assign([random.randint(0, 2**31 - 1) for _ in range(variable.shape[0])])
        return model


def build_model(problem: Problem, seed: int) -> Model:
    """Builds a model as a new process with this seed would build it: with the same names of unnamed layers.

    Args:
        problem: The problem.
        seed: Seed of all random generators.
    """
    with fresh_names():
        keras.utils.set_random_seed(seed)
        return problem.build()


def fixed_rows(model: Model) -> int | None:
    """Returns the number of rows that a model was built for, or None if any number fits."""
    inputs = tree.flatten(getattr(model, "inputs", None) or [])
    return next((tensor.shape[0] for tensor in inputs if tensor.shape[0] is not None), None)


def rows_to_try(model: Model, wanted: int) -> int:
    """Returns the number of rows to call a model on: the number that it was built for, else `wanted`."""
    return fixed_rows(model) or wanted


def label_initializers(
    initializers: Sequence[AnyInitializer] | Mapping[str, AnyInitializer],
) -> dict[str, AnyInitializer]:
    """Returns initializers and strategies as objects by label, and None for the model as it is built.

    Args:
        initializers: Names, configs or objects, in a list or in a dict by label.

    Raises:
        ValueError: If there are none, two have the same label, or one of them is not known.
    """
    if isinstance(initializers, str) or not isinstance(initializers, Mapping | Sequence) or not initializers:
        raise ValueError(
            "`initializers` must be a list of names or objects, or a dict of label and name or object, with "
            f"at least one entry. Received: {initializers!r}."
        )
    if isinstance(initializers, Mapping):
        pairs = [(str(label), initializer) for label, initializer in initializers.items()]
    else:
        pairs = [(_label(initializer), initializer) for initializer in initializers]
    labels = [label for label, _ in pairs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(
            f"`initializers` must have different labels. Received: {twice} more than once. Pass a dict of "
            "label and initializer."
        )
    return {label: resolve(initializer) for label, initializer in pairs}


def _label(initializer: AnyInitializer) -> str:
    if initializer is None:
        return "as built"
    return initializer if isinstance(initializer, str) else describe(resolve(initializer))
