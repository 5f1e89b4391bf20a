"""The inputs that a model can be run on without data: of the shapes that it was built on."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._keras_internals import build_shapes, input_structure
from keras_initx._types import Model

__all__ = ["candidate_inputs", "tensors_in"]

_BATCH = 2
# Lengths for axes that the model leaves open, tried in turn: a model may need a multiple of a patch size, or
# the samples of a sound.
_FREE_SIZES = (32, 128, 8, 256, 2048)


def candidate_inputs(model: Model) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments to run the model on: from its inputs, or from the shapes that a subclass was built with."""
    specs = input_structure(model)
    if specs is not None:
        free = any(size is None for spec in tensors_in(specs) for size in spec.shape[1:])
        for size in _FREE_SIZES if free else _FREE_SIZES[:1]:
            yield (tree.map_structure(lambda s, size=size: _fixed(s.shape, s.dtype, size), specs),), {}
        return
    shapes = build_shapes(model)
    if not shapes:
        return
    # Keras keeps the shapes that a subclass was built with, but not the dtypes: indices need integers.
    for size, dtype in itertools.product(_FREE_SIZES, (keras.config.floatx(), "int32")):
        tensors = {name: _shaped(shape, dtype, size) for name, shape in shapes.items()}
        if len(tensors) == 1:
            yield tuple(tensors.values()), {}
        else:
            yield (), {name.removesuffix("_shape"): tensor for name, tensor in tensors.items()}


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple | list) and all(size is None or isinstance(size, int) for size in shape)


def _shaped(shapes: Sequence[Any] | dict[str, Any], dtype: str, size: int) -> Any:
    """Tensors of the shapes that a model was built with, in the structure of the shapes."""
    if isinstance(shapes, dict):
        return {name: _shaped(shape, dtype, size) for name, shape in shapes.items()}
    return _fixed(shapes, dtype, size) if _is_shape(shapes) else [_shaped(s, dtype, size) for s in shapes]


def _fixed(shape: Sequence[Any], dtype: str, size: int) -> keras.KerasTensor:
    return keras.KerasTensor((_BATCH, *(size if n is None else n for n in shape[1:])), dtype)


def tensors_in(structure: object) -> list[Any]:
    """Returns the KerasTensors in a structure, in an order that no backend changes."""
    # Not `tree.flatten`, which takes a fifth of the whole trace on torch.
    if isinstance(structure, keras.KerasTensor):
        return [structure]
    if isinstance(structure, dict):
        structure = [structure[key] for key in sorted(structure, key=str)]
    parts = structure if isinstance(structure, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
