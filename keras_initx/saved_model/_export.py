"""`export`: writes a model as the next version of a SavedModel, and checks it before anyone can see it.

The steps, which leave nothing behind if one of them fails:

1. Trace the signatures, and answer rows with the model in this process.
2. Write the version into a hidden folder, with its warm-up file.
3. Run the version in another process. Compare its answers, and prove which signatures are row-wise.
4. Rename the version into place, and remove old versions.
"""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import tree

from _initx_saved_model import model_folder, write_proof
from keras_initx._types import Data, Model
from keras_initx.checks import is_whole
from keras_initx.saved_model._check import answer
from keras_initx.saved_model._classify import classify
from keras_initx.saved_model._endpoints import (
    CLASSIFY,
    Endpoint,
    Signature,
    extra,
    predict,
    trace,
    write,
)
from keras_initx.saved_model._exported import ExportedModel
from keras_initx.saved_model._foreign import refuse_python
from keras_initx.saved_model._portable import write_portable
from keras_initx.saved_model._process import start
from keras_initx.saved_model._rows import draw_rows, fixed_batch, hints_of
from keras_initx.saved_model._specs import input_signature
from keras_initx.saved_model._states import States
from keras_initx.saved_model._verify import Endpoints, in_another_process, prove_all, verify
from keras_initx.saved_model._versions import prune, publish, scratch, taken
from keras_initx.saved_model._warmup import take_rows, write_warmup

__all__ = ["export"]

# Names that a user's signature may not have: attributes of the object that Keras writes, and the names of the
# signatures that `export` itself adds.
_RESERVED = (
    "classify",
    "non_trainable_variables",
    "serve",
    "serving_default",
    "signatures",
    "trainable_variables",
    "variables",
)
_HIGHEST = 2**63 - 1  # TensorFlow Serving reads the number of a version as an int64


def export(
    model: Model,
    path: str | os.PathLike[str],
    *,
    version: int | None = None,
    signatures: Mapping[str, Signature] | None = None,
    labels: Sequence[str] | None = None,
    warmup: Data | None = None,
    keep: int | None = None,
    portable: bool = False,
) -> ExportedModel:
    """Writes a model as the next version of a SavedModel, which TensorFlow Serving takes unchanged.

    The version runs where neither Keras nor this package is installed. `export` checks it before anyone can
    see it: another process loads it as TensorFlow Serving does, runs it, and the answers are compared with
    `model.predict`. Then the version is renamed into place. A server that watches `path` sees the whole
    version or nothing, and an interrupted export leaves no version. The variables of the model stay as they
    are, with its states and seeds.

    The signature `serving_default` answers as `model.predict` does; `serve` is Keras' name for the same
    signature. Its inputs have the names of the model's inputs. Its outputs have the names of the output
    layers, or the keys of a model that returns a dict. The batch axis is free. Half-precision tensors go in
    and out as float32, because the JSON of TensorFlow Serving does not have half precision.

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
        version: The number of the version; None for one more than the highest.
        signatures: More signatures, by name. A value is a Keras model, such as
            `keras.Model(model.inputs, hidden)`; a function of the model's inputs; a `tf.function` with an
            input signature; or a pair of a function and the list of the `keras.InputSpec` or `tf.TensorSpec`
            of its arguments.
        labels: A name for each column of one output of the model. They add the signature `classify`, which
            TensorFlow Serving's Classify call asks: it takes serialized `tf.train.Example`s with the model's
            inputs as features, and returns each label with its score, in the order of the labels.
        warmup: Rows of input, up to 1000, as `model.predict` takes them. For a `call` of several arguments
            pass a tuple of arrays, or a dict by the names of the arguments. A server replays the rows when it
            loads the version, so that its first request is not slow. The check and the row-wise proof use the
            rows too. Needs the extra `serve`.
        keep: The number of versions to leave. Once this version is in place, the `keep - 1` highest others
            stay, and all that are newer than this version. None to leave all.
        portable: Whether to write `<version>.keras` beside the version: the model with Keras' own
            initializers in place of this package's, for a machine where this package is not installed.

    Returns:
        The report: the folder, number and signatures of the version, and the results of the checks.

    Raises:
        ValueError: If the model is not built; if the backend is not TensorFlow; if `path` is a file, the
            folder of a version, or remote; if the version exists; if another argument does not fit the model;
            or if the SavedModel cannot run in another process or answers differently. Nothing is written
            then.
    """
    root = model_folder(path)
    _check(model, root, version, signatures, keep)
    start()  # early: the other process imports TensorFlow during the work below
    signature = input_signature(model, warmup)
    rows = None if warmup is None else take_rows(model, warmup, labels is not None, signature)
    main = predict("serve", model, rows, signature)
    hints = hints_of(model)
    drawn = rows is None
    rows = draw_rows(tree.flatten(main.specs), hints, fixed_batch(model)) if rows is None else main.fit(rows)
    endpoints, states = _add(model, main, rows, signatures or {}, labels)
    run = [(endpoint, given) for endpoint, given in endpoints if given is not None]
    # Before the export, because the SavedModel starts from the states of this moment.
    expected, changed = answer(model, run, states, given=not drawn)
    with scratch(root) as folder:
        saved = folder / "model"
        names = write(model, [endpoint for endpoint, _ in endpoints], saved)
        records = 0 if drawn else _warm(model, saved, root.absolute().name, endpoints, changed)
        with in_another_process(model, endpoints, saved, folder) as ask:
            difference = verify(model, ask, saved, run, expected, states)
            proven = write_proof(saved, prove_all(model, ask, endpoints, hints))
        keras_file = write_portable(model, folder / "model.keras") if portable else None
        number = publish(saved, root, version, keras_file)
    if keep is not None:
        prune(root, keep, number)
    beside = str(root / f"{number}.keras") if portable else None
    return ExportedModel(str(root / str(number)), number, names, difference, records, beside, proven)


