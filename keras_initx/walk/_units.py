"""The axes of a kernel, and of its layer's output, that index the units."""

from keras import layers

from keras_initx._types import Layer

__all__ = ["unit_axes"]

# Axes of the kernel, by the kind of its layout, or by its role if it has no layout.
_AXES: dict[str, tuple[int, ...]] = {"dense": (-1,), "conv": (-1,), "embedding": (-1,)}
_AXES |= {"transposed": (-2,), "depthwise": (-2, -1)}

Axes = tuple[tuple[int, ...], tuple[int, ...]]


def unit_axes(layer: Layer, kind: str) -> Axes | None:
    """Returns the axes of the kernel and of the output that index units, in the same order; None if unknown.

    A depthwise kernel has two such axes, channels and multiplier, which are one axis of the output.
    """
    if isinstance(layer, layers.EinsumDense):
        return _of_equation(layer.equation)
    if kind not in _AXES:
        return None
    channel = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    return _AXES[kind], (channel,)


def _of_equation(equation: str) -> Axes:
    left, output = equation.split("->")
    kernel = left.split(",")[1]
    letters = [letter for letter in kernel if letter in output]
    before, _, after = output.rpartition("...")
    places = [after.index(x) - len(after) if x in after else before.index(x) for x in letters]
    return tuple(kernel.index(x) for x in letters), tuple(places)
