"""Singular values of the Jacobian J of a model's outputs with respect to its inputs.

Gradients give two products with J, whatever the layers are:

    pulled:  u J    one backward pass, for a direction u of the outputs
    pushed:  J v    a backward pass through a backward pass, for a direction v of the inputs

From these the spectrum follows in one of two ways:

    small J   u runs over the unit vectors, so that each u J is a row of J; then an SVD
    large J   mean square: for a normal u, E |u J|^2 is the sum of the squared singular values
              largest:     power iteration on J^T J: v -> J v -> (J v) J, scaled to length 1

Several directions u fit into one backward pass: the model runs on several copies of the row, and each copy
has a direction of its own.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Batch, Model, Tensor
from keras_initx.gradients import value_and_gradients
from keras_initx.walk import KernelSite

__all__ = ["Spectrum", "spectrum_of"]

_EXACT = 2**22  # entries of a Jacobian that is computed whole: 16 MiB, and an SVD of seconds
_ROUNDS = 30  # of power iteration, at most
_SETTLED = 1e-4  # relative change between two rounds that ends the iteration
_PROBES = 32  # random directions for the mean square: a relative error of sqrt(2 / 32) at worst
_TOGETHER = 8  # directions in one pass: more need more memory, fewer need more passes

# Rows of all float inputs, side by side, to rows of all outputs.
_Function = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of the Jacobian of all outputs with respect to all inputs, at one row of the data.

    Attributes:
        inputs: Number of float inputs of the model for one row.
        outputs: Number of outputs of the model for one row.
        largest: The largest singular value.
        mean_square: Mean of the squares of all min(inputs, outputs) singular values.
        singular_values: All singular values, in descending order. None for a Jacobian of more than 2^22
            entries: `largest` and `mean_square` are then estimates.
    """

    inputs: int
    outputs: int
    largest: float
    mean_square: float
    singular_values: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as a dict."""
        return dataclasses.asdict(self)


def spectrum_of(model: Model, batch: Batch, heads: Sequence[KernelSite], seed: int | None = None) -> Spectrum:
    """Computes the spectrum at the first row of a batch, in inference mode.

    The outputs are the pre-activations of the heads. If no head is known, they are the outputs of the model.

    A Jacobian of at most 2^22 entries is computed whole: one backward pass over as many copies of the row as
    there are outputs. For a larger Jacobian, power iteration of at most 30 rounds gives the largest singular
    value, and 32 random directions give the mean square.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of the model's inputs, at least one of them of floats.
        heads: The kernels with an output that is an output of the model.
        seed: Seed of the random directions.

    Raises:
        ValueError: If no input is of floats.
    """
    leaves = tree.flatten(batch)
    places = [place for place, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]
    if not places:
        raise ValueError(
            "`jacobian` needs an input of floats. Received: inputs of "
            f"{sorted({str(leaf.dtype) for leaf in leaves})}. Diagnose the part of the model behind its "
            "embeddings, or leave `jacobian` out."
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
    model: Model, batch: Batch, heads: Sequence[KernelSite], leaves: list[np.ndarray], places: list[int]
) -> _Function:
    """Returns the model as a function of the float inputs. Integers keep the values of the first row."""
    sizes = [math.prod(leaves[place].shape[1:]) for place in places]
    ends = np.cumsum(sizes).tolist()

    def call(rows: Tensor) -> Tensor:
        count = rows.shape[0]
        given = [ops.convert_to_tensor(np.repeat(leaf[:1], count, axis=0)) for leaf in leaves]
        for place, size, end in zip(places, sizes, ends, strict=True):
            given[place] = ops.reshape(rows[:, end - size : end], (count, *leaves[place].shape[1:]))
        shown: list[Tensor] = []

        def observe(_: KernelSite, output: Tensor) -> Tensor:
            shown.append(output)
            return output

        returned = probe.run(model, tree.pack_sequence_as(batch, given), heads, observe, gradients=True)
        outputs = shown or tree.flatten(returned)
        return ops.concatenate([ops.cast(ops.reshape(o, (count, -1)), "float32") for o in outputs], axis=1)

    return call


def _whole(call: _Function, row: np.ndarray, outputs: int) -> np.ndarray:
    """Returns the Jacobian. Its rows are the gradients of single outputs, each at a copy of the data row."""
    eye = np.eye(outputs, dtype="float32")
    # Copies of a large row take turns: all copies of one pass hold no more numbers than the largest Jacobian.
    step = max(1, _EXACT // max(row.size, 1))
    parts = []
    for begin in range(0, outputs, step):
        chosen = eye[begin : begin + step]
        parts.append(_pulled(call, np.repeat(row[None], len(chosen), axis=0), chosen))
    return np.concatenate(parts)


def _pulled(call: _Function, rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns u J for each row and its direction u: the gradient of the outputs' product with u."""
    weights = ops.convert_to_tensor(directions)
    _, [found] = value_and_gradients(
        lambda values: ops.sum(call(values[0]) * weights), [ops.convert_to_tensor(rows)], nested=False
    )
    return ops.convert_to_numpy(found)


def _pushed(call: _Function, row: np.ndarray, direction: np.ndarray, outputs: int) -> np.ndarray:
    """Returns J v for a direction v of the inputs.

    u J is linear in u, so the gradient of (u J) . v with respect to u is J v, at any u; zeros will do.
    Forward mode would be cheaper, but not all backends have it for all layers.
    """
    point, along = ops.convert_to_tensor(row[None]), ops.convert_to_tensor(direction[None])

    def slope(weights: Sequence[Tensor]) -> Tensor:
        _, [pulled] = value_and_gradients(lambda values: ops.sum(call(values[0]) * weights[0]), [point])
        return ops.sum(pulled * along)

    zeros = ops.zeros((1, outputs), "float32")
    return ops.convert_to_numpy(value_and_gradients(slope, [zeros], nested=False)[1][0])[0]


def _estimated(call: _Function, row: np.ndarray, outputs: int, rng: np.random.Generator) -> Spectrum:
    """Estimates the spectrum of a large Jacobian from products with it."""
    squares: list[float] = []
    for _ in range(_PROBES // _TOGETHER):
        directions = rng.standard_normal((_TOGETHER, outputs)).astype("float32")
        pulled = _pulled(call, np.repeat(row[None], _TOGETHER, axis=0), directions)
        squares += np.sum(np.square(pulled), axis=1, dtype="float64").tolist()
    direction = rng.standard_normal(row.size).astype("float32")
    largest = before = 0.0
    for _ in range(_ROUNDS):
        direction /= max(float(np.linalg.norm(direction)), 1e-30)  # a Jacobian of zeros gives no direction
        pushed = _pushed(call, row, direction, outputs)
        largest, before = float(np.linalg.norm(pushed)), largest
        if abs(largest - before) <= _SETTLED * largest:
            break
        direction = _pulled(call, row[None], pushed[None])[0]
    return Spectrum(row.size, outputs, largest, float(np.mean(squares)) / min(row.size, outputs))
