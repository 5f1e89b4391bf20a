"""The coordinates of a model on a batch: its pre-activations, the logits of its attention, its outputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._keras_internals import SEED_STATE
from keras_initx._types import Batch, Tensor
from keras_initx.scaling._models import Sized
from keras_initx.scaling._rows import OUTPUTS
from keras_initx.walk import KernelSite

__all__ = ["Shown", "minus", "reader", "sizes"]

Shown: TypeAlias = Mapping[str, Sequence[np.ndarray]]  # by path, an array for each call of the layer


def reader(sized: Sized, batch: Batch) -> Callable[[], Shown]:
    """Returns a function that reads the coordinates of a model, which runs as in training.

    Dropout has the same masks in each reading: another mask is not a change of the layer.

    Args:
        sized: The model.
        batch: Its inputs.
    """
    model = sized.model
    inputs = tree.map_structure(ops.convert_to_tensor, batch)
    seeds = [v for v in model.non_trainable_variables if v.path.endswith(SEED_STATE)]
    first = [ops.copy(seed.value) for seed in seeds]

    def read() -> Shown:
        now = [ops.copy(seed.value) for seed in seeds]
        for seed, value in zip(seeds, first, strict=True):
            seed.assign(value)
        try:
            return _read(sized, inputs)
        finally:
            for seed, value in zip(seeds, now, strict=True):
                seed.assign(value)

    return read


def _read(sized: Sized, inputs: Batch) -> Shown:
    shown: dict[KernelSite, list[np.ndarray]] = {}

    def observe(site: KernelSite, output: Tensor) -> Tensor:
        shown.setdefault(site, []).append(_to_numpy(output))
        return output

    names = dict(zip(sized.sites, sized.paths, strict=True))
    measured = [site for site in sized.sites if not site.obstacle]
    outputs = probe.run(sized.model, inputs, measured, observe, training=True)
    found = {names[site]: arrays for site, arrays in shown.items()}
    found |= {one.path: one.logits(shown) for one in sized.attention}
    # The trace takes the states before a tied embedding for the outputs: no kernel of its own follows.
    if any(site.tied for site in sized.sites) or not any(site.is_output for site in shown):
        found[OUTPUTS] = [_to_numpy(leaf) for leaf in tree.flatten(outputs)]
    return found


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor), "float32")


def minus(found: Shown, start: Shown) -> Shown:
    """Returns the change of each coordinate."""
    return {path: list(map(np.subtract, arrays, start[path])) for path, arrays in found.items()}


def sizes(shown: Shown) -> dict[str, float]:
    """Returns the mean absolute value by path, over all calls.

    >>> sizes({"dense": [np.array([-1.0, 3.0])]})
    {'dense': 2.0}
    """
    return {
        path: float(np.mean([np.abs(array).mean(dtype="float64") for array in arrays]))
        for path, arrays in shown.items()
    }
