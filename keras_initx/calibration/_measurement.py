"""What a law makes of one site's pre-activations: their moments over all calls, and a scale and a shift."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.calibration._aim import Aim, Statistic, spreads
from keras_initx.walk import KernelSite

__all__ = ["Measurement", "affine", "check_scale", "to_bias", "to_kernel", "to_output", "written"]

# A kernel is looked through after a larger scale alone: others keep in range what was measured in it.
_LARGE = 1e15


class Measurement:
    """Moments of a site's pre-activation over its calls in one pass, and what becomes of it.

    Moments, scale and shift are floats, or arrays of one entry per unit where the law asks for them.

    Args:
        aim: The aim of the kernel.
        movable: Whether the layer has a bias that can hold a shift.
        rank: Axes of the output.
        start: Scale and shift from an earlier pass; None to take them from the first call that varies.
        near: How far, relatively, what is measured may be from the law and still be left as it is.
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
        self.scale: Any
        self.shift: Any
        self.scale, self.shift = start or (1.0, 0.0)
        self.settled = start is not None
        self.unmoved = False  # whether the law has a shift that the layer cannot hold
        self.calls = 0
        self.mean: Any = 0.0
        self.square: Any = 0.0

    def add(self, mean: Statistic, variance: Statistic) -> None:
        """Adds the moments of one call, and settles on a scale if there is none yet."""
        self.mean = (self.mean * self.calls + mean) / (self.calls + 1)
        self.square = (self.square * self.calls + variance + mean * mean) / (self.calls + 1)
        self.calls += 1
        if not self.settled:
            scale, shift, varies = self.solve()
            if varies:
                self.settled = True
                if not self.near or self.distance() > self.near:
                    self.scale, self.shift = scale, shift

    def solve(self) -> tuple[Any, Any, bool]:
        """Returns the scale and the shift of the law for all calls so far, and whether anything varies."""
        std, varies = self._std(), self._varies()
        if not np.any(varies):
            return self.scale, self.shift, False
        # What stands for a unit that does not vary is not used, but where a law pools all of them.
        filled = np.where(varies, std, math.sqrt(np.mean(std[varies] ** 2))) if self.aim.per_unit else std
        scale, shift = self.aim.rescale(self.mean, filled)
        if self.aim.per_unit:  # a unit that does not vary is left alone
            scale, shift = np.where(varies, scale, 1.0), np.where(varies, shift, 0.0)
        if not self.movable:
            self.unmoved = bool(np.any(shift))
            shift = 0.0 * shift
        return scale, shift, True

    def _std(self) -> Any:
        std = np.sqrt(np.maximum(self.square - np.square(self.mean), 0.0))
        return std if self.aim.per_unit else float(std)

    def _varies(self) -> Any:
        return np.asarray(spreads(self.mean, self._std())) | self.aim.constants

    def error(self) -> float:
        """Returns how far the scale is from the law's for all calls, relatively."""
        return float(np.max(np.abs(self.scale / self.solve()[0] - 1)))

    def distance(self) -> float:
        """Returns how far what was measured is from the law, relatively: the largest of scale and shift."""
        scale, shift, _ = self.solve()
        size = math.sqrt(float(np.mean(self.square))) or 1.0
        return float(max(np.max(np.abs(scale - 1)), np.max(np.abs(shift)) / size))

    @property
    def changes(self) -> bool:
        """Whether its scale and its shift change anything."""
        return bool(np.any(self.scale != 1) or np.any(self.shift != 0))

    def again(self, change: bool) -> "Measurement":
        """Returns what the next pass starts with: the same scale, or one half way to the law's for all calls.

        A layer's later calls depend on its scale, and the whole way can overshoot for ever.
        """
        start = self.scale, self.shift
        if change:
            scale, shift, _ = self.solve()
            start = np.sign(scale) * np.sqrt(np.abs(self.scale * scale)), (self.shift + shift) / 2
        return Measurement(self.aim, self.movable, self.rank, start)

    @property
    def idle(self) -> int:
        """Units that do not vary."""
        return int(np.sum(~self._varies())) if self.aim.per_unit else 0

    @property
    def std_before(self) -> float:
        """Standard deviation over everything."""
        return _spread(self.mean, self.square)

    @property
    def std_after(self) -> float:
        """Standard deviation over everything of what was scaled and shifted."""
        mean = self.scale * self.mean + self.shift
        square = self.scale**2 * self.square + 2 * self.scale * self.shift * self.mean + self.shift**2
        return _spread(mean, square)

    @property
    def factor(self) -> float:
        """The geometric mean of the scale."""
        return float(np.exp(np.mean(np.log(np.abs(self.scale) + 1e-300))))


def _spread(mean: Statistic, square: Statistic) -> float:
    return math.sqrt(max(float(np.mean(square)) - float(np.mean(mean)) ** 2, 0.0))


def to_output(values: Statistic, site: KernelSite, rank: int) -> Any:
    """Shapes one value per unit so that it broadcasts against the layer's output; floats stay as they are."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    kernel_axes, output_axes = site.unit_axes  # type: ignore[misc]
    places = [axis % rank for axis in output_axes]
    sizes = [values.size] if len(places) == 1 else [site.kernel.shape[axis] for axis in kernel_axes]
    ordered = values.reshape(sizes).transpose(np.argsort(places))
    shape = [1] * rank
    for place, size in zip(sorted(places), ordered.shape, strict=True):
        shape[place] = size
    return ordered.reshape(shape)


def to_kernel(values: Statistic, site: KernelSite) -> Any:
    """Shapes one value per unit so that it broadcasts against the kernel; floats stay as they are."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    shape = [1] * len(site.kernel.shape)
    for axis in site.unit_axes[0]:  # type: ignore[index]
        shape[axis] = site.kernel.shape[axis]
    return values.reshape(shape)


def to_bias(values: Statistic, site: KernelSite, rank: int) -> Any:
    """Shapes one value per unit like the bias of a layer with output of this rank; None if it cannot be."""
    bias = tuple(site.bias.shape)
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    if bias == values.shape:
        return values
    spread = to_output(values, site, rank)
    tail = spread.shape[rank - len(bias) :]
    return spread.reshape(tail) if spread.size == math.prod(tail) and _covers(bias, tail) else None


def _covers(bias: tuple[int, ...], tail: tuple[int, ...]) -> bool:
    return all(size in (1, own) for own, size in zip(bias, tail, strict=True))


def affine(tensor: Tensor, scale: Statistic, shift: Statistic = 0.0) -> Tensor:
    """Returns scale * tensor + shift in its dtype, computed in at least float32.

    A scale can lie outside the range of half precision.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    wide = "float32" if dtype in ("bfloat16", "float16") else dtype
    if dtype != wide:
        tensor = ops.cast(tensor, wide)
    tensor = tensor * (scale if isinstance(scale, float) else ops.cast(scale, wide))
    if not isinstance(shift, float) or shift:
        tensor = tensor + (shift if isinstance(shift, float) else ops.cast(shift, wide))
    return ops.cast(tensor, dtype) if dtype != wide else tensor


def check_scale(path: str, aim: Aim, dtype: str, *values: Statistic) -> None:
    """Raises ValueError unless a law gave a scale and a shift that can be computed with."""
    most = np.finfo("float64" if dtype == "float64" else "float32").max
    if not all(np.all(np.abs(value) <= most) for value in values):
        raise _out_of_range(path, aim, dtype, values)


def written(tensor: Tensor, path: str, aim: Aim, scale: Statistic) -> Tensor:
    """Returns what a variable is to hold, or raises ValueError if its scale took it out of its range."""
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
