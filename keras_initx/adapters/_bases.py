"""Bases that lost a first A B, so that a later start can give it back, and samples that tell a base again."""

import dataclasses
import weakref
from typing import Literal

import numpy as np
from keras import ops

from keras_initx._types import Layer, Tensor, Variable
from keras_initx.walk import Adapter

__all__ = ["Start", "began", "given_back", "is_less", "sample"]

_SAMPLE = 1024  # entries, evenly spaced


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """How an adapter began, as far as a later start or conversion must know it.

    Attributes:
        path: Path of the adapted kernel.
        base: What the start made of the base: `"kept"`; `"less"`, the base without the first scale A B;
            `"rounded"`, the base as Keras quantizes it; or `"mixed"`, values that no other model has.
        a: The first A as a matrix; of a base that was kept, empty.
        b: The first B times the scale.
        sampled: Some entries of the base, by which it is known again.
        beside: Some entries of the bias, or nothing.
    """

    path: str
    base: Literal["kept", "less", "mixed", "rounded"]
    a: np.ndarray
    b: np.ndarray
    sampled: bytes = b""
    beside: bytes = b""


_LESS: weakref.WeakKeyDictionary[Layer, Start] = weakref.WeakKeyDictionary()


def began(
    path: str, base: Literal["kept", "less", "mixed", "rounded"], adapter: Adapter, alpha: float
) -> Start:
    """Remembers how an adapter began, with its present values, and returns it.

    Args:
        path: Path of the layer.
        base: What became of the base.
        adapter: The adapter.
        alpha: The alpha that it counts with.
    """
    empty = np.empty((0, 0), "float32")
    a, b = empty, empty
    if base == "less":
        a, b = (ops.convert_to_numpy(ops.cast(v.value, "float32")) for v in (adapter.a, adapter.b))
        a, b = a.reshape(-1, adapter.rank), alpha / adapter.rank * b
    start = Start(path, base, a, b, sample(adapter.kernel), sample(getattr(adapter.layer, "bias", None)))
    _LESS.pop(adapter.layer, None)
    if base == "less":
        _LESS[adapter.layer] = start
    return start


def is_less(adapter: Adapter) -> bool:
    """Whether the base of an adapter lacks the A B that the adapter began with."""
    start = _LESS.get(adapter.layer)
    # Weights that were loaded since are whole.
    return start is not None and start.sampled == sample(adapter.kernel)


def given_back(adapter: Adapter) -> Tensor:
    """Returns the matrix of the base with the first A B that it lacks.

    Args:
        adapter: An adapter for which `is_less` holds.
    """
    start = _LESS[adapter.layer]
    kernel = ops.reshape(ops.cast(adapter.kernel, "float32"), adapter.shape)
    return kernel + ops.matmul(ops.convert_to_tensor(start.a), ops.convert_to_tensor(start.b))


def sample(variable: Variable | None) -> bytes:
    """Returns some entries of a variable, as bytes; nothing for None."""
    if variable is None:
        return b""
    flat = ops.reshape(variable.value, (-1,))
    step = max(1, flat.shape[0] // _SAMPLE)
    return np.asarray(ops.convert_to_numpy(ops.cast(flat[::step], "float32"))).tobytes()
