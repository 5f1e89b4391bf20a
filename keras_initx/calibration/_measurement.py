"""The moments of one kernel's pre-activation, and the scale and shift that a law derives from them.

A pre-activation is linear in its kernel W and its bias b. One pair of numbers therefore does the same to the
output and to the weights:

    pre-activation    y = W x + b              its mean and std over the data are measured
    law               scale, shift = rescale(mean, std)
    output            scale y + shift          flows on to the next layers
    weights           scale W, scale b + shift

A law per unit has one mean, std, scale and shift for each unit. `to_output`, `to_kernel` and `to_bias` bring
such a list into the shape of each of the three tensors.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

import keras_initx.probe as probe
from keras_initx._types import Tensor
from keras_initx.calibration._aim import Aim, Statistic, spreads
from keras_initx.walk import KernelSite

__all__ = [
    "Measurement",
    "affine",
    "check_scale",
    "moments",
    "to_bias",
    "to_kernel",
    "to_output",
    "written",
]

# The entries of a kernel are looked through only after a larger scale, or in float16. A smaller scale keeps
# them in range, since it was computed from finite outputs of the same kernel.
_LARGE = 1e15


def moments(tensor: Tensor, site: KernelSite, aim: Aim) -> tuple[Statistic, Statistic]:
    """Returns the mean and the variance of a pre-activation: of each unit, or over all values, as a law asks.

    Args:
        tensor: The pre-activation.
        site: Its kernel.
        aim: The aim of the kernel.
    """
    if aim.per_unit:
        return probe.unit_moments(tensor, _axes(site)[1])
    return probe.mean_and_variance(tensor)


class Measurement:
    """Moments of a pre-activation over all calls in one pass, with the scale and shift of its kernel.

    Moments, scale and shift are floats. Under a law per unit they are arrays with one entry per unit.

    Args:
        aim: The aim of the kernel.
        movable: Whether the layer has a bias that can hold a shift.
        rank: Number of axes of the output.
        start: Scale and shift from an earlier pass; None to take them from the first call that varies.
        near: Relative distance from the law up to which the kernel is left as it is.
    """

    def __init__(
        self,
        aim: Aim,
        movable: bool,
        rank: int,
        start: tuple[Statistic, Statistic] | None = None,
        near: float = 0.0,
    ) -> None:
        self.aim, self.movable, self.rank, self.near = aim, movable, rank, near
        self.scale: Statistic
        self.shift: Statistic
        self.scale, self.shift = start or (1.0, 0.0)
        self.settled = start is not None
        self.unmoved = False  # whether the law has a shift that the layer cannot hold
        self.calls = 0
        self.mean: Statistic = 0.0
        self.square: Statistic = 0.0  # the mean of the squares: it pools over calls, a variance does not

    def add(self, mean: Statistic, variance: Statistic) -> None:
        """Adds the moments of one call, and fixes the scale and the shift if they are not fixed yet."""
        self.mean = (self.mean * self.calls + mean) / (self.calls + 1)
        self.square = (self.square * self.calls + variance + mean * mean) / (self.calls + 1)
        self.calls += 1
        if not self.settled:
            scale, shift, varies = self.solve()
            if varies:
                self.settled = True
                if not self.near or self.distance() > self.near:
                    self.scale, self.shift = scale, shift

    def solve(self) -> tuple[Statistic, Statistic, bool]:
        """Returns the law's scale and shift for all calls so far, and whether any unit varies."""
        std, varies = self._std(), self._varies()
        if not np.any(varies):
            return self.scale, self.shift, False
        if self.aim.per_unit:
            # A law may divide by each std, or pool all of them. So a unit that does not vary gets the root
            # mean square of the other stds, which changes neither.
            known = np.asarray(std)[varies]
            std = np.where(varies, std, math.sqrt(np.mean(known**2)))
        scale, shift = self.aim.rescale(self.mean, std)
        if self.aim.per_unit:  # a unit that does not vary is left as it is
            scale, shift = np.where(varies, scale, 1.0), np.where(varies, shift, 0.0)
        if not self.movable:
            self.unmoved = bool(np.any(shift))
            shift = 0.0 * shift
        return scale, shift, True

    def _std(self) -> Statistic:
        std = np.sqrt(np.maximum(self.square - np.square(self.mean), 0.0))
        return std if self.aim.per_unit else float(std)

    def _varies(self) -> np.ndarray:
        """Returns whether each unit varies, or one bool over all units."""
        return np.asarray(spreads(self.mean, self._std())) | self.aim.constants

    def error(self) -> float:
        """Returns the relative error of the scale against the law's scale for all calls."""
        return float(np.max(np.abs(self.scale / self.solve()[0] - 1)))

    def distance(self) -> float:
        """Returns the relative distance of the moments from the law: the largest of scale and shift."""
        scale, shift, _ = self.solve()
        size = math.sqrt(float(np.mean(self.square))) or 1.0
        return float(max(np.max(np.abs(scale - 1)), np.max(np.abs(shift)) / size))

    @property
    def changes(self) -> bool:
        """Whether the scale and the shift change anything."""
        return bool(np.any(self.scale != 1) or np.any(self.shift != 0))

    def again(self, change: bool) -> "Measurement":
        """Returns the measurement that the next pass starts with.

        Args:
            change: Whether to move the scale half way to the law's scale for all calls. If False, the scale
                stays. The later calls of a layer depend on its scale, and the whole way can overshoot for
                ever.
        """
        start = self.scale, self.shift
        if change:
            scale, shift, _ = self.solve()
            # Half way in logarithms is the geometric mean; a scale may be negative.
            start = np.sign(scale) * np.sqrt(np.abs(self.scale * scale)), (self.shift + shift) / 2
        return Measurement(self.aim, self.movable, self.rank, start)

    @property
    def idle(self) -> int:
        """Number of units that do not vary."""
        return int(np.sum(~self._varies())) if self.aim.per_unit else 0

    @property
    def std_before(self) -> float:
        """Standard deviation over all units, as it was measured."""
        return _spread(self.mean, self.square)

    @property
    def std_after(self) -> float:
        """Standard deviation over all units after scale and shift."""
        # E[(s y + t)^2] = s^2 E[y^2] + 2 s t E[y] + t^2
        mean = self.scale * self.mean + self.shift
        square = self.scale**2 * self.square + 2 * self.scale * self.shift * self.mean + self.shift**2
        return _spread(mean, square)

    @property
    def factor(self) -> float:
        """The geometric mean of the scale."""
        return float(np.exp(np.mean(np.log(np.abs(self.scale) + 1e-300))))


