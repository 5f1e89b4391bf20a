"""The layouts of kernels: names for kernels of equal shape that mean different things."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from keras_initx.checks import is_whole

# The options that each kind of layout takes.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "conv": ("groups", "strides"),
    "dense": (),
    "depthwise": ("strides",),
    "einsum": ("batch_axes",),
    "embedding": (),
    "gates": ("gates",),
    "transposed": ("strides",),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """The meaning of a kernel's axes, for kernels that look alike.

    A shape alone does not tell a depthwise or transposed convolution from a plain convolution. Give a layout
    to `compute_fans`, or to an initializer, for every kernel that is not dense or a plain convolution.

    >>> Layout("conv", groups=4).to_dict()
    {'kind': 'conv', 'groups': 4}

    Attributes:
        kind: The kind of kernel, which fixes the order of its axes:

            - `"dense"`: (inputs, outputs).
            - `"conv"`: (*field, inputs / groups, outputs).
            - `"depthwise"`: (*field, channels, multiplier).
            - `"transposed"`: (*field, outputs, inputs).
            - `"gates"`: (*field, inputs, gates * units), the fused kernels of LSTM, GRU and ConvLSTM.
            - `"embedding"`: (vocabulary, outputs).
            - `"einsum"`: any order; `input_axes` and `output_axes` are given beside the layout.
        groups: Number of groups of a `"conv"` kernel, at least 1.
        strides: Strides of the layer with a `"conv"`, `"depthwise"` or `"transposed"` kernel: one int, or one
            int for each axis of the field, each at least 1.
        gates: Number of gates in a `"gates"` kernel: 4 for LSTM and ConvLSTM, 3 for GRU. The shape does not
            tell this number, so it has no default. `keras_initx.initialize` reads it off the layer.
        batch_axes: Axes of an `"einsum"` kernel that its inputs, kernel and outputs share (heads, experts).
            Keras counts these axes as output axes. An axis named here counts in neither fan.

    Raises:
        ValueError: If the kind is unknown, if an option is not a positive int (`batch_axes`: not a tuple of
            ints), or if an option does not belong to the kind.
    """

    kind: str
    groups: int = 1
    strides: int | tuple[int, ...] = 1
    gates: int | None = None
    batch_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _OPTIONS:
            raise ValueError(
                f"`layout` must be one of {sorted(_OPTIONS)}, or a dict with one of them as its 'kind'. "
                f"Received: layout={self.kind!r}."
            )
        strides = self.strides if isinstance(self.strides, tuple) else (self.strides,)
        gates = () if self.gates is None else (self.gates,)
        if not all(is_whole(n) and n > 0 for n in (self.groups, *gates, *strides)):
            raise ValueError(f"`groups`, `strides` and `gates` must be positive ints. Received: {self!r}.")
        if not isinstance(self.batch_axes, tuple) or not all(map(is_whole, self.batch_axes)):
            raise ValueError(f"`batch_axes` must be a tuple of ints. Received: {self!r}.")
        wrong = sorted(self.to_dict().keys() - {"kind", *_OPTIONS[self.kind]})
        if wrong:
            owners = sorted(kind for kind, options in _OPTIONS.items() if wrong[0] in options)
            raise ValueError(f"`{wrong[0]}` belongs to a layout of kind {owners}. Received: {self!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Returns the kind and the options that differ from their defaults, ready for JSON."""
        values = (
            (field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)
        )
        # JSON has no tuples: a list survives a saved config, and `of` reads it back as a tuple.
        return {n: list(v) if isinstance(v, tuple) else v for n, v, default in values if v != default}

    @classmethod
    def of(cls, layout: "LayoutLike") -> "Layout":
        """Returns the layout for a kind, for a dict from `to_dict`, or for a layout itself.

        >>> Layout.of({"kind": "transposed", "strides": [2, 2]}).strides
        (2, 2)

        Args:
            layout: A kind such as `"depthwise"`, a dict such as `{"kind": "conv", "groups": 4}`, or a
                `Layout`.

        Returns:
            A `Layout`; the argument itself if it already is one.

        Raises:
            ValueError: If the dict lacks `"kind"` or has an unknown key, or as for `Layout`.
        """
        if isinstance(layout, Layout):
            return layout
        if isinstance(layout, str):
            return cls(layout)
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(layout, Mapping) or "kind" not in layout or not set(layout) <= set(names):
            raise ValueError(
                f"`layout` must be one of {sorted(_OPTIONS)}, a `Layout`, or a dict of 'kind' and any of "
                f"{sorted(names[1:])}. Received: layout={layout!r}."
            )
        options: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in layout.items()}
        return cls(**options)


# The values that `Layout.of` accepts: a kind, a dict from `to_dict`, or a layout.
LayoutLike: TypeAlias = str | Mapping[str, Any] | Layout
