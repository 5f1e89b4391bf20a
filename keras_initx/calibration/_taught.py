"""The trial of layers with code of their own: is their pre-activation linear in kernel and bias?

`calibrate` multiplies an output now and the weights later. That is right only if the output is linear in the
weights. For Keras' own code this is known. A layer that a user registered, or a subclass that overrides a
part of a Keras layer, may do anything: normalize its kernel, add a constant, apply the activation inside. So
such a layer is tried once, before its first run, on the inputs of that run:

    1  run it as it is, through the hooks     -> shown: its pre-activations; output
       run its own `call`                     -> must equal `output`, or the hooks run another layer
    2  put other weights in: scale W, scale b + 1
       run it again                           -> scaled
    3  linear means                              scaled = scale * shown + 1     (+ 1 only with a bias)

The scale has to catch every way not to be linear. It is negative, so that a ReLU shows. It is larger than the
scale that the law is about to give, so that saturation shows. It differs between neighboring units, so that a
mix of units shows. It is never -1, since a layer that divides its kernel by the kernel's size would pass with
-1. And it is a power of two, so that a product is exact and only the sum with the shift is rounded.

All runs happen in a `keras.StatelessScope`: the new weights live in the scope, no variable changes, and
random generators draw the same numbers each time.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.calibration._aim import Aim, Statistic
from keras_initx.calibration._measurement import (
    Measurement,
    affine,
    moments,
    to_bias,
    to_kernel,
    to_output,
)
from keras_initx.walk import KernelSite

__all__ = ["checker"]

# Runs a layer through the hooks; returns the pre-activations of one kernel, and the layer's output.
Run: TypeAlias = Callable[[], tuple[list[Tensor], Tensor]]
# Runs the layer's own `call`, and returns its output.
Call: TypeAlias = Callable[[], Tensor]

# The reason begins with this word if the layer shows something other than it computes.
_DIFFERS = "run "
# Largest accepted difference, relative to the largest entry: a few roundings of the dtype.
_TOLERANCES = {"float16": 0.01, "bfloat16": 0.01}
_TOLERANCE_IN_FLOAT32 = 1e-3


def checker(
    aims: dict[KernelSite, Aim], notes: dict[KernelSite, str]
) -> Callable[[KernelSite, Run, Call], bool]:
    """Returns the `check` of `probe.run`. It tries each kernel once and adds a note if the trial fails.

    Args:
        aims: The aim of each kernel.
        notes: Why kernels are left as they are; the check adds notes.
    """
    shown: dict[KernelSite, bool] = {}

    def check(site: KernelSite, run: Run, call: Call) -> bool:
        if site not in shown:
            fault = "" if notes[site] else _fault(site, aims[site], run, call)
            notes[site] = notes[site] or fault
            # A subclass that is not linear still shows its output before the activation: it is measured and
            # left as it is. A user's layer, or one that computes something else, has nothing to show.
            shown[site] = not notes[site] or not (site.taught or fault.startswith(_DIFFERS))
        return shown[site]

    return check


def _fault(site: KernelSite, aim: Aim, run: Run, call: Call) -> str:
    """Returns why a kernel cannot be calibrated; empty if its pre-activation is linear."""
    with keras.StatelessScope(initialize_variables=False):
        shown, output = run()
    with keras.StatelessScope(initialize_variables=False):
        plain = call()
    if not _close(keras.tree.flatten(output), keras.tree.flatten(plain)):
        how = "as it was registered" if site.taught else "with its activation apart"
        return f"{_DIFFERS}{how}, it does not return what its own `call` does"
    measured = Measurement(aim, site.bias is not None, len(shown[0].shape) if shown else 0)
    for tensor in shown:
        measured.add(*moments(tensor, site, aim))
    if not measured.settled:  # the output is constant: the pass leaves the kernel as it is
        return ""
    scale, shift = _trial_scale(measured.scale), float(site.bias is not None)
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


def _trial_scale(scale: Statistic) -> Statistic:
    """Returns the scale of the trial, with the shape of the law's scale; the reasons are at the top."""
    exponents = np.ceil(np.log2(np.abs(scale))) + 1 + np.arange(np.size(scale)) % 2
    exponents = np.where(exponents == 0, 1, exponents)
    return -np.exp2(exponents.reshape(np.shape(scale)))


def _close(found: list[Tensor], wanted: list[Tensor]) -> bool:
    """Tells whether two lists of tensors are equal up to rounding."""
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted, strict=True):
        limit = _TOLERANCES.get(keras.backend.standardize_dtype(other.dtype), _TOLERANCE_IN_FLOAT32)
        got, want = (ops.convert_to_numpy(ops.cast(t, "float32")) for t in (one, other))
        # NaN compares as close. The pass itself then raises the error about values that are not finite.
        if got.shape != want.shape or np.abs(got - want).max() > limit * np.abs(want).max():
            return False
    return True
