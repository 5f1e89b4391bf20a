"""What all trials of a comparison share: the model, the data, the schemes, and the metric."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._keras_internals import NAME_COUNTS, SEED_STATE, global_attribute, set_global_attribute
from keras_initx.experiments._batches import is_arrays
from keras_initx.experiments._identity import code_of, identity_of
from keras_initx.experiments._reading import Counted, is_read_once, seed_all
from keras_initx.strategies import describe, resolve

__all__ = ["FileModel", "Problem", "build_model", "fixed_rows", "label_schemes", "rows_to_try"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all trials share. It can be pickled where its data and functions can.

    Attributes:
        build: Returns a fresh compiled model.
        schemes: Initializers and strategies by label.
        train: Arrays, or whatever `fit` takes, or a function without arguments that returns it.
        validation: The same, to choose on.
        test: The same, to report; or None.
        metric: Name of the metric, as in the logs of `evaluate`.
        minimize: Whether less of it is better.
        target: What counts as reached; or None.
        batch_size: Rows of a batch of arrays.
        callbacks: Returns fresh Keras callbacks for a trial; or None.
        batches: How many batches the data of a name have that are an iterator.
    """

    build: Callable[[], Any]
    schemes: Mapping[str, Any]
    train: Any
    validation: Any
    test: Any
    metric: str
    minimize: bool
    target: float | None
    batch_size: int
    callbacks: Callable[[Any], list[Any]] | None
    batches: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def data(self, name: str, seed: int | None = None) -> Any:
        """Returns the training, validation or test data, of which a function is called.

        Args:
            name: Which data.
            seed: What to seed all random generators with before; None to leave them as they are.
        """
        if seed is not None:  # what was drawn and read before has no part in the order of the data
            seed_all(seed)
        found = getattr(self, name)
        makes = isinstance(found, type) or (callable(found) and not hasattr(found, "__getitem__"))
        return found() if makes else found

    def open(self, name: str, seed: int) -> Any:
        """Returns the training, validation or test data as `fit` takes them, for any number of epochs.

        Args:
            name: Which data.
            seed: As in `data`.
        """
        data = self.data(name, seed)
        if not is_read_once(data):
            return data
        return Counted(lambda: self.data(name), self.batches.get(name))

    def fingerprint(self, model: Any) -> str:
        """Tells comparisons apart whose results must not be mixed, by what can be told of them.

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
                digest.update(str(leaf.tolist()).encode() if leaf.dtype == object else leaf.tobytes())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class FileModel:
    """Builds a model from a `.keras` file's bytes, which go where the file does not: to other machines.

    What the file's optimizer has gathered is left behind: every trial starts anew.
    """

    content: bytes

    def __call__(self) -> Any:
        """Returns the model, with random seeds of its own and a fresh optimizer."""
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # Keras tells what it does not load of an optimizer that is not kept anyway.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            path = pathlib.Path(folder) / "model.keras"
            path.write_bytes(self.content)
            model = keras.models.load_model(path)
        if model.compiled:
            model.compile_from_config(model.get_compile_config())
        for variable in model.non_trainable_variables:  # or dropout is the same for all seeds
            if variable.path.endswith(SEED_STATE):
                variable.assign([random.randint(0, 2**31 - 1) for _ in range(variable.shape[0])])
        return model


def build_model(problem: Problem, seed: int) -> Any:
    """Builds a model as in a new process of this seed: unnamed layers have the same names each time.

    The streams of random numbers that `initialize` draws from come from the layers' names.
    """
    before = global_attribute(NAME_COUNTS)
    set_global_attribute(NAME_COUNTS, collections.defaultdict(int))
    try:
        keras.utils.set_random_seed(seed)
        return problem.build()
    finally:
        set_global_attribute(NAME_COUNTS, before)


def fixed_rows(model: Any) -> int | None:
    """Returns the rows of a batch that a model was built for, or None where any number fits."""
    inputs = tree.flatten(getattr(model, "inputs", None) or [])
    return next((tensor.shape[0] for tensor in inputs if tensor.shape[0] is not None), None)


def rows_to_try(model: Any, wanted: int) -> int:
    """Returns how many rows to call a model on: those that it was built for, else as many as wanted."""
    return fixed_rows(model) or wanted


def label_schemes(initializers: Any) -> dict[str, Any]:
    """Returns initializers and strategies by label, or says in a ValueError what is wrong with them."""
    if isinstance(initializers, str) or not isinstance(initializers, Mapping | Sequence) or not initializers:
        raise ValueError(
            "`initializers` must be a list of names or objects, or a dict of label and name or object, with "
            f"at least one of them. Received: {initializers!r}."
        )
    if isinstance(initializers, Mapping):
        pairs = [(str(label), scheme) for label, scheme in initializers.items()]
    else:
        pairs = [(_label(scheme), scheme) for scheme in initializers]
    labels = [label for label, _ in pairs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(
            f"`initializers` must differ in their labels. Received: {twice} more than once. Pass a dict of "
            "label and initializer."
        )
    return {label: resolve(scheme) for label, scheme in pairs}


def _label(scheme: Any) -> str:
    if scheme is None:
        return "as built"
    return scheme if isinstance(scheme, str) else describe(resolve(scheme))
