"""Readings of gates, which the pass with gradients does not show."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras_initx.probe as probe
from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Batch, Layer, Model, Tensor
from keras_initx.diagnostics._reading import Reading
from keras_initx.recurrence import fit_cells, obstacle
from keras_initx.walk import KernelSite

__all__ = ["gate_readings"]


def gate_readings(model: Model, batch: Batch, sites: Sequence[KernelSite]) -> dict[KernelSite, Reading]:
    """Reads the gates of recurrent cells, in one more pass if the model has such cells.

    Backends fuse the loop over time, so that no hook sees its values. Here the cells run step by step on the
    inputs that reach their layers.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of the model's inputs.
        sites: All kernels of the model.

    Returns:
        A reading for each kernel of a known cell. All kernels of a cell have the same reading.
    """
    owners = {id(layer): layer for layer in flatten_layers(model) if hasattr(layer, "cell")}
    known = [layer for layer in owners.values() if not obstacle(layer)]
    if not known:
        return {}
    found: dict[KernelSite, Reading] = {}

    def reader(owner: Layer) -> Callable[..., None]:
        def read(
            inputs: Tensor,
            initial_state: Sequence[Any] | None = None,
            mask: Tensor | None = None,
            training: bool | None = None,
        ) -> None:
            del training
            # A law that leaves each gate as it is: one loop, and nothing to scale.
            cells = fit_cells(owner, inputs, lambda *_: (1.0, 0.0), initial_state=initial_state, mask=mask)
            for cell, fit in cells:
                square = sum(std**2 for std in fit.std_before) / len(fit.std_before)
                reading = Reading(signal=(0.0, square, 0.0 if math.isfinite(square) else 1.0))
                found.update({site: reading for site in sites if site.layer is cell})

        return read

    probe.run(model, batch, [], lambda _, output: output, before=[(layer, reader(layer)) for layer in known])
    return found
