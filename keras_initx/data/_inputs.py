"""Checks of data against the inputs of a model, and the errors for data that does not fit."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import flatten_layers, input_structure
from keras_initx._types import Arrays, Model
from keras_initx.checks import first_line

# For one input, a shape that the model runs on, with batch axis, and the size of the vocabulary or None.
Spec: TypeAlias = tuple[tuple[int | None, ...], int | None]
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
    """Returns the structure of KerasTensors that a model was built on; None for a subclassed model."""
    return input_structure(model)


def knows_inputs(model: Model) -> bool:
    """Tells whether a model's inputs are known, so that `take_pair` checks a batch against them.

    >>> import keras
    >>> knows_inputs(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]))
    True

    Args:
        model: A built Keras model.

    Returns:
        True for functional and Sequential models, False for subclassed ones.
    """
    return expected_inputs(model) is not None


def check_looked_up(model: Model, batch: Arrays, specs: Callable[[], Sequence[Spec]]) -> None:
    """Raises ValueError for integers outside the vocabulary of the embedding that they are looked up in.

    Some backends take such integers without an error.

    Args:
        model: The model.
        batch: The batch that `take_pair` returned.
        specs: Function that returns `keras_initx.walk.input_specs(model)`. It takes a trace, so it is called
            only if an integer is beyond the smallest vocabulary of all embeddings.
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
                f"feed. Received: {unknown[0]}. Raise the layer's `input_dim`, or map unknown integers "
                "to one of these."
            )


def check_size(model: Model, samples: int, rows: int) -> None:
    """Raises ValueError if a model was built for batches of one size, and there are more or fewer rows."""
    inputs = [tensor for tensor in tree.flatten(expected_inputs(model)) if tensor is not None]
    for size in {tensor.shape[0] for tensor in inputs} - {None, rows}:
        raise ValueError(
            f"`samples` must be {size}, the size of the batches that `{model.name}` was built for. Received: "
            f"samples={samples}, {rows} rows. Pass samples={size}, and at least as many rows."
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
    """Raises ValueError if an array has another shape, or another kind of dtype, than its input."""
    for tensor, leaf in zip(expected, leaves, strict=False):
        fits = len(tensor.shape) == leaf.ndim and all(
            size is None or size == got for size, got in zip(tensor.shape[1:], leaf.shape[1:], strict=True)
        )
        if not fits:
            raise misfit(tensor, leaf, f"`{tensor.name}` takes the shape {tensor.shape}")
        if (tensor.dtype == "string") != (leaf.dtype.kind in "OSUT"):
            raise misfit(tensor, leaf, f"`{tensor.name}` takes the dtype {tensor.dtype}")


def misfit(expected: Specs, data: object, why: str) -> ValueError:
    """Returns the error for data that does not have the structure of a model's inputs."""
    inputs = ", ".join(f"{tensor.name}{tensor.shape}" for tensor in tree.flatten(expected))
    return ValueError(
        f"`data` must have the structure of the model's inputs ({inputs}): {why}. "
        f"Received: {describe(data)}. Pass data that `model.predict` takes."
    )


def refusal(model: Model, batch: Arrays, error: Exception) -> ValueError:
    """Returns the error for a batch that a model of unknown inputs raised an error on.

    Args:
        model: The model.
        batch: The batch that the model was called on.
        error: The error that the model raised.

    Returns:
        An error to raise from `error`.
    """
    return ValueError(
        f"`data` must be a batch that `{model.name}` can be called on. Received: {describe(batch)}; it "
        f"raised {first_line(error, kind=True)} Pass data that `model.predict` takes."
    )


def describe(data: object) -> str:
    """Returns a short text on data of any form, for errors: type, keys, dtypes and shapes."""
    # Five arrays are enough to see a mistake; a list of thousands of numbers would fill the screen.
    described = [
        f"{getattr(leaf, 'dtype', type(leaf).__name__)}{tuple(leaf.shape) if hasattr(leaf, 'shape') else ''}"
        for leaf in itertools.islice(tree.flatten(data), 5)
    ]
    keys = f" with keys {sorted(map(str, data))}" if isinstance(data, dict) else ""
    return f"{type(data).__name__}{keys} of {', '.join(described) or 'nothing'}"
