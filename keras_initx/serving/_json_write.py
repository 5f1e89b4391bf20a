"""Tensors to JSON answers, by TensorFlow Serving's rules for numbers, strings and bytes."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_initx.serving._errors import invalid

__all__ = ["encode_columns", "encode_error", "encode_results", "encode_rows"]

_DIGITS = {2: 9, 4: 9, 8: 17}  # that tell every value of a type apart, by its bytes


def encode_rows(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns `{"predictions": [...]}`, a value per row; an object per row where there are several outputs.

    Raises:
        ServingError: If an output has no rows, or another number of them, or a type that JSON cannot hold.
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
    """Returns `{"outputs": ...}`: the tensor, or an object of tensors where there are several."""
    texts = {name: _nest(_values(name, tensor), tensor.shape) for name, tensor in sorted(outputs.items())}
    if len(texts) == 1:
        return _document("outputs", next(iter(texts.values())))
    body = ",\n".join(f"        {json.dumps(name)}: {text}" for name, text in texts.items())
    return _document("outputs", f"{{\n{body}\n    }}")


def encode_results(labels: np.ndarray | None, scores: np.ndarray | None) -> bytes:
    """Returns `{"results": ...}`: numbers for a regression, lists of [label, score] for a classification.

    Args:
        labels: Strings of shape [rows, classes]; None where the model gives none, or for a regression.
        scores: Floats of the same shape; of shape [rows] for a regression.
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
    """The values as JSON, in the tensor's order."""
    flat = tensor.reshape(-1)
    if flat.dtype.kind == "O":
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
    """Six digits where they give the value back, else all that tell it apart; whole numbers with `.0`."""
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


def _text(value: Any) -> str:
    """A string with the very bytes that the model gave, be they UTF-8 or not."""
    return json.dumps(_to_bytes(value).decode("utf-8", "surrogateescape"), ensure_ascii=False)


def _bytes(value: Any) -> str:
    return f'{{"b64": "{base64.b64encode(_to_bytes(value)).decode()}"}}'


def _to_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _lines(rows: Sequence[str]) -> str:
    return "[" + ",".join(f"\n        {row}" for row in rows) + ("\n    ]" if rows else "]")


def _document(key: str, text: str) -> bytes:
    return f'{{\n    "{key}": {text}\n}}'.encode("utf-8", "surrogateescape")
