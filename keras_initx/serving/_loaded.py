"""One version of a SavedModel in memory: its signatures, and a function that runs them."""

import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._graph import Graph

__all__ = ["DTYPES", "LoadedModel", "Signature", "TensorSpec"]

# TensorFlow's short names of the types that a request may carry, and NumPy's types for them.
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
# Functions that a model keeps, one for each signature and choice of outputs.
MAX_CALLS = 100


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A tensor of a signature.

    Attributes:
        tensor: Its name in the graph, such as `"serving_default_x:0"`.
        type: TensorFlow's short name of its type, such as `"float"`; see `DTYPES`.
        shape: Its sizes, None for a free one; None as a whole where not even the rank is known.
    """

    tensor: str
    type: str
    shape: tuple[int | None, ...] | None

    @property
    def has_batch(self) -> bool:
        """Whether its first dimension is free, and so counts rows."""
        return bool(self.shape) and self.shape[0] is None  # type: ignore[index]

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be fed."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a model can be asked: named inputs, named outputs, and the method that it is made for.

    Attributes:
        key: Its name, such as `"serving_default"`.
        method: `"tensorflow/serving/predict"`, `.../classify` or `.../regress`.
        inputs: Its inputs by name, sorted.
        outputs: Its outputs by name, sorted.
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
    """A SavedModel in a session of its own, as TensorFlow Serving holds it; several threads may run it.

    A session, not `tf.saved_model.load`: it also loads what TensorFlow 1 wrote, and calls cost half.

    Attributes:
        path: The version's folder.
        signatures: Its signatures by name.
        signature_defs: The same as TensorFlow's messages, with the initialization op where there is one.

    Raises:
        ServingError: The folder cannot be loaded, or a signature calls Python code of another process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import tensorflow as tf

        self.path = os.fspath(path)
        graph = tf.Graph()
        # In the thread that calls: a small model costs half of what it does with a pool between.
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
        self.signature_defs: Mapping[str, Any] = dict(meta_graph.signature_def)
        self._calls: dict[tuple[str, tuple[str, ...]], Callable[..., list[np.ndarray]]] = {}
        self._lock = threading.Lock()

    def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: One of `signatures`.
            inputs: Every input of the signature, of its type.
            outputs: Names of the outputs to compute.

        Returns:
            Those outputs.

        Raises:
            ServingError: What TensorFlow says of the inputs, with its code.
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
        """Frees what the model holds; no call may run."""
        self._calls.clear()
        self._session.close()

    def _make(self, signature: Signature, outputs: tuple[str, ...]) -> Callable[..., list[np.ndarray]]:
        with self._lock:
            call = self._session.make_callable(
                [signature.outputs[name].tensor for name in outputs],
                [spec.tensor for spec in signature.inputs.values()],
            )
            if len(self._calls) >= MAX_CALLS:  # requests choose the outputs
                self._calls.pop(next(iter(self._calls)))
            self._calls[signature.key, outputs] = call
        return call


def _load_code(path: str, error: Exception) -> str:
    import tensorflow as tf

    if not any((pathlib.Path(path) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return "NOT_FOUND"
    return _code(error) if isinstance(error, tf.errors.OpError) else "DATA_LOSS"


def _code(error: Any) -> str:
    import tensorflow as tf

    names = {value: name for name, value in vars(tf.errors).items() if name.isupper()}
    return names.get(error.error_code, "UNKNOWN")


def _told(error: Any) -> str:
    """What TensorFlow said, without what its session adds: where in the graph, and how it came about."""
    said = error.__context__ if isinstance(error.__context__, type(error)) else error
    return said.message.partition("\n\t [[")[0] or type(error).__name__


def _signatures(meta_graph: Any) -> dict[str, Signature]:
    graph, found = Graph(meta_graph), {}
    for key, definition in sorted(meta_graph.signature_def.items()):
        if key == "__saved_model_init_op":
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


def _specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    import tensorflow as tf

    return {
        name: TensorSpec(info.name, _short(tf.dtypes.as_dtype(info.dtype)), _shape(info.tensor_shape))
        for name, info in sorted(infos.items())
    }


def _short(dtype: Any) -> str:
    return {"float32": "float", "float64": "double", "float16": "half"}.get(dtype.name, dtype.name)


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
