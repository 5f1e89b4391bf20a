"""Which recurrent cells are known, and where their gates stand in the weights."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import is_of_keras, is_rnn_code_of_keras
from keras_initx.checks import check_choice
from keras_initx.walk import cell_gates

__all__ = ["WEIGHTS", "cells_of", "gate_names", "obstacle", "scaled"]

WEIGHTS = ("kernel", "recurrent_kernel", "bias")
_ROLES = ("dense", "gates", "recurrent")


def obstacle(layer: Any) -> str:
    """Tells why the gates of a layer cannot be measured; empty when they can.

    >>> obstacle(keras.layers.Dense(3))
    'Dense is not a recurrent layer'

    Args:
        layer: A Keras layer. SimpleRNN, LSTM, GRU, ConvLSTM1D to 3D and RNN over their cells, stacked or not,
            are known; of a Bidirectional, ask for its two layers.

    Returns:
        The reason, or an empty string.
    """
    name = type(layer).__name__
    if not hasattr(layer, "cell") or not hasattr(layer, "inner_loop"):
        return f"{name} is not a recurrent layer"
    for method in ("call", "inner_loop"):
        if not is_rnn_code_of_keras(_definer(layer, method)):
            return f"{name} overrides `{method}`, so its cell need not see the layer's inputs"
    for cell in cells_of(layer):
        if not _known(cell):
            return f"{type(cell).__name__} is not a cell whose gates are known: {_names()}"
    return "" if layer.built else f"{name} is not built"


def gate_names(cell: Any) -> tuple[str, ...]:
    """Returns the letters of a cell's gates in kernel order.

    >>> gate_names(keras.layers.GRUCell(2))
    ('z', 'r', 'h')

    Args:
        cell: A SimpleRNN, LSTM, GRU or ConvLSTM cell, or one that inherits its `call`.

    Raises:
        ValueError: If the cell is of another class.
    """
    if not _known(cell):
        raise ValueError(f"`cell` must run the `call` of one of {_names()}. Received: cell={cell!r}.")
    return cell_gates()[_definer(cell, "call")]


def scaled(name: str, value: Any, factors: Sequence[float], gates: int) -> Any:
    """Multiplies the columns of each gate in a recurrent cell's weight by the gate's factor.

    >>> ops.convert_to_numpy(scaled("bias", ops.ones(4), factors=(2.0, 3.0), gates=2)).tolist()
    [2.0, 2.0, 3.0, 3.0]

    Args:
        name: The weight's name or role: of all of them, the last axis holds the gates side by side.
        value: The weight: (..., gates * units).
        factors: One factor per gate, in kernel order.
        gates: Number of gates.

    Returns:
        A tensor of the weight's shape and dtype; the product is taken in at least float32.

    Raises:
        ValueError: If the name is not that of a cell's weight, or numbers and shape do not fit.
    """
    check_choice("name", name, (*WEIGHTS, *_ROLES))
    width = value.shape[-1]
    if len(factors) != gates or width % gates:
        raise ValueError(
            f"`factors` must hold one factor per gate, and the last axis of `value` a block per gate. "
            f"Received: factors={factors}, gates={gates}, value of shape {tuple(value.shape)}."
        )
    dtype = keras.backend.standardize_dtype(value.dtype)
    columns = np.repeat(np.asarray(factors, "float64"), width // gates)
    wide = "float32" if dtype in ("bfloat16", "float16") else dtype
    return ops.cast(ops.cast(value, wide) * ops.convert_to_tensor(columns, wide), dtype)


def _names() -> list[str]:
    return sorted(cell.__name__ for cell in cell_gates())


def _definer(layer: Any, method: str) -> type:
    return next(cls for cls in type(layer).__mro__ if method in cls.__dict__)


def _known(cell: Any) -> bool:
    if not isinstance(cell, keras.layers.Layer):
        return False
    if _definer(cell, "call") not in cell_gates():
        return False
    # `call` leaves work to other methods: LSTM's gates, ConvLSTM's convolutions, dropout's masks.
    owners = (_definer(cell, name) for name in _run_by(type(cell), "call"))
    return all(is_of_keras(owner) for owner in owners)


def _run_by(cls: type, method: str) -> set[str]:
    """The names of a method and of all methods of its class that it runs, directly or not."""
    found: set[str] = set()
    left = {method}
    while left:
        name = left.pop()
        found.add(name)
        names = inspect.unwrap(getattr(cls, name)).__code__.co_names
        left |= {other for other in names if inspect.isfunction(getattr(cls, other, None))} - found
    return found


def cells_of(layer: Any) -> list[Any]:
    """The cells of a recurrent layer, each of which sees the outputs of the one before."""
    return list(getattr(layer.cell, "cells", [layer.cell]))
