"""Signatures: what each computes, on which named inputs, and how they get into a SavedModel."""

import dataclasses
import functools
import inspect
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import export_signature, functional_part, producer_of
from keras_initx.saved_model._names import NotDenseError, dtype_of, named, named_specs, served
from keras_initx.saved_model._rows import fixed_batch

CLASSIFY = "tensorflow/serving/classify"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A signature.

    Attributes:
        name: Its key in the SavedModel.
        call: From positional structures of tensors to a dict of tensors.
        specs: The arguments of `call`: a list of structures of named `tf.TensorSpec`s.
        method: What TensorFlow Serving calls it by; None for Predict.
        names: Of outputs that have no keys.
    """

    name: str
    call: Callable[..., dict[str, Any]]
    specs: list[Any]
    method: str | None = None
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its key as servers know it: Keras writes `serve` a second time under their default."""
        return "serving_default" if self.name == "serve" else self.name

    @functools.cached_property
    def function(self) -> Any:
        """`call` as a graph, traced once: what is exported."""
        import tensorflow as tf

        return tf.function(self.call, input_signature=self.specs, autograph=False)

    @functools.cached_property
    def concrete(self) -> Any:
        """The trace of `function`."""
        return self.function.get_concrete_function()

    def feeds(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Returns rows, in the order of the inputs, by the inputs' names."""
        return {spec.name: leaf for spec, leaf in zip(tree.flatten(self.specs), rows, strict=True)}

    def fit(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns rows in the dtypes of the inputs, strings as bytes."""
        import tensorflow as tf

        specs = tree.flatten(self.specs)
        return [
            tf.constant(leaf.astype(object), tf.string).numpy()
            if spec.dtype == tf.string
            else leaf.astype(spec.dtype.as_numpy_dtype)
            for leaf, spec in zip(rows, specs, strict=True)
        ]

    def run(self, rows: Sequence[Any]) -> dict[str, np.ndarray]:
        """Answers for rows in the order of the inputs, without the SavedModel."""
        return {name: leaf.numpy() for name, leaf in self.call(*self.pack(rows)).items()}

    def pack(self, rows: Sequence[Any]) -> list[Any]:
        """Returns rows, in the order of the inputs, as tensors in the structures that `call` takes."""
        import tensorflow as tf

        specs = tree.flatten(self.specs)
        leaves = [tf.convert_to_tensor(leaf, spec.dtype) for leaf, spec in zip(rows, specs, strict=True)]
        packed: list[Any] = tree.pack_sequence_as(self.specs, leaves)
        return packed


def input_signature(model: Any, warmup: Any = None) -> list[Any]:
    """Returns the specs of the arguments of a model's `call`.

    Keras remembers the shapes of those arguments that the model's `build` takes. Of a subclassed model the
    shapes of the others are read from rows.

    Args:
        model: A built model.
        warmup: Rows for each argument, as a tuple, a list or by name; or what else `export` takes.

    Raises:
        ValueError: If neither tells the shape of an argument that has no default.
    """
    signature = export_signature(model)
    if size := fixed_batch(model):  # which Keras' export forgets: a state of one row then does not fit

        def fixed(spec: Any) -> Any:
            return keras.InputSpec(spec.dtype, (size, *spec.shape[1:]), name=spec.name)

        return list(tree.map_structure(fixed, signature))
    if hasattr(model, "inputs"):
        return signature
    needed, possible = _arguments(model.call)
    given: Any = warmup
    if isinstance(warmup, dict) and set(needed) <= set(warmup) <= set(possible):
        given = tuple(warmup[name] for name in possible if name in warmup)
        if set(warmup) != set(possible[: len(given)]):
            raise ValueError(
                "`warmup` must leave out arguments of `call` at the end alone. "
                f"Received: {sorted(warmup)} of {possible}."
            )
    if (
        isinstance(given, tuple | list)
        and len(signature) < len(given) <= len(possible)
        and all(hasattr(one, "shape") for one in given)
    ):
        return [keras.InputSpec(_dtype_name(one), (None, *one.shape[1:])) for one in given]
    if len(needed) > len(signature):
        raise ValueError(
            f"`warmup` must have rows for each argument of `call`, as a tuple or by name: {needed}. Keras "
            f"remembers the shapes of {len(signature)} alone. Received: {type(warmup).__name__}."
        )
    return signature


def _arguments(call: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The names of a `call`'s arguments that must be given, and of those that may be inputs."""
    parameters = [
        parameter
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in ("training", "mask")
    ]
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return needed, [p.name for p in parameters if p.default in (p.empty, None)]


def _dtype_name(rows: Any) -> str:
    kind = getattr(rows.dtype, "kind", None)
    return "string" if kind in tuple("OSUT") else keras.backend.standardize_dtype(rows.dtype)


def predict(
    name: str, model: Any, rows: list[Any] | None = None, signature: list[Any] | None = None
) -> Endpoint:
    """Returns the signature that answers as `model.predict` does, by the `predict_step` of the model's class.

    Args:
        name: Of the signature.
        model: A built model.
        rows: Its inputs, from which a subclassed model's dtypes are read, where there are some.
        signature: As `input_signature` returns it; None for that of the model alone.
    """
    import tensorflow as tf

    signature = input_signature(model) if signature is None else signature
    dtypes = [spec.dtype for spec in tree.flatten(signature)]
    if rows is not None and not hasattr(model, "inputs"):
        dtypes = [dtype_of(leaf, dtype) for leaf, dtype in zip(rows, dtypes, strict=True)]
    graph = functional_part(model) or model
    # Not the tensors': an Input without a name numbers its tensor otherwise in each process.
    layers = [producer_of(tensor).name for tensor in getattr(graph, "inputs", None) or ()]
    specs = named_specs(signature, model.call, [served(dtype) for dtype in dtypes], layers)
    # As `predict` does: a layer that was told to run as in training does not.
    given = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    own_step = getattr(model.predict_step, "__func__", None) is not keras.Model.predict_step
    # What a `predict_step` of its own returns need not be what the output layers do.
    names = () if own_step else tuple(getattr(graph, "output_names", ()))

    def serve(*arguments: Any) -> dict[str, Any]:
        leaves = [tf.cast(leaf, dtype) for leaf, dtype in zip(tree.flatten(arguments), dtypes, strict=True)]
        packed = tree.pack_sequence_as(list(arguments), leaves)
        if own_step:
            return named(model.predict_step((packed[0] if len(packed) == 1 else packed,)))
        return named(model(*packed, **given), names)

    return Endpoint(name, serve, specs, names=names)


def extra(name: str, value: Any, main: Endpoint) -> Endpoint:
    """Returns a signature of the user's.

    Args:
        name: Its key.
        value: A model, a function of the model's inputs, a `tf.function` with an input signature, or a pair
            of a function and the list of its arguments' specs.
        main: The model's own signature.
    """
    if isinstance(value, keras.Model):
        return predict(name, value)
    function, signature = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not callable(function) or not (signature is None or isinstance(signature, list | tuple)):
        raise ValueError(
            "`signatures` must be models, functions, or pairs of a function and the list of its arguments' "
            f"specs. Received: {name}={value!r}."
        )
    signature = getattr(function, "input_signature", None) if signature is None else signature
    specs = main.specs if signature is None else named_specs(list(signature), function)
    return Endpoint(name, lambda *arguments: named(function(*arguments)), specs)


def write(model: Any, endpoints: Iterable[Endpoint], folder: pathlib.Path) -> tuple[str, ...]:
    """Writes a SavedModel and returns the names of its signatures, sorted.

    Args:
        model: Whose variables and lookup tables it holds, with those that the signatures use besides.
        endpoints: Its signatures, the default first.
        folder: Where to.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    methods = {endpoint.name: endpoint.method for endpoint in endpoints if endpoint.method}
    try:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for endpoint in endpoints:
            for table in _tables(endpoint):
                archive.track(table)
            archive.add_endpoint(endpoint.name, endpoint.function)
        archive.write_out(str(folder), verbose=False)
    except OSError:
        raise
    except Exception as error:
        raise _not_exported(model, "", error) from error
    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = message.meta_graphs[0].signature_def
    for name, method in methods.items():
        signatures[name].method_name = method  # TensorFlow writes that of Predict for all
    if methods:
        file.write_bytes(message.SerializeToString(deterministic=True))
        (folder / "fingerprint.pb").unlink(missing_ok=True)  # optional, and that of the file as it was
    return tuple(sorted(name for name in signatures if not name.startswith("__")))


def trace(model: Any, endpoints: Iterable[Endpoint]) -> None:
    """Traces signatures, which runs nothing.

    Args:
        model: The model.
        endpoints: Its signatures.

    Raises:
        ValueError: If one of them cannot be traced.
    """
    for endpoint in endpoints:
        try:
            endpoint.concrete  # noqa: B018
        except NotDenseError:
            raise
        except Exception as error:  # whatever a layer or a function raises
            raise _not_exported(model, f" in the signature `{endpoint.key}`", error) from error


def _not_exported(model: Any, where: str, error: Exception) -> ValueError:
    return ValueError(
        f"`model` and `signatures` must be what Keras can export. Received: `{model.name}`, which "
        f"raised{where} {reason(error)}"
    )


def _tables(endpoint: Endpoint) -> list[Any]:
    """Returns the lookup tables and other resources that a trace uses, wherever Python holds them."""
    from tensorflow.saved_model.experimental import TrackableResource

    holders = [getattr(tensor, "_parent_trackable", None) for tensor in endpoint.concrete.captured_inputs]
    found = [holder() for holder in holders if holder is not None]
    return [table for table in found if isinstance(table, TrackableResource)]


def reason(error: Exception) -> str:
    """Returns an error's kind and what it says, without the lines that Keras puts around it.

    Args:
        error: What a layer raised.
    """
    return sentence(f"{type(error).__name__}: {error}")


def sentence(said: str) -> str:
    """Returns what an error said without its further lines.

    Args:
        said: The error's kind, and its text.
    """
    kind, _, text = re.sub(r"\x1b\[\d+m", "", said).partition(": ")
    lines = (line.strip() for line in text.splitlines())
    told = (line for line in lines if line and not line.startswith("Exception encountered"))
    found = next(told, "")
    while found.endswith(":") and (more := next(told, "")):  # as TensorFlow's "See the information below:"
        found = f"{found} {more}"
    return f"{kind}: {found}"
