"""Turns the reading of a kernel into a row of the report."""

import math
from collections.abc import Mapping

import numpy as np
from keras import ops

from keras_initx._types import Activation, Tensor
from keras_initx.diagnostics._reading import Reading
from keras_initx.diagnostics._report import SignalRow
from keras_initx.diagnostics._statistics import signal
from keras_initx.gains import second_moments
from keras_initx.walk import KernelSite

__all__ = ["UNREACHED", "row_of"]

UNREACHED = "the data never reached it"


def row_of(
    site: KernelSite, reading: Reading, gradients: Mapping[int, Tensor], moves: Mapping[int, float]
) -> SignalRow:
    """Returns the row of one kernel.

    Args:
        site: The kernel.
        reading: The statistics of the kernel; an empty reading if the data never reached it.
        gradients: Gradients of the loss by the id of the variable.
        moves: Update ratios by the id of the variable.
    """
    mean, square, nonfinite = reading.signal or (None, None, 0.0)
    active_mean, active_square, active_nonfinite = reading.activation or (None, None, 0.0)
    weight_std, weight_square, weight_nonfinite = _of_weights(site.kernel.value)
    own_square = (reading.own or reading.signal or (None, None))[1]
    expected = _expected(site, reading)
    std = _spread(mean, square)
    # Behind a normalization, the activation sees another std than the kernel makes.
    slope = _slope(site.feeds, std) if not site.feeds_normalized else None
    fan_in = site.fans.fan_in if site.fans else None
    zero = weight_square == 0
    return SignalRow(
        path=site.path,
        role=site.role,
        units=int(np.prod([site.kernel.shape[axis] for axis in site.unit_axes[0]]))
        if site.unit_axes
        else None,
        expected_std=expected,
        preactivation_std=std,
        forward_gain=None if zero or not expected or own_square is None else math.sqrt(own_square) / expected,
        kernel_gain=None if zero or fan_in is None else _kernel_gain(site, fan_in * weight_square),
        backward_gain=None if zero else _backward(site, reading),
        signal_gradient=reading.gradient,
        chi=None if slope is None or fan_in is None or not std else fan_in * weight_square * slope,
        activation_mean=active_mean,
        activation_std=_spread(active_mean, active_square),
        activation_square=active_square,
        dead=reading.dead,
        saturated=reading.saturated,
        nonfinite=max(nonfinite, active_nonfinite, weight_nonfinite),
        correlation=reading.agreement,
        weight_std=weight_std,
        gradient_std=_gradient_std(gradients.get(id(site.kernel))),
        update_ratio=moves.get(id(site.kernel)),
        normalized=site.normalized,
        in_branch=site.branch is not None,
        note=_note(site, reading, zero),
    )


def _gradient_std(gradient: Tensor | None) -> float | None:
    if gradient is None:
        return None
    mean, square, _ = (float(number) for number in signal(gradient))
    return _spread(mean, square)


def _note(site: KernelSite, reading: Reading, zero: bool) -> str:
    if reading.signal is None:
        return site.obstacle or UNREACHED
    return "all zero" if zero else site.note


def _expected(site: KernelSite, reading: Reading) -> float | None:
    """Root mean square of the pre-activation under the law, on the measured input.

    Under the law E z^2 = gain^2 E x^2, with gain^2 = 1 / E f(z)^2 of the activation f before the kernel. The
    rows of an embedding have size 1, since nothing tells another size.
    """
    if site.role == "embedding" and site.fans is not None and not site.tied:
        return 1.0
    moments = _moments(site.activation)
    if reading.input_square is None or site.fans is None or site.note or moments is None or not moments[0]:
        return None
    return math.sqrt(reading.input_square / moments[0])


def _kernel_gain(site: KernelSite, variance: float) -> float | None:
    """The forward gain from the kernel alone, where `variance` is fan_in E w^2."""
    moments = _moments(site.activation)
    return None if site.note or moments is None else math.sqrt(variance * moments[0])


def _backward(site: KernelSite, reading: Reading) -> float | None:
    """The measured gain of the gradient through the kernel, times the slope of the activation before it.

    The slope is the root mean square sqrt(E f'(z)^2) for a normal z of unit size.
    """
    moments = _moments(site.activation)
    if not reading.gradient or reading.input_gradient is None or site.note or moments is None:
        return None
    return reading.input_gradient / reading.gradient * math.sqrt(moments[1])


def _moments(activation: Activation | None, stddev: float = 1.0) -> tuple[float, float] | None:
    try:
        return second_moments(activation, stddev)
    except ValueError:  # the activation is not element-wise, like softmax
        return None


def _slope(activation: Activation | None, std: float | None) -> float | None:
    """E f'(z)^2 for a normal z of this std."""
    if std is None or not 0 < std < math.inf:
        return None
    # Two digits of the std are enough here. `second_moments` remembers its integrals, and rounded arguments
    # repeat from kernel to kernel.
    moments = _moments(activation, float(f"{std:.1e}"))
    return None if moments is None else moments[1]


def _of_weights(value: Tensor) -> tuple[float, float, float]:
    """Standard deviation, second moment and non-finite fraction of a kernel's entries."""
    values = ops.convert_to_numpy(ops.cast(value, "float32")).reshape(-1)
    mean, square = float(values.mean()), float(np.dot(values, values)) / values.size
    if not math.isfinite(square):
        return math.nan, square, float(np.mean(~np.isfinite(values)))
    variance = square - mean * mean
    # The difference of two equal numbers has lost its digits. Entries that are all equal must give exactly 0,
    # since a verdict depends on it, and NumPy's mean of equal numbers is rounded.
    if variance < 1e-3 * square:
        variance = float(values.var()) if values.min() < values.max() else 0.0
    return math.sqrt(variance), square, 0.0


def _spread(mean: float | None, square: float | None) -> float | None:
    """The standard deviation of numbers with this mean and second moment."""
    if mean is None or square is None:
        return None
    return math.sqrt(max(square - mean * mean, 0.0)) if math.isfinite(square) else square
