"""Signatures: the computation of each, its named inputs, and the way into a SavedModel."""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import functional_part, producer_of
from keras_initx._types import Model, Tensor
from keras_initx.checks import said_lines
from keras_initx.saved_model._names import NotDenseError, dtype_of, named, named_specs, served
from keras_initx.saved_model._specs import input_signature

if TYPE_CHECKING:
    import tensorflow as tf

# The method name by which TensorFlow Serving knows the signature of its Classify call.
CLASSIFY = "tensorflow/serving/classify"

# The values of the argument `signatures` of `export`.
Signature: TypeAlias = (
    "Model | Callable[..., Any] | tuple[Callable[..., Any], Sequence[keras.InputSpec | tf.TensorSpec]]"
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A signature: a function of named inputs that a server can call.

    Attributes:
        name: The key of the signature in the SavedModel.
        call: The function, from positional structures of tensors to a dict of tensors.
        specs: The arguments of `call`: a list of structures of named `tf.TensorSpec`s.
        method: The method name of TensorFlow Serving; None for Predict.
        names: Names for the outputs that have no keys.
    """

    name: str
    call: Callable[..., dict[str, Any]]
    specs: list[Any]
    method: str | None = None
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key that clients use by default: Keras writes `serve` also as `serving_default`."""
        return "serving_default" if self.name == "serve" else self.name

    @functools.cached_property
    def function(self) -> "tf.types.experimental.PolymorphicFunction":
        """`call` as a graph that is traced once. The export writes this graph."""
        import tensorflow as tf

        return tf.function(self.call, input_signature=self.specs, autograph=False)

    @functools.cached_property
    def concrete(self) -> "tf.types.experimental.ConcreteFunction":
        """The trace of `function`."""
        return self.function.get_concrete_function()

    def feeds(self, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Returns rows, given in the order of the inputs, as a dict by the names of the inputs."""
        return {spec.name: leaf for spec, leaf in zip(tree.flatten(self.specs), rows, strict=True)}

    def fit(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns rows in the dtypes of the inputs, with strings as bytes."""
        import tensorflow as tf

        specs = tree.flatten(self.specs)
        return [
            tf.constant(leaf.astype(object), tf.string).numpy()
            if spec.dtype == tf.string
            else leaf.astype(spec.dtype.as_numpy_dtype)
            for leaf, spec in zip(rows, specs, strict=True)
        ]

    def run(self, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Answers rows, given in the order of the inputs, in this process and without the SavedModel."""
        return {name: leaf.numpy() for name, leaf in self.call(*self.pack(rows)).items()}

    def pack(self, rows: Sequence[np.ndarray]) -> list[Any]:
        """Returns rows, given in the order of the inputs, as tensors in the structures that `call` takes."""
        import tensorflow as tf

        specs = tree.flatten(self.specs)
        leaves = [tf.convert_to_tensor(leaf, spec.dtype) for leaf, spec in zip(rows, specs, strict=True)]
        packed: list[Any] = tree.pack_sequence_as(self.specs, leaves)
        return packed


def predict(
    name: str, model: Model, rows: Sequence[np.ndarray] | None = None, signature: list[Any] | None = None
) -> Endpoint:
    """Returns the signature that answers as `model.predict` does, by the `predict_step` of the model's class.

    Args:
        name: The name of the signature.
        model: A built model.
        rows: Rows of its inputs, if a user gave some. The dtypes of a subclassed model are read from them.
        signature: The specs, from `input_signature`; None to read them from the model alone.
    """
    import tensorflow as tf

    signature = input_signature(model) if signature is None else signature
    dtypes = [spec.dtype for spec in tree.flatten(signature)]
    if rows is not None and not hasattr(model, "inputs"):
        dtypes = [dtype_of(leaf, dtype) for leaf, dtype in zip(rows, dtypes, strict=True)]
    graph = functional_part(model) or model
    # Inputs are named after their layers and not after their tensors: the tensor of an Input without a name
    # has another number in each process.
    layers = [producer_of(tensor).name for tensor in getattr(graph, "inputs", None) or ()]
    specs = named_specs(signature, model.call, [served(dtype) for dtype in dtypes], layers)
    # `predict` passes training=False, which overrules a `training=True` that a layer was called with.
    given = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    own_step = getattr(model.predict_step, "__func__", None) is not keras.Model.predict_step
    # A `predict_step` of the user's may return other outputs than the output layers, so it takes no names.
    names = () if own_step else tuple(getattr(graph, "output_names", ()))

    def serve(*arguments: Tensor) -> dict[str, Any]:
        leaves = [tf.cast(leaf, dtype) for leaf, dtype in zip(tree.flatten(arguments), dtypes, strict=True)]
        packed = tree.pack_sequence_as(list(arguments), leaves)
        if own_step:
            return named(model.predict_step((packed[0] if len(packed) == 1 else packed,)))
        return named(model(*packed, **given), names)

    return Endpoint(name, serve, specs, names=names)


def extra(name: str, value: object, main: Endpoint) -> Endpoint:
    """Returns a signature that the user gave.

    Args:
        name: The key of the signature.
        value: A model, a function of the model's inputs, a `tf.function` with an input signature, or a pair
            of a function and the list of its arguments' specs.
        main: The model's own signature.

    Raises:
        ValueError: If `value` is none of these.
    """
    if isinstance(value, keras.Model):
        return predict(name, value)
    function, signature = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not callable(function) or not (signature is None or isinstance(signature, list | tuple)):
        raise ValueError(
            "`signatures` must be models, functions, or pairs of a function and the list of its arguments' "
            f"specs. Received: {name}={value!r}. Pass for example "
            f"{name}=(function, [keras.InputSpec('float32', (None, 3))])."
        )
    signature = getattr(function, "input_signature", None) if signature is None else signature
    specs = main.specs if signature is None else named_specs(list(signature), function)
    return Endpoint(name, lambda *arguments: named(function(*arguments)), specs)


def write(model: Model, endpoints: Iterable[Endpoint], folder: pathlib.Path) -> tuple[str, ...]:
    """Writes a SavedModel and returns the names of its signatures, sorted.

    Args:
        model: The model. The SavedModel holds its variables and lookup tables, and all others that the
            signatures use.
        endpoints: The signatures, the default first.
        folder: The folder to write.
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
    except OSError:  # a full disk is not the model's fault
        raise
    except Exception as error:
        raise _not_exported(model, "", error) from error
    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = message.meta_graphs[0].signature_def
    for name, method in methods.items():
        signatures[name].method_name = method  # TensorFlow writes Predict's method name for every signature
    if methods:
        file.write_bytes(message.SerializeToString(deterministic=True))
        # The fingerprint is of the file before this change. TensorFlow loads a SavedModel without one.
        (folder / "fingerprint.pb").unlink(missing_ok=True)
    return tuple(sorted(name for name in signatures if not name.startswith("__")))


def trace(model: Model, endpoints: Iterable[Endpoint]) -> None:
    """Traces signatures, which runs no computation.

    Args:
        model: The model.
        endpoints: Its signatures.

    Raises:
        ValueError: If a signature cannot be traced.
    """
    for endpoint in endpoints:
        try:
            endpoint.concrete  # noqa: B018
        except NotDenseError:
            raise
        except Exception as error:  # a layer or a function may raise anything
            raise _not_exported(model, f" in the signature `{endpoint.key}`", error) from error


def _not_exported(model: Model, where: str, error: Exception) -> ValueError:
    return ValueError(
        f"`model` and `signatures` must be such that Keras can export them. Received: `{model.name}`, which "
        f"raised{where} {reason(error).rstrip('.')}. Correct the layer or the function that raises it."
    )


def _tables(endpoint: Endpoint) -> list["tf.saved_model.experimental.TrackableResource"]:
    """Returns the lookup tables and other resources that a trace uses.

    Tracking the model finds the tables of its layers. The trace tells every table that a signature uses, also
    a table in a closure or in an object of another library.
    """
    from tensorflow.saved_model.experimental import TrackableResource

    holders = [getattr(tensor, "_parent_trackable", None) for tensor in endpoint.concrete.captured_inputs]
    found = [holder() for holder in holders if holder is not None]
    return [table for table in found if isinstance(table, TrackableResource)]


def reason(error: Exception) -> str:
    """Returns the class and the first sentence of an error, without the lines that Keras puts around it.

    Args:
        error: The error that a layer raised.
    """
    return sentence(f"{type(error).__name__}: {error}")


def sentence(said: str) -> str:
    """Returns the first line of an error's text that tells something.

    Args:
        said: The class of the error, a colon, and its text.
    """
    # Keras begins with a line that only says that a layer failed; `said_lines` leaves it out.
    kind, _, text = said.partition(": ")
    told = said_lines(text)
    found = next(told, "")
    # TensorFlow's "See the information below:" tells nothing without the line below.
    while found.endswith(":") and (more := next(told, "")):
        found = f"{found} {more}"
    return f"{kind}: {found}"
