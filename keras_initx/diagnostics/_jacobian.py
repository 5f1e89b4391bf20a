"""Singular values of the Jacobian of a model's outputs by its inputs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx.gradients import value_and_gradients
from keras_initx.walk import KernelSite

__all__ = ["Spectrum", "spectrum_of"]

_EXACT = 2**22  # entries of a Jacobian that is computed whole
_ROUNDS = 30  # of power iteration
_SETTLED = 1e-4  # relative change between two rounds that ends them
_PROBES = 32  # random directions for the mean square,
_TOGETHER = 8  # so many in one pass


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of the Jacobian of all outputs by all inputs, at one row of the data.

    Attributes:
        inputs: Numbers that enter.
        outputs: Numbers that leave.
        largest: The largest singular value.
        mean_square: Mean of the squared singular values, min(inputs, outputs) of them.
        singular_values: All of them, in descending order; None where the Jacobian is too large.
    """

    inputs: int
    outputs: int
    largest: float
    mean_square: float
    singular_values: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the spectrum as numbers."""
        return dataclasses.asdict(self)


def spectrum_of(model: Any, batch: Any, heads: Sequence[KernelSite], seed: int | None = None) -> Spectrum:
    """Computes the spectrum at the first row of a batch, in inference mode.

    Outputs are the pre-activations of the heads, or what the model returns where none is known.

    The Jacobian is computed whole, in one backward pass over as many copies of the row as there are outputs,
    if it has at most 2^22 entries. A larger one gives its largest singular value by power iteration, 30
    rounds at most, and the mean square by 32 random directions.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of its inputs, at least one of them of floats.
        heads: The kernels whose output is the model's.
        seed: Seed of the random directions.

    Raises:
        ValueError: If no input is of floats.
    """
    leaves = tree.flatten(batch)
    places = [place for place, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]
    if not places:
        raise ValueError(
            "`jacobian` needs an input of floats. Received: inputs of "
            f"{sorted({str(leaf.dtype) for leaf in leaves})}. Diagnose the part of the model that takes what "
            "its embedding returns, or leave the Jacobian out."
        )
    call = _function(model, batch, heads, leaves, places)
    row = np.concatenate([leaves[place][0].astype("float32").reshape(-1) for place in places])
    outputs = int(call(ops.convert_to_tensor(row[None])).shape[1])
    if row.size * outputs <= _EXACT:
        values = np.linalg.svd(_whole(call, row, outputs), compute_uv=False).astype(float)
        square = float(np.mean(values**2))
        return Spectrum(row.size, outputs, float(values[0]), square, tuple(values.tolist()))
    return _estimated(call, row, outputs, np.random.default_rng(seed))


def _function(
    model: Any, batch: Any, heads: Sequence[KernelSite], leaves: list[Any], places: list[int]
) -> Callable[[Any], Any]:
    """The model as a function from rows of all float inputs to rows of all outputs."""
    sizes = [math.prod(leaves[place].shape[1:]) for place in places]
    ends = np.cumsum(sizes).tolist()

    def call(rows: Any) -> Any:
        count = rows.shape[0]
        given = [ops.convert_to_tensor(np.repeat(leaf[:1], count, axis=0)) for leaf in leaves]
        for place, size, end in zip(places, sizes, ends, strict=True):
            given[place] = ops.reshape(rows[:, end - size : end], (count, *leaves[place].shape[1:]))
        shown: list[Any] = []

        def observe(_: KernelSite, output: Any) -> Any:
            shown.append(output)
            return output

        returned = probe.run(model, tree.pack_sequence_as(batch, given), heads, observe, gradients=True)
        outputs = shown or tree.flatten(returned)
        return ops.concatenate([ops.cast(ops.reshape(o, (count, -1)), "float32") for o in outputs], axis=1)

    return call


def _whole(call: Callable[[Any], Any], row: np.ndarray, outputs: int) -> np.ndarray:
    """One output of each copy of the row: its gradient is one row of the Jacobian."""
    eye = np.eye(outputs, dtype="float32")
    step = max(1, _EXACT // max(row.size, 1))
    parts = []
    for begin in range(0, outputs, step):
        chosen = eye[begin : begin + step]
        parts.append(_pulled(call, np.repeat(row[None], len(chosen), axis=0), chosen))
    return np.concatenate(parts)


def _pulled(call: Callable[[Any], Any], rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Each row's output directions times its Jacobian."""
    weights = ops.convert_to_tensor(directions)
    _, [found] = value_and_gradients(
        lambda values: ops.sum(call(values[0]) * weights), [ops.convert_to_tensor(rows)], nested=False
    )
    return ops.convert_to_numpy(found)


def _pushed(call: Callable[[Any], Any], row: np.ndarray, direction: np.ndarray, outputs: int) -> np.ndarray:
    """The Jacobian times an input direction: a gradient of a gradient, by what weighs the outputs."""
    point, along = ops.convert_to_tensor(row[None]), ops.convert_to_tensor(direction[None])

    def slope(weights: Any) -> Any:
        _, [pulled] = value_and_gradients(lambda values: ops.sum(call(values[0]) * weights[0]), [point])
        return ops.sum(pulled * along)

    zeros = ops.zeros((1, outputs), "float32")
    return ops.convert_to_numpy(value_and_gradients(slope, [zeros], nested=False)[1][0])[0]


def _estimated(call: Callable[[Any], Any], row: np.ndarray, outputs: int, rng: Any) -> Spectrum:
    squares: list[float] = []
    for _ in range(_PROBES // _TOGETHER):
        directions = rng.standard_normal((_TOGETHER, outputs)).astype("float32")
        pulled = _pulled(call, np.repeat(row[None], _TOGETHER, axis=0), directions)
        squares += np.sum(np.square(pulled), axis=1, dtype="float64").tolist()
    direction = rng.standard_normal(row.size).astype("float32")
    largest = before = 0.0
    for _ in range(_ROUNDS):
        direction /= max(float(np.linalg.norm(direction)), 1e-30)
        pushed = _pushed(call, row, direction, outputs)
        largest, before = float(np.linalg.norm(pushed)), largest
        if abs(largest - before) <= _SETTLED * largest:
            break
        direction = _pulled(call, row[None], pushed[None])[0]
    return Spectrum(row.size, outputs, largest, float(np.mean(squares)) / min(row.size, outputs))
