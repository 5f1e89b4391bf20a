"""Input where a user has no data at hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import tree

from keras_initx._types import Model
from keras_initx.data._inputs import expected_inputs

__all__ = ["draw"]

_OPEN = 32  # how long an open axis is drawn


def draw(model: Model, samples: int, seed: int | None, drawn: Sequence[Any]) -> Any:
    """Draws inputs of the shapes and dtypes that the model was built on."""
    expected = expected_inputs(model)
    leaves = tree.flatten(expected)
    if expected is None or any(tensor.dtype == "string" for tensor in leaves):
        raise ValueError(
            "`data=None` needs a functional or Sequential model whose inputs are numbers. "
            f"Received: {type(model).__name__} `{model.name}`. Pass a batch of data."
        )
    rng = np.random.default_rng(seed)
    found = []
    for number, tensor in enumerate(leaves):
        given, limit = drawn[number] if number < len(drawn) else ((), None)
        given = given if len(given) == len(tensor.shape) else tensor.shape
        lengths = [own or length or _OPEN for own, length in zip(tensor.shape, given, strict=True)][1:]
        shape = (tensor.shape[0] or samples, *lengths)
        if limit is not None:
            found.append(rng.integers(0, limit, shape).astype("int32"))
        elif "float" in tensor.dtype:
            found.append(rng.standard_normal(shape).astype("float32"))
        else:
            found.append(np.ones(shape, tensor.dtype))
    return tree.pack_sequence_as(expected, found)
