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

from keras_initx.data import reason_of, take_pair
from keras_initx.experiments._batches import is_arrays, rows_of
from keras_initx.strategies import describe, initialize, resolve

__all__ = ["FileModel", "Problem", "build_model", "check", "config_of", "label_schemes"]


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

    def data(self, name: str) -> Any:
        """Returns the training, validation or test data, of which a function is called."""
        found = getattr(self, name)
        return found() if callable(found) and not hasattr(found, "__getitem__") else found

    def fingerprint(self, model: Any) -> str:
        """Tells comparisons apart whose results must not be mixed, by what can be told of them.

        Args:
            model: A model that `build` returned.
        """
        try:
            layers = model.get_config()
        except NotImplementedError:  # a subclassed model
            layers = [(weight.path, weight.shape) for weight in model.weights]
        told = [layers, model.get_compile_config(), self.metric, self.target, self.batch_size]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
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
            if variable.path.endswith("seed_generator_state"):
                variable.assign([random.randint(0, 2**31 - 1) for _ in range(variable.shape[0])])
        return model


def build_model(problem: Problem, seed: int) -> Any:
    """Builds a model as in a new process of this seed: unnamed layers have the same names each time.

    The streams of random numbers that `initialize` draws from come from the layers' names.
    """
    from keras.src.backend.common import global_state  # Keras has no other way to number names anew

    key = "object_name_uids"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, collections.defaultdict(int))
    try:
        keras.utils.set_random_seed(seed)
        return problem.build()
    finally:
        global_state.set_global_attribute(key, before)


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


def config_of(scheme: Any) -> Any:
    """What a scheme is, in full, so that two of one label can be told apart."""
    if isinstance(scheme, keras.initializers.Initializer):
        return json.loads(json.dumps(keras.initializers.serialize(scheme), sort_keys=True, default=str))
    return repr(scheme)


def check(problem: Problem, rates: Sequence[float | None]) -> Any:
    """Tries on a model of its own what all trials will do once, and returns the model.

    Raises:
        ValueError: If the model is not compiled, its learning rate cannot be set, the data do not fit it, it
            has no such metric, or an initializer does not fit it.
    """
    model = build_model(problem, 0)
    if not isinstance(model, keras.Model) or not getattr(model, "compiled", False):
        received = f"{type(model).__name__}, compiled={getattr(model, 'compiled', False)}"
        raise ValueError(
            f"`build_fn` must return a compiled Keras model. Received: {received}. Call `model.compile(...)` "
            "in it."
        )
    schedule = isinstance(
        getattr(model.optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule
    )
    if schedule and rates != [None]:
        raise ValueError(
            "`learning_rates` needs an optimizer with a constant learning rate. Received: a model with a "
            "schedule. Compile with a number, or leave `learning_rates` out."
        )
    for name in ("train", "validation", "test"):
        if (data := problem.data(name)) is not None:
            _try(problem, model, data, name)
    for label, scheme in problem.schemes.items():
        try:
            initialize(model, scheme, seed=0)
        except ValueError as error:
            raise ValueError(f"`initializers`: {label!r} does not fit the model. {error}") from error
    return model


def _try(problem: Problem, model: Any, data: Any, name: str) -> None:
    try:
        x, y = take_pair(model, data, 2)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
    if y is None:
        raise ValueError(f"`{name}` must bring targets. Received: {type(data).__name__}. Pass a pair (x, y).")
    rows = rows_of(x)
    try:
        logs = model.test_on_batch(x, tree.map_structure(lambda leaf: leaf[:rows], y), return_dict=True)
    except Exception as error:
        raise ValueError(f"`{name}` cannot be evaluated on: {reason_of(error)}") from error
    if problem.metric not in logs:
        raise ValueError(
            f"`metric` must be one of {sorted(logs)}. Received: metric={problem.metric!r}. Name it in "
            "`compile(metrics=...)`."
        )
