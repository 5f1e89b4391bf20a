"""Arrays to JSON answers, by TensorFlow Serving's rules for numbers, strings and bytes.

White space and floats follow TensorFlow Serving's writer. Python's `json` module writes both in other ways,
so the text is put together here.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_initx.serving._errors import invalid

__all__ = ["encode_columns", "encode_error", "encode_results", "encode_rows"]

# Significant digits that tell all values of a float type apart, by the bytes of the type.
_DIGITS = {2: 9, 4: 9, 8: 17}


def encode_rows(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns `{"predictions": [...]}`: a value for each row, or an object if there are several outputs.

    Args:
        outputs: The outputs by name.

    Raises:
        ServingError: If an output does not have rows, if two outputs have different numbers of rows, or if
            JSON cannot hold a type.
    """
    _check_rows(outputs)
    texts = {name: _rows(name, tensor) for name, tensor in sorted(outputs.items())}
    if len(texts) == 1:
        (rows,) = texts.values()
    else:
        keys = [json.dumps(name) for name in texts]
        rows = [
            "{" + ", ".join(f"{key}: {text}" for key, text in zip(keys, row, strict=True)) + "}"
            for row in zip(*texts.values(), strict=True)
        ]
    return _document("predictions", _lines(rows))


def encode_columns(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns `{"outputs": ...}` with the tensor, or with an object of tensors if there are several outputs.

    Args:
        outputs: The outputs by name.

    Raises:
        ServingError: If JSON cannot hold a type.
    """
    texts = {name: _nest(_values(name, tensor), tensor.shape) for name, tensor in sorted(outputs.items())}
    if len(texts) == 1:
        return _document("outputs", next(iter(texts.values())))
    body = ",\n".join(f"        {json.dumps(name)}: {text}" for name, text in texts.items())
    return _document("outputs", f"{{\n{body}\n    }}")


def encode_results(labels: np.ndarray | None, scores: np.ndarray | None) -> bytes:
    """Returns `{"results": ...}`: numbers for a regression, pairs [label, score] for a classification.

    Args:
        labels: Strings of shape [rows, classes]. None for a regression, or if the model returns no labels.
        scores: Floats of shape [rows, classes], or [rows] for a regression. None if the model returns no
            scores.
    """
    if scores is not None and scores.ndim == 1:
        return _document("results", "[" + ", ".join(_floats(scores)) + "]")
    shape = (labels if labels is not None else scores).shape  # type: ignore[union-attr]
    names = ['""'] * math.prod(shape) if labels is None else [_text(value) for value in labels.reshape(-1)]
    values = ["0.0"] * len(names) if scores is None else _floats(scores)
    pairs = [f"[{name}, {value}]" for name, value in zip(names, values, strict=True)]
    width = shape[1]
    rows = ["[" + ", ".join(pairs[at * width : (at + 1) * width]) + "]" for at in range(shape[0])]
    return _document("results", _lines(rows))


def encode_error(message: str) -> bytes:
    """Returns `{"error": message}`."""
    # A message may quote a string of the client that is not UTF-8: "surrogateescape" gives its bytes back.
    return json.dumps({"error": message}, ensure_ascii=False, indent=4).encode("utf-8", "surrogateescape")


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    rows = None
    for name, tensor in sorted(outputs.items()):
        if tensor.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows not in (None, len(tensor)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(tensor)} expecting: {rows}")
        rows = len(tensor)


def _rows(name: str, tensor: np.ndarray) -> list[str]:
    flat, shape = _values(name, tensor), tensor.shape[1:]
    size = math.prod(shape)
    return [_nest(flat[at * size : (at + 1) * size], shape) for at in range(len(tensor))]


def _nest(flat: Sequence[str], shape: Sequence[int]) -> str:
    for axis in reversed(range(len(shape))):
        size, count = shape[axis], math.prod(shape[:axis])
        flat = ["[" + ", ".join(flat[at * size : (at + 1) * size]) + "]" for at in range(count)]
    return flat[0]


def _values(name: str, tensor: np.ndarray) -> list[str]:
    """Returns each value as JSON text, in the order of the array."""
    flat = tensor.reshape(-1)
    if flat.dtype.kind == "O":
        # TensorFlow Serving's rule: an output whose name ends in `_bytes` is written as base64.
        return (
            [_bytes(value) for value in flat] if name.endswith("_bytes") else [_text(value) for value in flat]
        )
    if flat.dtype.kind == "f" or flat.dtype.name == "bfloat16":
        return _floats(flat)
    if flat.dtype.kind in "iu":
        return [str(value) for value in flat.tolist()]
    if flat.dtype.kind == "b":
        return ["true" if value else "false" for value in flat.tolist()]
    raise invalid(f"Failed to write JSON value for tensor type: {flat.dtype.name}")


def _floats(tensor: np.ndarray) -> list[str]:
    """Returns floats as text: 0.1, 1e+20, 3.0, NaN.

    Six digits are written if they give the same value back, otherwise as many as tell it apart from its
    neighbours. Whole numbers end in `.0`.
    """
    # 2-byte floats are written as float32, which holds each of their values.
    type_ = tensor.dtype if tensor.dtype.itemsize > 2 else np.dtype(np.float32)
    flat = tensor.reshape(-1).astype(type_)
    values = flat.tolist()
    texts = [f"{value:.6g}" for value in values]
    with np.errstate(over="ignore"):
        lossy = np.flatnonzero(np.array([float(text) for text in texts], type_) != flat)
    for at in lossy.tolist():
        texts[at] = f"{values[at]:.{_DIGITS[type_.itemsize]}g}"
    return [text if "." in text or "e" in text else _WHOLE.get(text, text + ".0") for text in texts]


_WHOLE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _text(value: bytes | str) -> str:
    """Returns a JSON string with exactly the bytes that the model returned, UTF-8 or not."""
    return json.dumps(_to_bytes(value).decode("utf-8", "surrogateescape"), ensure_ascii=False)


def _bytes(value: bytes | str) -> str:
    """Returns the JSON object `{"b64": "..."}` for a string."""
    return f'{{"b64": "{base64.b64encode(_to_bytes(value)).decode()}"}}'


def _to_bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _lines(rows: Sequence[str]) -> str:
    return "[" + ",".join(f"\n        {row}" for row in rows) + ("\n    ]" if rows else "]")


def _document(key: str, text: str) -> bytes:
    return f'{{\n    "{key}": {text}\n}}'.encode("utf-8", "surrogateescape")
