"""Runs one cell over a sequence in an eager loop, and measures the pre-activation of every gate."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_initx._types import Layer, Tensor
from keras_initx.recurrence._cells import WEIGHTS, gate_names, scaled

__all__ = ["Run", "States", "gate_stds", "in_time", "run", "start"]

# The states of a cell, as a recurrent layer's call takes them: a tensor or a list of tensors. For stacked
# cells, a list of such states.
States: TypeAlias = Tensor | Sequence[Any]


def gate_stds(
    cell: Layer,
    inputs: Tensor,
    factors: Sequence[float] | None = None,
    initial_state: States | None = None,
    mask: Tensor | None = None,
    go_backwards: bool = False,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measures the pre-activation of each gate of a cell over a sequence; the weights do not change.

    The pre-activation of gate g enters its activation: z_g = x W_g + h U_g + b_g. For the candidate of a GRU
    with `reset_after` it is x W + b + r * (h U + b_r).

    >>> cell = keras.layers.LSTMCell(3)
    >>> cell.build((None, 2))
    >>> means, stds = gate_stds(cell, np.zeros((4, 5, 2), "float32"))
    >>> means, stds  # nothing but the forget gate's bias of 1
    ((0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))

    Args:
        cell: A built cell of a class that `gate_names` knows. It runs without dropout.
        inputs: Float tensor or array (batch, time, ...).
        factors: For each gate, a factor to multiply its weights by. None for 1.
        initial_state: The state, or list of states, to begin with. None for the cell's own initial state,
            zeros.
        mask: Booleans (batch, time). At False the state is kept and nothing is measured. None for no mask.
        go_backwards: Whether to run from the last step to the first.

    Returns:
        Means and population standard deviations of the gates over batch, time and units, in kernel order,
        accumulated in float32 or better.

    Raises:
        ValueError: If the cell is of a class that is not known.
    """
    gate_names(cell)
    steps, keeps = in_time(inputs, mask, go_backwards)
    result = run(cell, steps, keeps, start(cell, len(inputs), initial_state), factors)
    return result.means, result.stds


def in_time(
    inputs: Tensor, mask: Tensor | None, go_backwards: bool
) -> tuple[list[Any], list[np.ndarray | None]]:
    """Returns the inputs of each step in the order of the loop, and the rows that count; None for all."""
    steps = list(ops.unstack(ops.convert_to_tensor(inputs), axis=1))
    keeps: list[np.ndarray | None] = [None] * len(steps)
    if mask is not None:
        columns = np.asarray(ops.convert_to_numpy(mask), bool).reshape(len(inputs), len(steps)).T
        keeps = [None if column.all() else column for column in columns]
    return (steps[::-1], keeps[::-1]) if go_backwards else (steps, keeps)


def start(cell: Layer, batch: int, initial: States | None) -> list[Tensor]:
    """Returns the states that the first step takes."""
    found = cell.get_initial_state(batch_size=batch) if initial is None else initial
    return [ops.convert_to_tensor(state, dtype=cell.compute_dtype) for state in keras.tree.flatten(found)]


@dataclasses.dataclass(frozen=True)
class Run:
    """The result of one loop over the sequence: moments of each gate, and the cell's output at each step."""

    means: tuple[float, ...]
    stds: tuple[float, ...]
    outputs: list[Tensor]


def run(
    cell: Layer,
    steps: Sequence[Tensor],
    keeps: Sequence[np.ndarray | None],
    state: list[Tensor],
    factors: Sequence[float] | None,
) -> Run:
    """Calls the cell on one step after another, with its weights multiplied by the factors."""
    gates = len(gate_names(cell))
    moments, weights, outputs = [], [], []
    with _no_gradients(), _recorded(cell) as seen, _scaled_weights(cell, factors, gates):
        for step, keep in zip(steps, keeps, strict=True):
            if keep is not None and not keep.any():
                # All rows are masked, for the next cell of a stack, too: any tensor may stand here.
                outputs.append(step)
                continue
            seen.clear()
            output, new = cell(step, state, training=False)
            outputs.append(output)
            moments.append(_moments(seen[:gates], keep))
            weights.append(1.0 if keep is None else keep.mean())
            state = new if keep is None else [_where(keep, *pair) for pair in zip(new, state, strict=True)]
        means, stds = _pooled(moments, weights, gates)
    return Run(means, stds, outputs)