def _spread(mean: Statistic, square: Statistic) -> float:
    return math.sqrt(max(float(np.mean(square)) - float(np.mean(mean)) ** 2, 0.0))


def _axes(site: KernelSite) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the axes of the kernel and of the output that index the units."""
    assert site.unit_axes is not None, "laws per unit refuse a kernel with unknown units"
    return site.unit_axes


def to_output(values: Statistic, site: KernelSite, rank: int) -> Statistic:
    """Shapes one value per unit so that it broadcasts against the layer's output; floats stay as they are."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    kernel_axes, output_axes = _axes(site)
    # Values follow the order of the kernel's axes. The output may have the same axes in another order, as
    # the heads of an einsum layer do.
    places = [axis % rank for axis in output_axes]
    sizes = [values.size] if len(places) == 1 else [site.kernel.shape[axis] for axis in kernel_axes]
    ordered = values.reshape(sizes).transpose(np.argsort(places))
    shape = [1] * rank
    for place, size in zip(sorted(places), ordered.shape, strict=True):
        shape[place] = size
    return ordered.reshape(shape)


def to_kernel(values: Statistic, site: KernelSite) -> Statistic:
    """Shapes one value per unit so that it broadcasts against the kernel; floats stay as they are."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    shape = [1] * len(site.kernel.shape)
    for axis in _axes(site)[0]:
        shape[axis] = site.kernel.shape[axis]
    return values.reshape(shape)


def to_bias(values: Statistic, site: KernelSite, rank: int) -> Statistic:
    """Shapes one value per unit like the bias of a layer with output of this rank; floats stay as they are.

    Raises:
        ValueError: If no broadcast brings the values to the bias.
    """
    bias = tuple(site.bias.shape)
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    if bias == values.shape:
        return values
    # A bias is added to the last axes of the output, so it has the shape of the values there.
    spread = np.asarray(to_output(values, site, rank))
    tail = spread.shape[rank - len(bias) :]
    if spread.size == math.prod(tail) and all(size in (1, own) for own, size in zip(bias, tail, strict=True)):
        return spread.reshape(tail)
    raise ValueError(
        f"`model` must have biases that fit the units of their kernels. Received: `{site.path}` with "
        f"{values.size} units and a bias of shape {bias}. Exclude the kernel with `exclude`."
    )


def affine(tensor: Tensor, scale: Statistic, shift: Statistic = 0.0) -> Tensor:
    """Returns scale * tensor + shift in the dtype of the tensor, computed in at least float32.

    A scale can lie outside the range of half precision even if its product with the tensor does not.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    wide = "float32" if dtype in ("bfloat16", "float16") else dtype
    if dtype != wide:
        tensor = ops.cast(tensor, wide)
    # Every eager operation costs time per kernel: floats go in as they are, and zero shifts not at all.
    tensor = tensor * (scale if isinstance(scale, float) else ops.cast(scale, wide))
    if not isinstance(shift, float) or shift:
        tensor = tensor + (shift if isinstance(shift, float) else ops.cast(shift, wide))
    return ops.cast(tensor, dtype) if dtype != wide else tensor


def check_scale(path: str, aim: Aim, dtype: str, *values: Statistic) -> None:
    """Raises ValueError unless the scale and the shift of a law are in the range of the computation.

    Args:
        path: Path of the kernel.
        aim: Its aim.
        dtype: Dtype of the kernel.
        values: The scale and the shift.
    """
    most = np.finfo("float64" if dtype == "float64" else "float32").max
    # NaN fails the comparison, too.
    if not all(np.all(np.abs(value) <= most) for value in values):
        raise _out_of_range(path, aim, dtype, values)


def written(tensor: Tensor, path: str, aim: Aim, scale: Statistic) -> Tensor:
    """Returns the new value of a variable, or raises ValueError if it left the range of its dtype.

    Args:
        tensor: The new value.
        path: Path of the kernel.
        aim: Its aim.
        scale: The scale that made the value.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    extreme = dtype == "float16" or not np.max(np.abs(scale)) < _LARGE
    if extreme and not bool(ops.all(ops.isfinite(tensor))):
        raise _out_of_range(path, aim, dtype, (scale,))
    return tensor


def _out_of_range(path: str, aim: Aim, dtype: str, values: Sequence[Statistic]) -> ValueError:
    sizes = " and shift ".join(f"{np.max(np.abs(value)):.3g}" for value in values)
    return ValueError(
        f"`initializer` must give weights that {dtype} can hold. Received: {aim.name}, which gives "
        f"`{path}` the scale {sizes}. Change the law, scale `data`, or use float32 in place of half "
        "precision; the weights are unchanged."
    )
