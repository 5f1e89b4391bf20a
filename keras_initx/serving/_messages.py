"""TensorFlow Serving's messages for the states and signatures of models, and for tensors.

Tensors are read and written here with NumPy alone, without TensorFlow's `make_ndarray`, so that a malformed
message is refused with the input's name.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._inference import Served, Versions
from keras_initx.serving._loaded import DTYPES

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

__all__ = ["read_tensor", "signature_def_map", "status", "to_dict", "write_tensor"]

# The field of a `TensorProto` that holds the values, by type. Types without a field of their own share one:
# half and bfloat16 are stored as the bits of 16-bit integers.
_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "half": "half_val",
    "bfloat16": "half_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}
# The numbers of TensorFlow's `DataType`.
_ENUM = {1: "float", 2: "double", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64"}
_ENUM |= {9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "half"}
_ENUM |= {22: "uint32", 23: "uint64"}
_NUMBER = {name: number for number, name in _ENUM.items()}
# A message of a few bytes may claim any shape, because one value may stand for all elements. Without this
# limit, it could fill the memory.
_MOST_ELEMENTS = 2**26


def status(models: Versions, name: str, version: int | None = None) -> "GetModelStatusResponse":
    """Returns the states of a model's versions as a message.

    Args:
        models: The served models.
        name: The model's name.
        version: The only version to report; None reports all.

    Raises:
        ServingError: NOT_FOUND if there is no such model or version.
    """
    from tensorflow_serving.apis import get_model_status_pb2

    found = models.statuses(name)
    if version is not None:
        found = [state for state in found if state.number == version]
        if not found:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {name}")
    if not found:
        reason = models.reason(name)
        told = f"Could not find any versions of model {name}" + (f": {reason}" if reason else "")
        raise ServingError("NOT_FOUND", told)
    response = get_model_status_pb2.GetModelStatusResponse()
    for state in found:
        message = response.model_version_status.add()
        message.version = state.number
        message.state = message.State.Value(state.state)
        message.status.error_code = _error_number(state.error_code)
        message.status.error_message = state.error_message
    return response


def _error_number(code: str) -> int:
    import tensorflow as tf

    return 0 if code == "OK" else getattr(tf.errors, code)


def signature_def_map(version: Served) -> "SignatureDefMap":
    """Returns the signatures of a version as a message."""
    from tensorflow_serving.apis import get_model_metadata_pb2

    found = get_model_metadata_pb2.SignatureDefMap()
    for key, definition in version.signature_defs.items():
        found.signature_def[key].CopyFrom(definition)
    return found


def to_dict(message: "Message") -> dict[str, Any]:
    """Returns a message as JSON values, as TensorFlow Serving prints it.

    Fields keep the names of the message, such as `error_code`, and fields with default values are included.
    """
    from google.protobuf import json_format

    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def read_tensor(message: "TensorProto", want: str, name: str) -> np.ndarray:
    """Returns the values of a message as an array.

    Args:
        message: The message.
        want: The type that the signature takes, by TensorFlow's short name.
        name: The input's name, for errors.

    Raises:
        ServingError: INVALID_ARGUMENT if the message has another type, an unknown, negative or very large
            shape, or values that do not fit its shape.
    """
    type_ = _ENUM.get(message.dtype, f"type {message.dtype}")
    if type_ != want:
        raise invalid(f"input tensor alias {name!r} must be of type {want}. Received: {type_}")
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    count = math.prod(shape)
    if (
        message.tensor_shape.unknown_rank
        or min(shape, default=0) < 0
        or count > _MOST_ELEMENTS
        or len(shape) > 32
    ):
        raise invalid(
            f"input tensor alias {name!r} must have a known shape of at most 2^26 elements and 32 ranks"
        )
    dtype = _dtype(type_)
    if message.tensor_content and type_ != "string":
        if len(message.tensor_content) != count * dtype.itemsize:
            raise invalid(
                f"input tensor alias {name!r}: tensor_content must hold {count * dtype.itemsize} bytes. "
                f"Received: {len(message.tensor_content)}"
            )
        return np.frombuffer(message.tensor_content, dtype).reshape(shape)
    flat = _flat(getattr(message, _FIELDS[type_]), type_, dtype)
    if len(flat) > count:
        raise invalid(f"input tensor alias {name!r} must hold {count} values. Received: {len(flat)}")
    if len(flat) < count:  # by TensorFlow's rule, the last value fills the rest; without values, zeros do
        last = flat[-1:] if len(flat) else np.array([b"" if type_ == "string" else 0], dtype)
        flat = np.concatenate([flat, np.broadcast_to(last, count - len(flat))])
    return flat.reshape(shape)


def _flat(values: Sequence[bool | int | float | bytes], type_: str, dtype: np.dtype) -> np.ndarray:
    """Returns the values of a message's field as a flat array."""
    if type_ in ("half", "bfloat16"):
        return np.array(values, np.uint16).view(dtype)
    if type_ in ("complex64", "complex128"):  # stored as pairs of numbers
        return np.array(values, np.float32 if type_ == "complex64" else np.float64).view(dtype)
    flat = np.empty(len(values), dtype)
    flat[:] = np.asarray(values, object) if type_ == "string" else np.array(values).astype(dtype)
    return flat


def write_tensor(tensor: np.ndarray, message: "TensorProto") -> None:
    """Writes an array into an empty message.

    The values go into the field of their type, as TensorFlow Serving writes them by default: clients may read
    that field directly.

    Raises:
        ServingError: UNIMPLEMENTED if a message cannot hold the type.
    """
    type_ = _short(tensor.dtype)
    message.dtype = _NUMBER[type_]
    for size in tensor.shape:
        message.tensor_shape.dim.add().size = size
    flat = tensor.reshape(-1)
    if type_ in ("half", "bfloat16"):
        flat = flat.view(np.uint16)
    elif type_ in ("complex64", "complex128"):
        flat = flat.view(np.float32 if type_ == "complex64" else np.float64)
    elif type_ == "string":
        message.string_val.extend(
            value if isinstance(value, bytes) else str(value).encode() for value in flat
        )
        return
    getattr(message, _FIELDS[type_]).extend(flat.tolist())


_SHORT = {np.dtype(value).name: name for name, value in DTYPES.items()} | {"bfloat16": "bfloat16"}


def _short(dtype: np.dtype) -> str:
    if dtype.name not in _SHORT:
        raise ServingError("UNIMPLEMENTED", f"Tensors of type {dtype.name} cannot be sent")
    return _SHORT[dtype.name]


def _dtype(type_: str) -> np.dtype:
    if type_ == "bfloat16":  # NumPy does not have it
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(DTYPES[type_])