def _where(keep: np.ndarray, new: Tensor, old: Tensor) -> Any:
    return ops.where(ops.convert_to_tensor(keep.reshape(-1, *(1,) * (len(new.shape) - 1))), new, old)


def _moments(values: list[Tensor], keep: np.ndarray | None) -> Tensor:
    """Mean and variance of each gate at one step, a tensor (2, gates)."""
    # They stay on the device until the loop is over: to read them would wait for each step.
    stacked = ops.stack(values)
    if keras.backend.standardize_dtype(stacked.dtype) in ("bfloat16", "float16"):
        stacked = ops.cast(stacked, "float32")
    axes, weight = tuple(range(1, len(stacked.shape))), 1.0
    if keep is not None:
        rows = keep.reshape(1, -1, *(1,) * (len(stacked.shape) - 2))
        stacked = ops.where(ops.convert_to_tensor(rows), stacked, 0.0)
        weight = ops.convert_to_tensor(rows / keep.mean(), stacked.dtype)
    mean = ops.mean(stacked * weight, axes, keepdims=True)
    variance = ops.mean(ops.square(stacked - mean) * weight, axes)
    return ops.stack([ops.reshape(mean, (-1,)), variance])


def _pooled(moments: list[Tensor], weights: list[float], gates: int) -> tuple[tuple[float, ...], ...]:
    """Means and stds over all steps, from variances within and between the steps."""
    # Steps with masked rows weigh less.
    if not moments:
        return (0.0,) * gates, (0.0,) * gates
    values = np.asarray(ops.convert_to_numpy(ops.stack(moments)), "float64")
    # An overflow gives an infinite result, which callers check; NumPy's warning would add nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(values[:, 0], axis=0, weights=weights)
        variance = np.average(values[:, 1] + (values[:, 0] - mean) ** 2, axis=0, weights=weights)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


@contextlib.contextmanager
def _recorded(cell: Layer) -> Iterator[list[Any]]:
    """Yields a list that receives each input of the cell's activations; dropout is off meanwhile."""
    seen: list[Tensor] = []

    def recorder(activation: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
        def record(value: Tensor) -> Tensor:
            seen.append(value)
            return value if activation is None else activation(value)

        return record

    swaps = dict.fromkeys(("dropout", "recurrent_dropout"), 0.0) | {
        name: recorder(getattr(cell, name))
        for name in ("activation", "recurrent_activation")
        if hasattr(cell, name)
    }
    before = {name: cell.__dict__[name] for name in swaps if name in cell.__dict__}
    try:
        for name, swap in swaps.items():
            # `object.__setattr__` passes by Keras' tracking of layer attributes.
            object.__setattr__(cell, name, swap)
        yield seen
    finally:
        for name in swaps:
            if name in before:
                object.__setattr__(cell, name, before[name])
            elif name in cell.__dict__:
                object.__delattr__(cell, name)


@contextlib.contextmanager
def _scaled_weights(cell: Layer, factors: Sequence[float] | None, gates: int) -> Iterator[None]:
    """Lets the cell see scaled weights while the block runs, without a write to its variables."""
    # A stateless scope gives other values to variables that are read within it, and forgets them at the end.
    found = {name: getattr(cell, name, None) for name in WEIGHTS}
    values = [
        (variable, scaled(name, variable.value, factors, gates))
        for name, variable in found.items()
        if factors is not None and variable is not None
    ]
    with keras.StatelessScope(values, initialize_variables=False):
        yield


def _no_gradients() -> contextlib.AbstractContextManager[None]:
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
