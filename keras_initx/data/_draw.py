"""Draws a batch of inputs for `data=None`."""

from collections.abc import Sequence

import numpy as np
from keras import tree

from keras_initx._types import Arrays, Model
from keras_initx.data._inputs import Spec, expected_inputs

__all__ = ["draw"]

_OPEN = 32  # length of an axis that the model leaves open


def draw(model: Model, samples: int, seed: int | None, drawn: Sequence[Spec]) -> Arrays:
    """Draws inputs in the shapes and dtypes that a functional or Sequential model was built on.

    Args:
        model: The model.
        samples: Number of rows, unless the model fixes the size of its batches.
        seed: Seed of the draw.
        drawn: For each input, the lengths of its open axes and the size of its vocabulary, if known.

    Returns:
        Unit Gaussian floats; integers below the size of the vocabulary; ones for other integers and masks.

    Raises:
        ValueError: If the model's inputs are not known, or are strings.
    """
    expected = expected_inputs(model)
    leaves = tree.flatten(expected)
    if expected is None or any(tensor.dtype == "string" for tensor in leaves):
        raise ValueError(
            "`data` must be given unless the model is functional or Sequential and takes numbers. Received: "
            f"data=None for {type(model).__name__} `{model.name}`. Pass a batch of data."
        )
    rng = np.random.default_rng(seed)
    found = []
    for number, tensor in enumerate(leaves):
        given, limit = drawn[number] if number < len(drawn) else ((), None)
        # The trace may have seen another structure of inputs than the model was built on.
        given = given if len(given) == len(tensor.shape) else tensor.shape
        lengths = [own or length or _OPEN for own, length in zip(tensor.shape, given, strict=True)][1:]
        shape = (tensor.shape[0] or samples, *lengths)
        if limit is not None:
            found.append(rng.integers(0, limit, shape).astype("int32"))
        elif "float" in tensor.dtype:
            found.append(rng.standard_normal(shape).astype("float32"))
        else:
            # An integer of unknown range may be an index or a mask, and 1 is valid for both.
            found.append(np.ones(shape, tensor.dtype))
    return tree.pack_sequence_as(expected, found)