def _check(model: object, root: pathlib.Path, version: object, signatures: object, keep: object) -> None:
    """Raises ValueError for arguments that are wrong for every model, before anything is computed."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model of type {type(model).__name__}. Pass a "
            "keras.Model."
        )
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
        if value is not None and not (is_whole(value) and 1 <= value <= _HIGHEST):
            raise ValueError(
                f"`{name}` must be None or a positive int. Received: {name}={value!r}. Pass 1 or more."
            )
    if version is not None and version in (there := taken(root)):
        raise ValueError(
            f"`version` must be a new one. Received: version={version}, which {str(root)!r} holds. Leave it "
            f"out for {max(there) + 1}."
        )
    _check_names(signatures)


def _check_names(signatures: object) -> None:
    """Raises ValueError if `signatures` is not a dict by names that the SavedModel can hold."""
    if signatures is None:
        return
    if not isinstance(signatures, Mapping):
        raise ValueError(
            "`signatures` must be a dict from names to functions or models. "
            f"Received: {type(signatures).__name__}. Pass for example {{'hidden': hidden_model}}."
        )
    for name in signatures:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or name in _RESERVED:
            raise ValueError(
                "`signatures` must have names of letters, digits and underscores, other than "
                f"{list(_RESERVED)}. Received: {name!r}. Choose another name."
            )


def _add(
    model: Model,
    main: Endpoint,
    rows: list[np.ndarray],
    signatures: Mapping[str, Signature],
    labels: Sequence[str] | None,
) -> tuple[list[tuple[Endpoint, list[np.ndarray] | None]], States]:
    """Makes all signatures.

    Args:
        model: The model that is exported.
        main: The model's own signature.
        rows: Rows that it takes.
        signatures: The user's signatures, by name.
        labels: The labels of the signature `classify`; None for no such signature.

    Returns:
        The signatures, each with rows to run it on or None, and the states of all variables.
    """
    trace(model, [main])
    endpoints: list[tuple[Endpoint, list[np.ndarray] | None]] = [(main, rows)]
    if labels is not None:
        endpoints.append(classify(main, labels, rows))
    endpoints += [(extra(name, value, main), None) for name, value in signatures.items()]
    every = [endpoint for endpoint, _ in endpoints]
    trace(model, every)
    refuse_python(model, every)
    # After the traces, which know the variables, and before any run, which may change them.
    states = States(model, every)
    for number, (endpoint, given) in enumerate(endpoints):
        if given is None and tree.flatten(endpoint.specs) == tree.flatten(main.specs):
            endpoints[number] = (endpoint, rows)
        elif given is None:
            # A function of the user's may refuse drawn rows for reasons of its own, which is no fault. It is
            # exported, but neither compared nor proven.
            with contextlib.suppress(Exception):
                drawn = draw_rows(tree.flatten(endpoint.specs))
                answer(model, [(endpoint, drawn)], states, given=False)
                endpoints[number] = (endpoint, drawn)
    return endpoints, states


def _warm(model: Model, saved: pathlib.Path, name: str, endpoints: Endpoints, changed: list[str]) -> int:
    """Writes the warm-up file, and returns the number of its records."""
    if changed:
        warnings.warn(
            "`warmup`: no requests were written, because a server would replay them into the state that "
            f"`{model.name}` keeps: {sorted(set(changed))}. The rows were used for the checks only.",
            stacklevel=3,
        )
        return 0
    size = fixed_batch(model) or 1
    known = [(endpoint, rows) for endpoint, rows in endpoints if rows is not None]
    run = [(endpoint, rows) for endpoint, rows in known if endpoint.name == "serve"]
    # One request is enough to build the kernels that only `classify` has: it parses examples.
    run += [(endpoint, [rows[0][:size]]) for endpoint, rows in known if endpoint.method == CLASSIFY]
    return write_warmup(saved, name, run, size)
