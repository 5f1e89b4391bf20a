"""`export`: a model to the next version of a servable SavedModel, checked before anyone can see it."""

import contextlib
import dataclasses
import numbers
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from _initx_saved_model import model_folder, write_proof
from keras_initx.saved_model._check import answer, compare
from keras_initx.saved_model._classify import classify
from keras_initx.saved_model._differences import tolerance_of
from keras_initx.saved_model._endpoints import (
    CLASSIFY,
    Endpoint,
    extra,
    input_signature,
    predict,
    trace,
    write,
)
from keras_initx.saved_model._foreign import explain, refuse_python
from keras_initx.saved_model._portable import write_portable
from keras_initx.saved_model._process import Ask, WorkerError, opened, start
from keras_initx.saved_model._row_wise import Proof, prove
from keras_initx.saved_model._rows import Hints, draw_rows, fixed_batch, hints_of
from keras_initx.saved_model._states import States
from keras_initx.saved_model._versions import prune, publish, scratch, taken
from keras_initx.saved_model._warmup import read_warmup, take_rows, write_warmup

__all__ = ["ExportedModel", "export"]

# Attributes of the object that Keras writes, and the names that `export` gives itself.
_RESERVED = (
    "classify",
    "non_trainable_variables",
    "serve",
    "serving_default",
    "signatures",
    "trainable_variables",
    "variables",
)
_HIGHEST = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """What `export` wrote.

    Attributes:
        path: The version's folder.
        version: Its number.
        signatures: Names of its signatures, sorted.
        difference: The largest difference between what the folder and the model answered, as a part of the
            largest entry of that output; None where the model answers at random.
        warmup_records: How many requests a server replays as it loads the version.
        portable: The `.keras` file beside it, None without `portable`.
        row_wise: Names of the signatures that are proven to answer a row as they answer it alone, whatever
            rows stand beside it, sorted: of these a server may run several requests together.
    """

    path: str
    version: int
    signatures: tuple[str, ...]
    difference: float | None = None
    warmup_records: int = 0
    portable: str | None = None
    row_wise: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Formats the export as one line."""
        more = f"; row-wise: {', '.join(self.row_wise) or 'none'}"
        more += f"; warm-up records: {self.warmup_records}" if self.warmup_records else ""
        more += f"; portable: {self.portable}" if self.portable else ""
        return f"{self.path} (version {self.version}; signatures: {', '.join(self.signatures)}{more})"


def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    version: int | None = None,
    signatures: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    warmup: Any = None,
    keep: int | None = None,
    portable: bool = False,
) -> ExportedModel:
    """Writes a model as the next version of a SavedModel that TensorFlow Serving takes unchanged.

    The version is written beside, loaded in a process of its own as TensorFlow Serving loads it, run,
    compared with `model.predict`, and renamed into place: a reader of `path`, a polling server among them,
    sees a whole version or none, and an interrupted export leaves no version. It runs where neither this
    package nor Keras is installed. The model's variables, states and seeds among them, stay as they are.

    The signature `serving_default` (and `serve`, Keras' name for it) answers as `model.predict` does. Its
    inputs have the names of the model's inputs, its outputs those of the output layers, or the keys of a
    model that returns a dict; the batch axis is free. Half-precision tensors go in and out as float32, for
    TensorFlow Serving's JSON knows no other.

    >>> import tempfile
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, "softmax", name="pet")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = export(model, folder), export(model, folder, labels=["cat", "dog"], keep=1)
    ...     print(first.version, second.version, os.listdir(folder), second.signatures)
    1 2 ['2'] ('classify', 'serve', 'serving_default')

    Args:
        model: A built Keras model.
        path: The model's folder on this machine, for example `saved_models/digits`. Versions are its
            subfolders with whole numbers as names.
        version: Number of the version; None for one more than the highest.
        signatures: Further signatures by name: a Keras model, such as `keras.Model(model.inputs, hidden)`; a
            function of the model's inputs; a `tf.function` with an input signature; or a pair of a function
            and the list of the `keras.InputSpec` or `tf.TensorSpec` of its arguments.
        labels: A name for each column of the model's output, for the signature `classify`: it takes
            serialized `tf.train.Example`s with the model's inputs as features, and TensorFlow Serving's
            Classify call returns from it each label with its score, in the order of the labels.
        warmup: Rows of input, up to 1000, as `model.predict` takes them; for a `call` of several arguments a
            tuple of arrays, or a dict by their names. A server replays them as it loads the version, so that
            its first request is not a slow one. Needs the extra `serve`.
        keep: Versions to leave: once this one is in place, only the `keep - 1` highest others stay, and those
            that are newer than it.
        portable: Whether to write `<version>.keras` beside the version: the model with Keras' own
            initializers in place of this package's, for where this package is not installed.

    Returns:
        Where it was written, under which version, and with which signatures.

    Raises:
        ValueError: If the model is not built, the backend is not TensorFlow, `path` is a file, a version or
            remote, the version exists, another argument does not fit the model, or the SavedModel cannot run
            in another process or does not answer as the model does. Nothing is written then.
    """
    root = model_folder(path)
    _check(model, root, version, signatures, keep)
    start()  # which takes longer than what is done here meanwhile
    signature = input_signature(model, warmup)
    rows = None if warmup is None else take_rows(model, warmup, labels is not None, signature)
    main = predict("serve", model, rows, signature)
    hints = hints_of(model)
    drawn = rows is None
    rows = draw_rows(tree.flatten(main.specs), hints, fixed_batch(model)) if rows is None else main.fit(rows)
    endpoints, states = _add(model, main, rows, signatures or {}, labels)
    run = [(endpoint, given) for endpoint, given in endpoints if given is not None]
    expected, changed = answer(model, run, states, given=not drawn)
    with scratch(root) as folder:
        saved = folder / "model"
        names = write(model, [endpoint for endpoint, _ in endpoints], saved)
        records = 0 if drawn else _warm(model, saved, root.absolute().name, endpoints, changed)
        with _opened(model, endpoints, saved, folder) as ask:
            difference = _verify(model, ask, saved, run, expected, states)
            proven = write_proof(saved, _prove(model, ask, endpoints, hints))
        keras_file = write_portable(model, folder / "model.keras") if portable else None
        number = publish(saved, root, version, keras_file)
    if keep is not None:
        prune(root, keep, number)
    beside = str(root / f"{number}.keras") if portable else None
    return ExportedModel(str(root / str(number)), number, names, difference, records, beside, proven)


def _check(model: Any, root: pathlib.Path, version: Any, signatures: Any, keep: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: model of type {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: {type(model).__name__} `{model.name}`, "
            f"built={model.built}. Call it on one batch first."
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`export` needs the TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Save the model with `model.save`, load it "
            "in a process with KERAS_BACKEND=tensorflow, and export it there."
        )
    for name, value in (("version", version), ("keep", keep)):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value <= _HIGHEST):
            raise ValueError(f"`{name}` must be None or a positive int. Received: {name}={value!r}.")
    if version is not None and version in (there := taken(root)):
        raise ValueError(
            f"`version` must be a new one. Received: version={version}, which {str(root)!r} holds. Leave it "
            f"out for {max(there) + 1}."
        )
    _check_names(signatures)


def _check_names(signatures: Any) -> None:
    if signatures is None:
        return
    if not isinstance(signatures, Mapping):
        raise ValueError(
            "`signatures` must be a dict from names to functions or models. "
            f"Received: {type(signatures).__name__}."
        )
    for name in signatures:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or name in _RESERVED:
            raise ValueError(
                "`signatures` must have names of letters, digits and underscores, other than "
                f"{list(_RESERVED)}. Received: {name!r}."
            )


def _add(
    model: Any, main: Endpoint, rows: list[Any], signatures: Mapping[str, Any], labels: Any
) -> tuple[list[tuple[Endpoint, list[Any] | None]], States]:
    """Returns all signatures, each with rows to run it on, or None where none are known that it takes."""
    trace(model, [main])
    endpoints: list[tuple[Endpoint, list[Any] | None]] = [(main, rows)]
    if labels is not None:
        endpoints.append(classify(main, labels, rows))
    endpoints += [(extra(name, value, main), None) for name, value in signatures.items()]
    every = [endpoint for endpoint, _ in endpoints]
    trace(model, every)
    refuse_python(model, every)
    states = States(model, every)
    for number, (endpoint, given) in enumerate(endpoints):
        if given is None and tree.flatten(endpoint.specs) == tree.flatten(main.specs):
            endpoints[number] = (endpoint, rows)
        elif given is None:
            with contextlib.suppress(Exception):  # what it takes is the user's own affair
                drawn = draw_rows(tree.flatten(endpoint.specs))
                answer(model, [(endpoint, drawn)], states, given=False)
                endpoints[number] = (endpoint, drawn)
    return endpoints, states


def _warm(
    model: Any, saved: pathlib.Path, name: str, endpoints: list[tuple[Endpoint, Any]], changed: list[str]
) -> int:
    if changed:
        warnings.warn(
            f"`warmup`: no requests were written, for a server would replay them into the state that "
            f"`{model.name}` keeps: {sorted(set(changed))}. The rows were used for the check alone.",
            stacklevel=3,
        )
        return 0
    size = fixed_batch(model) or 1
    run = [(endpoint, rows) for endpoint, rows in endpoints if endpoint.name == "serve"]
    run += [(endpoint, [rows[0][:size]]) for endpoint, rows in endpoints if endpoint.method == CLASSIFY]
    return write_warmup(saved, name, run, size)


@contextlib.contextmanager
def _opened(
    model: Any, endpoints: list[tuple[Endpoint, Any]], saved: pathlib.Path, folder: pathlib.Path
) -> Iterator[Ask]:
    """Has the folder loaded in a process of its own, as on a server; what fails there is a ValueError."""
    try:
        with opened(saved, folder) as ask:
            yield ask
    except WorkerError as error:
        told = explain(model, [endpoint for endpoint, _ in endpoints], str(error))
        raise ValueError(
            f"`model` must run as a SavedModel in a process of its own. Received: `{model.name}`: {told}"
        ) from error


def _verify(
    model: Any, ask: Ask, saved: pathlib.Path, run: list[tuple[Endpoint, Any]], expected: Any, states: States
) -> float | None:
    """Runs the folder as a server does, and compares it with the model."""
    received = ask([(endpoint.key, endpoint.feeds(rows)) for endpoint, rows in run])
    for found, _ in (*received, *ask(list(read_warmup(saved)))):
        if isinstance(found, str):
            raise WorkerError(found)
    return compare(model, run, expected, [found for found, _ in received], states)


def _prove(
    model: Any, ask: Ask, endpoints: list[tuple[Endpoint, Any]], hints: Hints
) -> dict[str, Proof | str]:
    """Tries each signature for whether rows of several requests may be run together."""
    main = tree.flatten(endpoints[0][0].specs)
    tolerance = tolerance_of(*model._flatten_layers())
    found: dict[str, Proof | str] = {}
    for endpoint, rows in endpoints:
        specs = tree.flatten(endpoint.specs)
        own = hints if specs == main else ()
        found[endpoint.key] = (
            "no rows are known that it takes"
            if rows is None
            else prove(ask, endpoint.key, specs, rows, own, tolerance)
        )
    return found | {"serve": found["serving_default"]}
