"""Signatures: what each computes, on which named inputs, and how they get into a SavedModel."""

import dataclasses
import inspect
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

CLASSIFY = "tensorflow/serving/classify"
_HALF_PRECISION = ("bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A signature.

    Attributes:
        name: Its key in the SavedModel.
        call: From positional structures of tensors to a dict of tensors.
        specs: The arguments of `call`: a list of structures of named `tf.TensorSpec`s.
        owner: What holds the lookup tables that `call` uses; None for the model that is exported.
        method: What TensorFlow Serving calls it by; None for Predict.
    """

    name: str
    call: Callable[..., dict[str, Any]]
    specs: list[Any]
    owner: Any = None
    method: str | None = None

    @property
    def key(self) -> str:
        """Its key as servers know it: Keras writes `serve` a second time under their default."""
        return "serving_default" if self.name == "serve" else self.name

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
        import tensorflow as tf

        specs = tree.flatten(self.specs)
        leaves = [tf.convert_to_tensor(leaf, spec.dtype) for leaf, spec in zip(rows, specs, strict=True)]
        return {
            name: leaf.numpy() for name, leaf in self.call(*tree.pack_sequence_as(self.specs, leaves)).items()
        }


def predict(name: str, model: Any, rows: list[Any] | None = None, owner: Any = None) -> Endpoint:
    """Returns the signature that answers as `model.predict` does.

    Args:
        name: Of the signature.
        model: A built model.
        rows: Its inputs, from which a subclassed model's dtypes are read, where there are some.
        owner: As in `Endpoint`.
    """
    import tensorflow as tf
    from keras.src.export.export_utils import get_input_signature  # which Keras' own export reads

    signature = get_input_signature(model)
    dtypes = [spec.dtype for spec in tree.flatten(signature)]
    if rows is not None and not hasattr(model, "inputs"):
        dtypes = [_dtype(leaf, dtype) for leaf, dtype in zip(rows, dtypes, strict=True)]
    graph = getattr(model, "_functional", None) or model
    # Not the tensors': an Input without a name numbers its tensor otherwise in each process.
    layers = [tensor._keras_history.operation.name for tensor in getattr(graph, "inputs", None) or ()]
    specs = _named_specs(signature, model.call, [_served(dtype) for dtype in dtypes], layers)
    # As `predict` does: a layer that was told to run as in training does not.
    given = {"training": False} if "training" in inspect.signature(model.call).parameters else {}

    def serve(*arguments: Any) -> dict[str, Any]:
        leaves = [tf.cast(leaf, dtype) for leaf, dtype in zip(tree.flatten(arguments), dtypes, strict=True)]
        outputs = model(*tree.pack_sequence_as(list(arguments), leaves), **given)
        return _named(outputs, getattr(graph, "output_names", ()))

    return Endpoint(name, serve, specs, owner)


def extra(name: str, value: Any, main: Endpoint) -> Endpoint:
    """Returns a signature of the user's.

    Args:
        name: Its key.
        value: A model, a function of the model's inputs, a `tf.function` with an input signature, or a pair
            of a function and the list of its arguments' specs.
        main: The model's own signature.
    """
    if isinstance(value, keras.Model):
        return predict(name, value, owner=value)
    function, signature = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not callable(function) or not (signature is None or isinstance(signature, list | tuple)):
        raise ValueError(
            "`signatures` must be models, functions, or pairs of a function and the list of its arguments' "
            f"specs. Received: {name}={value!r}."
        )
    signature = getattr(function, "input_signature", None) if signature is None else signature
    specs = main.specs if signature is None else _named_specs(list(signature), function)
    return Endpoint(name, lambda *arguments: _named(function(*arguments), ()), specs)


def write(model: Any, endpoints: Iterable[Endpoint], folder: pathlib.Path) -> tuple[str, ...]:
    """Writes a SavedModel and returns the names of its signatures, sorted.

    Args:
        model: Whose variables and lookup tables it holds.
        endpoints: Its signatures, the default first.
        folder: Where to.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    methods = {endpoint.name: endpoint.method for endpoint in endpoints if endpoint.method}
    try:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for endpoint in endpoints:
            if endpoint.owner is not None:
                archive.track(endpoint.owner)
            archive.add_endpoint(endpoint.name, endpoint.call, endpoint.specs)
        archive.write_out(str(folder), verbose=False)
    except OSError:
        raise
    except Exception as error:  # whatever a layer or a function raises as it is traced
        raise ValueError(
            f"`model` and `signatures` must be what Keras can export. Received: `{model.name}`, which raised "
            f"{reason(error)}"
        ) from error
    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = message.meta_graphs[0].signature_def
    for name, method in methods.items():
        signatures[name].method_name = method  # TensorFlow writes that of Predict for all
    if methods:
        file.write_bytes(message.SerializeToString(deterministic=True))
        (folder / "fingerprint.pb").unlink(missing_ok=True)  # optional, and that of the file as it was
    return tuple(sorted(name for name in signatures if not name.startswith("__")))


def reason(error: Exception) -> str:
    """Returns an error's kind and what it says, without the lines that Keras puts around it.

    Args:
        error: What a layer raised.
    """
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
    said = (line for line in lines if line.strip() and not line.startswith("Exception encountered"))
    return f"{type(error).__name__}: {next(said, '')}"


def _named_specs(
    signature: list[Any], function: Any, dtypes: Sequence[Any] = (), layers: Sequence[str] = ()
) -> list[Any]:
    """Turns the specs of a function's arguments into `tf.TensorSpec`s, each with a name of its own."""
    import tensorflow as tf

    parameters = list(inspect.signature(getattr(function, "python_function", function)).parameters)
    names: list[str] = []
    specs = []
    for number, (path, spec) in enumerate(tree.flatten_with_path(signature)):
        own = layers[number] if layers else getattr(spec, "name", None)
        argument = parameters[path[0]] if path[0] < len(parameters) else f"input_{path[0]}"
        name = own or _join(path[1:]) or "_".join(map(str, (argument, *path[1:])))
        names.append(_unique(name, names))
        dtype = dtypes[number] if dtypes else spec.dtype
        specs.append(tf.TensorSpec(spec.shape, dtype, names[-1]))
    return tree.pack_sequence_as(signature, specs)


def _named(outputs: Any, names: Sequence[str]) -> dict[str, Any]:
    import tensorflow as tf

    found: dict[str, Any] = {}
    for number, (path, leaf) in enumerate(tree.flatten_with_path(outputs)):
        if leaf is None:
            continue
        own = names[number] if number < len(names) else f"output_{number}"
        tensor = tf.convert_to_tensor(leaf)
        found[_unique(_join(path) or own, found)] = tf.cast(tensor, _served(tensor.dtype.name))
    return found


def _join(path: tuple[Any, ...]) -> str:
    """The keys on the way to a leaf; nothing where there are only positions."""
    return "_".join(map(str, path)) if any(isinstance(part, str) for part in path) else ""


def _unique(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with a number behind it if it is taken."""
    free = (name if number == 0 else f"{name}_{number}" for number in range(len(list(taken)) + 1))
    return next(candidate for candidate in free if candidate not in taken)


def _served(dtype: Any) -> str:
    """What a dtype is served as: TensorFlow Serving's JSON has no half precision; float32 holds it all."""
    name = keras.backend.standardize_dtype(dtype) if not isinstance(dtype, str) else dtype
    return "float32" if name in _HALF_PRECISION else name


def _dtype(leaf: np.ndarray, dtype: Any) -> Any:
    """Keras takes all inputs of a subclassed model for floats; rows know better."""
    return dtype if leaf.dtype.kind == "f" else "string" if leaf.dtype.kind in "OSUT" else leaf.dtype.name
