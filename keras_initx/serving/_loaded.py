"""One version of a SavedModel in memory: its signatures, and a function that runs them."""

import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._graph import Graph

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef, TensorInfo

__all__ = ["DTYPES", "LoadedModel", "Signature", "TensorSpec"]

# TensorFlow's short names of types, and NumPy's types for them. bfloat16 is missing, because NumPy does not
# have it: `_messages.py` reads and writes it by itself.
DTYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "half": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
    "complex64": np.complex64,
    "complex128": np.complex128,
}
# The most functions that a model keeps: one for each signature and choice of outputs.
MAX_CALLS = 100


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or an output of a signature.

    Attributes:
        tensor: The tensor's name in the graph, such as `"serving_default_x:0"`.
        type: TensorFlow's short name of its type, such as `"float"`; see `DTYPES`.
        shape: The size of each dimension, None for a free dimension. The whole shape is None if even the
            number of dimensions is unknown.
    """

    tensor: str
    type: str
    shape: tuple[int | None, ...] | None

    @property
    def has_batch(self) -> bool:
        """Whether the first dimension is free, so that it counts rows."""
        return bool(self.shape) and self.shape[0] is None  # type: ignore[index]

    def accepts(self, shape: Sequence[int]) -> bool:
        """Returns whether a tensor of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of a SavedModel, with named inputs and named outputs.

    Attributes:
        key: The signature's name, such as `"serving_default"`.
        method: The kind of request that it is made for: `"tensorflow/serving/predict"`, `.../classify` or
            `.../regress`.
        inputs: The inputs by name, sorted.
        outputs: The outputs by name, sorted.
        batched: Whether rows of several requests may run together; see `batched` in `_row_wise.py`.
        writes: Whether a run changes the model's state.
    """

    key: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    batched: bool = False
    writes: bool = False

    @property
    def has_batch(self) -> bool:
        """Whether the first dimension of every input and output is free."""
        return all(spec.has_batch for spec in (*self.inputs.values(), *self.outputs.values()))


class LoadedModel:
    """A SavedModel in memory. Several threads may run it.

    It runs in a session of its own, as in TensorFlow Serving, and not by `tf.saved_model.load`. A session
    also loads models that TensorFlow 1 wrote, and a call costs half as much.

    Attributes:
        path: The version's folder.
        signatures: The signatures by name.
        signature_defs: The same signatures as TensorFlow's messages. If the model has an initialization op,
            it is among them.

    Raises:
        ServingError: If the folder cannot be loaded, or if a signature calls Python code, which only the
            exporting process has.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import tensorflow as tf

        self.path = os.fspath(path)
        graph = tf.Graph()
        # -1 runs the operations in the calling thread. A small model then costs half as much as with a pool.
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], self.path)
            self.signatures = _signatures(meta_graph)
        except ServingError as error:
            self._session.close()
            raise ServingError(error.code, f"{self.path}: {error.message}") from None
        except Exception as error:
            self._session.close()
            told = _told(error) if isinstance(error, tf.errors.OpError) else error
            raise ServingError(_load_code(self.path, error), f"{self.path}: {told}") from error
        self.signature_defs: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)
        self._calls: dict[tuple[str, tuple[str, ...]], Callable[..., list[np.ndarray]]] = {}
        self._lock = threading.Lock()

    def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, in the calling thread.

        Args:
            signature: One of `signatures`.
            inputs: All inputs of the signature, of the right types.
            outputs: The names of the outputs to compute.

        Returns:
            The outputs by name.

        Raises:
            ServingError: If TensorFlow refuses the inputs or fails, with TensorFlow's code and message.
        """
        import tensorflow as tf

        call = self._calls.get((signature.key, tuple(outputs))) or self._make(signature, tuple(outputs))
        try:
            values = call(*(inputs[name] for name in signature.inputs))
        except tf.errors.OpError as error:
            raise ServingError(_code(error), _told(error)) from error
        except (TypeError, ValueError) as error:  # a shape or a type that the session does not take
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        return dict(zip(outputs, values, strict=True))

    def close(self) -> None:
        """Frees the model's memory. No call may be running."""
        self._calls.clear()
        self._session.close()

    def _make(self, signature: Signature, outputs: tuple[str, ...]) -> Callable[..., list[np.ndarray]]:
        # A function that TensorFlow has prepared is cheaper to call than `Session.run`.
        with self._lock:
            call = self._session.make_callable(
                [signature.outputs[name].tensor for name in outputs],
                [spec.tensor for spec in signature.inputs.values()],
            )
            # Clients choose the outputs, so they could make any number of functions: the oldest one goes.
            if len(self._calls) >= MAX_CALLS:
                self._calls.pop(next(iter(self._calls)))
            self._calls[signature.key, outputs] = call
        return call


def _load_code(path: str, error: Exception) -> str:
    import tensorflow as tf

    if not any((pathlib.Path(path) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return "NOT_FOUND"
    return _code(error) if isinstance(error, tf.errors.OpError) else "DATA_LOSS"


def _code(error: "tf.errors.OpError") -> str:
    import tensorflow as tf

    names = {value: name for name, value in vars(tf.errors).items() if name.isupper()}
    return names.get(error.error_code, "UNKNOWN")


def _told(error: "tf.errors.OpError") -> str:
    """Returns TensorFlow's message, without the session's additions about nodes and stack traces."""
    # The session raises a second error with its additions, and the first one is that error's context.
    said = error.__context__ if isinstance(error.__context__, type(error)) else error
    return said.message.partition("\n\t [[")[0] or type(error).__name__


def _signatures(meta_graph: "MetaGraphDef") -> dict[str, Signature]:
    graph, found = Graph(meta_graph), {}
    for key, definition in sorted(meta_graph.signature_def.items()):
        if key == "__saved_model_init_op":  # it fills tables at the load; clients cannot ask for it
            continue
        inputs, outputs = _specs(definition.inputs), _specs(definition.outputs)
        tensors = [spec.tensor for spec in outputs.values()]
        if python := graph.python(tensors):
            raise ServingError(
                "FAILED_PRECONDITION",
                f"signature {key!r} calls Python code ({', '.join(python)}), which only the process that "
                "exported the model can run. Write that layer with TensorFlow's or Keras' operations, and "
                "export the model again.",
            )
        writes = graph.writes(tensors)
        found[key] = Signature(key, definition.method_name, inputs, outputs, writes=writes)
    return found


def _specs(infos: "Mapping[str, TensorInfo]") -> dict[str, TensorSpec]:
    import tensorflow as tf

    return {
        name: TensorSpec(info.name, _short(tf.dtypes.as_dtype(info.dtype)), _shape(info.tensor_shape))
        for name, info in sorted(infos.items())
    }


def _short(dtype: "tf.DType") -> str:
    return {"float32": "float", "float64": "double", "float16": "half"}.get(dtype.name, dtype.name)


def _shape(shape: "TensorShapeProto") -> tuple[int | None, ...] | None:
    return None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
