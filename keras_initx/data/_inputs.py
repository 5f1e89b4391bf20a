"""What a model takes, and the errors for what it does not take."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import flatten_layers, input_structure
from keras_initx._types import Arrays, Model
from keras_initx.checks import first_line

# KerasTensors in the structure that a model takes its inputs in.
Specs: TypeAlias = keras.KerasTensor | Mapping[str, Any] | Sequence[Any]

__all__ = [
    "check_finite",
    "check_leaves",
    "check_looked_up",
    "check_size",
    "describe",
    "expected_inputs",
    "knows_inputs",
    "misfit",
    "refusal",
]


def expected_inputs(model: Model) -> Any:
    """The structure of KerasTensors that a functional or Sequential model was built on; None for others."""
    return input_structure(model)


def knows_inputs(model: Model) -> bool:
    """Tells whether `take_pair` has checked the batch against the model's inputs.

    >>> import keras
    >>> knows_inputs(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]))
    True

    Args:
        model: A built Keras model.

    Returns:
        True for functional and Sequential models, False for subclassed ones.
    """
    return expected_inputs(model) is not None


def check_looked_up(
    model: Model, batch: Arrays, specs: Callable[[], Sequence[tuple[Any, int | None]]]
) -> None:
    """Raises ValueError for integers outside the vocabulary they are looked up in: some backends take them.

    Args:
        model: The model.
        batch: What `take_pair` took.
        specs: Returns what `keras_initx.walk.input_specs` does; asked only where an integer is beyond the
            smallest vocabulary of all, since it takes a trace.
    """
    sizes = [layer.input_dim for layer in flatten_layers(model) if hasattr(layer, "input_dim")]
    least = min((size for size in sizes if isinstance(size, int)), default=None)
    integers = [leaf for leaf in tree.flatten(batch) if leaf.dtype.kind in "iu"]
    if least is None or all(leaf.min() >= 0 and leaf.max() < least for leaf in integers):
        return
    for leaf, (_, limit) in zip(tree.flatten(batch), specs(), strict=False):
        if limit is not None and (unknown := leaf[(leaf < 0) | (leaf >= limit)]).size:
            raise ValueError(
                f"`data` must hold integers from 0 to {limit - 1}, the vocabulary of the embedding that they "
                f"feed. Received: {unknown[0]}. Raise the layer's `input_dim`, or map what it does not know."
            )


def check_size(model: Model, samples: int, rows: int) -> None:
    inputs = [tensor for tensor in tree.flatten(expected_inputs(model)) if tensor is not None]
    for size in {tensor.shape[0] for tensor in inputs} - {None, rows}:
        raise ValueError(
            f"`samples` must be the size of a batch of `{model.name}`: pass samples={size}, and at least as "
            f"many rows. Received: samples={samples}, {rows} rows."
        )


def check_finite(name: str, structure: Arrays | None) -> None:
    """Raises ValueError if an array of floats holds NaN or Inf.

    Args:
        name: The argument that brought the arrays.
        structure: NumPy arrays, in any structure.
    """
    for leaf in tree.flatten(structure):
        if getattr(leaf, "dtype", np.dtype(int)).kind == "f" and not np.isfinite(leaf).all():
            bad = int(leaf.size - np.isfinite(leaf).sum())
            raise ValueError(
                f"`{name}` must be finite. Received: an array of shape {leaf.shape} with {bad} NaN or Inf "
                "among its values. Remove or replace those rows, for example with numpy.nan_to_num."
            )


def check_leaves(expected: list[Any], leaves: list[np.ndarray]) -> None:
    for tensor, leaf in zip(expected, leaves, strict=False):
        fits = len(tensor.shape) == leaf.ndim and all(
            size is None or size == got for size, got in zip(tensor.shape[1:], leaf.shape[1:], strict=True)
        )
        if not fits:
            raise misfit(tensor, leaf, f"`{tensor.name}` takes the shape {tensor.shape}")
        if (tensor.dtype == "string") != (leaf.dtype.kind in "OSUT"):
            raise misfit(tensor, leaf, f"`{tensor.name}` takes the dtype {tensor.dtype}")


def misfit(expected: Specs, data: object, why: str) -> ValueError:
    inputs = ", ".join(f"{tensor.name}{tensor.shape}" for tensor in tree.flatten(expected))
    return ValueError(
        f"`data` must have the structure of the model's inputs ({inputs}): {why}. "
        f"Received: {describe(data)}. Pass what `model.predict` takes."
    )


def refusal(model: Model, batch: Arrays, error: Exception) -> ValueError:
    """Returns the error for a batch that a model, whose inputs were not known, cannot be called on.

    Args:
        model: The model.
        batch: What it was called on.
        error: What it raised.

    Returns:
        An error to raise from `error`.
    """
    return ValueError(
        f"`data` must be what `{model.name}` can be called on. Received: {describe(batch)}; it raised "
        f"{first_line(error, kind=True)} Pass what `model.predict` takes."
    )


def describe(data: object) -> str:
    described = [
        f"{getattr(leaf, 'dtype', type(leaf).__name__)}{tuple(leaf.shape) if hasattr(leaf, 'shape') else ''}"
        for leaf in itertools.islice(tree.flatten(data), 5)
    ]
    keys = f" with keys {sorted(map(str, data))}" if isinstance(data, dict) else ""
    return f"{type(data).__name__}{keys} of {', '.join(described) or 'nothing'}"
