"""Whether what a layer shows is linear in its kernel, where code that is not Keras' own makes it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_initx.probe as probe
from keras_initx._types import Tensor
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._measurement import Measurement, affine, to_bias, to_kernel, to_output
from keras_initx.walk import KernelSite

__all__ = ["checker"]

# How the reason begins where what is shown is not what the layer computes.
# Of the largest entry. Factors are powers of two, so that only the sum with the shift is rounded.
_DIFFERS = "run "
_TOLERANCES = {"float16": 0.01, "bfloat16": 0.01}


def checker(
    aims: dict[KernelSite, Aim], notes: dict[KernelSite, str]
) -> Callable[[KernelSite, Callable[[], Any], Callable[[], Any]], bool]:
    """Returns the `check` of `probe.run`: it looks at each site once, and notes what is wrong."""
    shown: dict[KernelSite, bool] = {}

    def check(site: KernelSite, run: Callable[[], Any], call: Callable[[], Any]) -> bool:
        if site not in shown:
            fault = "" if notes[site] else _fault(site, aims[site], run, call)
            notes[site] = notes[site] or fault
            # What is not linear is still what a layer computes before its activation, if it is Keras' layer.
            shown[site] = not notes[site] or not (site.taught or fault.startswith(_DIFFERS))
        return shown[site]

    return check


def _fault(site: KernelSite, aim: Aim, run: Callable[[], Any], call: Callable[[], Any]) -> str:
    # In a scope no variable changes, and random generators draw the same in each.
    with keras.StatelessScope(initialize_variables=False):
        shown, output = run()
    with keras.StatelessScope(initialize_variables=False):
        plain = call()
    if not _close(keras.tree.flatten(output), keras.tree.flatten(plain)):
        how = "as it was registered" if site.taught else "with its activation apart"
        return f"{_DIFFERS}{how}, it does not return what its own `call` does"
    measured = Measurement(aim, site.bias is not None, len(shown[0].shape) if shown else 0)
    for tensor in shown:
        if aim.per_unit:
            measured.add(*probe.unit_moments(tensor, site.unit_axes[1]))  # type: ignore[index]
        else:
            measured.add(*probe.mean_and_variance(tensor))
    if not measured.settled:
        return ""
    # Beyond the size that the law is about to give it, where saturation shows, and to the other side, where
    # ReLU does; to different sizes for different units.
    sizes = np.ceil(np.log2(np.abs(measured.scale))) + 1 + np.arange(np.size(measured.scale)) % 2
    sizes = np.where(sizes == 0, 1, sizes)  # a sign alone passes through what divides by the kernel's size
    scale, shift = -np.exp2(sizes.reshape(np.shape(measured.scale))), float(site.bias is not None)
    values = [(site.kernel, affine(site.kernel.value, to_kernel(scale, site)))]
    if site.bias is not None:
        values.append((site.bias, affine(site.bias.value, to_bias(scale, site, measured.rank), shift)))
    with keras.StatelessScope(values, initialize_variables=False):
        scaled, _ = run()
    if _close(scaled, [affine(t, to_output(scale, site, measured.rank), shift) for t in shown]):
        return ""
    if site.taught:
        return "what is shown of it is not linear in its kernel and bias"
    return (
        f"{type(site.layer).__name__} has a `{site.overrides}` of its own, not linear in its kernel and bias"
    )


def _close(found: list[Tensor], wanted: list[Tensor]) -> bool:
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted, strict=True):
        limit = _TOLERANCES.get(keras.backend.standardize_dtype(other.dtype), 1e-3)
        got, want = (ops.convert_to_numpy(ops.cast(t, "float32")) for t in (one, other))
        # What is not finite is no fault of the layer's, and told in the pass.
        if got.shape != want.shape or np.abs(got - want).max() > limit * np.abs(want).max():
            return False
    return True
