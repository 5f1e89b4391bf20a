"""The recurrent cells that are known, and the places of their gates in the weights."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import is_of_keras, is_rnn_code_of_keras
from keras_initx._types import Layer, Tensor
from keras_initx.checks import check_choice
from keras_initx.walk import cell_gates

__all__ = ["WEIGHTS", "cells_of", "gate_names", "obstacle", "scaled"]

WEIGHTS = ("kernel", "recurrent_kernel", "bias")
_ROLES = ("dense", "gates", "recurrent")


def obstacle(layer: Layer) -> str:
    """Returns the reason why the gates of a layer cannot be measured; empty if they can.

    >>> obstacle(keras.layers.Dense(3))
    'Dense is not a recurrent layer'

    Args:
        layer: A Keras layer. It knows SimpleRNN, LSTM, GRU, ConvLSTM1D to 3D, and RNN over their cells,
            stacked or not. For a Bidirectional, ask about its two layers.

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
            return f"the gates of {type(cell).__name__} are not known, only those of {_names()}"
    return "" if layer.built else f"{name} is not built"


def gate_names(cell: Layer) -> tuple[str, ...]:
    """Returns the letters of a cell's gates in kernel order.

    >>> gate_names(keras.layers.GRUCell(2))
    ('z', 'r', 'h')

    Args:
        cell: A SimpleRNN, LSTM, GRU or ConvLSTM cell, or one that inherits its `call`.

    Raises:
        ValueError: If the cell is of another class, or overrides a method that `call` uses.
    """
    if not _known(cell):
        raise ValueError(f"`cell` must run the `call` of one of {_names()}. Received: cell={cell!r}.")
    return cell_gates()[_definer(cell, "call")]


def scaled(name: str, value: Tensor, factors: Sequence[float], gates: int) -> Any:
    """Multiplies each gate's columns in a weight of a recurrent cell by the factor of the gate.

    >>> ops.convert_to_numpy(scaled("bias", ops.ones(4), factors=(2.0, 3.0), gates=2)).tolist()
    [2.0, 2.0, 3.0, 3.0]

    Args:
        name: The weight's name or role. The last axis of each such weight holds the gates side by side.
        value: The weight: (..., gates * units).
        factors: One factor per gate, in kernel order.
        gates: Number of gates.

    Returns:
        A tensor of the weight's shape and dtype. The product is computed in float32 at least.

    Raises:
        ValueError: If no weight of a cell has that name, or the number of factors or the shape does not fit.
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


def _definer(layer: Layer, method: str) -> type:
    """Returns the class that defines a method of a layer."""
    return next(cls for cls in type(layer).__mro__ if method in cls.__dict__)


def _known(cell: Layer) -> bool:
    if not isinstance(cell, keras.layers.Layer):
        return False
    if _definer(cell, "call") not in cell_gates():
        return False
    # A subclass may keep `call` and override a method that `call` uses: LSTM's gates, ConvLSTM's
    # convolutions, dropout's masks. Then the gates are no longer those of the table.
    owners = (_definer(cell, name) for name in _run_by(type(cell), "call"))
    return all(is_of_keras(owner) for owner in owners)


def _run_by(cls: type, method: str) -> set[str]:
    """The names of a method and of all methods of its class that the method runs, directly or not."""
    found: set[str] = set()
    left = {method}
    while left:
        name = left.pop()
        found.add(name)
        names = inspect.unwrap(getattr(cls, name)).__code__.co_names
        left |= {other for other in names if inspect.isfunction(getattr(cls, other, None))} - found
    return found


def cells_of(layer: Layer) -> list[Layer]:
    """Returns the cells of a recurrent layer in order; each takes the outputs of the cell before it."""
    return list(getattr(layer.cell, "cells", [layer.cell]))
