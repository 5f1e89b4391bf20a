"""`KernelSite`: one kernel of a model, with the facts that its shape does not tell."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_initx._types import Initializer, Layer, Variable
from keras_initx.fans import Fans, Layout
from keras_initx.uses import Use
from keras_initx.walk._adapters import Adapter
from keras_initx.walk._layers import SCALES
from keras_initx.walk._obstacles import ADAPTED
from keras_initx.walk._position import Position

__all__ = ["KernelSite"]


@dataclasses.dataclass(frozen=True, eq=False)
class KernelSite(Position):
    """One kernel of a model: its variable, its layer, and its place in the model.

    Attributes:
        path: Names of the layers that lead to the kernel from the model, followed by the variable's name
            unless that is `kernel`. If two kernels have the same path, the second gets a number.
        role: `dense`, `conv`, `depthwise`, `pointwise`, `transposed`, `einsum`, `query`, `key`, `value`,
            `attention_output`, `gates` (the fused input kernels of LSTM, GRU and ConvLSTM), `recurrent`,
            `embedding`, `lora_a` and `lora_b` (the factors of an adapter), `scale` (of a normalization),
            `residual_scale`, a registered role, or `other`.
        layer: The layer that owns the kernel.
        kernel: The kernel's variable.
        bias: The variable of the bias, or None.
        initializer: The initializer that the layer names for the kernel, or that the kernel was made with.
            None if neither is known.
        axes: `input_axes` and `output_axes` of an einsum kernel; None for other kernels.
        layout: The meaning of the axes; None if the shape or `axes` tells it.
        unit_axes: The axes of the kernel and of the layer's output that index the units; None if unknown.
        fans: The true fans; None for scales, and for kernels of a layer that is not known.
        obstacle: The reason why scaling kernel and bias does not scale the layer's pre-activation; empty if
            it does.
        skip: The reason not to draw the kernel; empty if it may be drawn.
        call: Function that shows the layer's pre-activations, as in `register`; None if the layer's output is
            its only pre-activation.
        taught: Whether a user registered the layer's class.
        overrides: Name of an attribute that the layer's class overrides and Keras' `call` uses; empty if
            there is none.
        shared: The sites of other layers that hold the same kernel.
        activation: The activation that feeds the kernel, as `compute_gain` takes it. None if the model's
            input, a linear layer, a normalization or a sum feeds it, and if `note` says that the activation
            is not known.
        feeds: The next activation that the kernel's output goes through; None if another kernel comes first,
            or if a bare operation applies it to more than this output and its bias.
        feeds_layer: The layer that applies `feeds`: an activation layer, or this kernel's own layer. None if
            a bare operation does.
        feeds_normalized: Whether a normalization comes between the kernel and `feeds`.
        normalized: Whether a normalization comes between the kernel and all next kernels and outputs, so that
            the size of its output does not matter to them.
        depth: Number of kernels before this one, on the longest way from the input; None if not known.
        branch: The innermost residual branch around the kernel; None if there is none.
        ends_branch: Whether the kernel's output is added to the skip, with no other kernel in between.
        is_output: Whether the kernel's output is the model's output, with no other kernel in between.
        position: Number of the first step in which the layer runs; None if not known.
        attention: Path of the attention layer of a query, key, value or attention output; empty for other
            roles. Of an attention that layers write out, the path of the first with the number of its step.
        cross: Whether this attention layer takes its keys and values from elsewhere than its queries.
        tied: Whether an embedding's kernel also makes the logits.
        uses: The operations that take the kernel, where these tell what it is; empty where the layer's class
            does.
        looped: Whether the layer runs inside a recurrent loop.
        adapter: The low-rank adapter of the layer, on the sites of its base kernel and of its factors; None
            where LoRA is not enabled.
        note: The facts that the trace does not tell; empty if it tells all.
    """

    path: str
    role: str
    layer: Layer
    kernel: Variable
    bias: Any  # a Variable, or None
    initializer: Initializer | None
    axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    layout: Layout | None
    unit_axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    fans: Fans | None
    obstacle: str
    skip: str
    call: Callable[..., Any] | None = None
    taught: bool = False
    overrides: str = ""
    shared: tuple["KernelSite", ...] = ()
    attention: str = ""
    cross: bool = False
    tied: bool = False
    uses: tuple[Use, ...] = ()
    looped: bool = False
    adapter: Adapter | None = None

    @property
    def is_readable(self) -> bool:
        """Whether a pass can show the layer's pre-activation, be it to scale it or not."""
        adapted = self.obstacle == ADAPTED and not getattr(self.layer, "quantization_mode", None)
        return adapted or not self.obstacle

    @property
    def is_factor(self) -> bool:
        """Whether it is a factor of an adapter, and not a kernel by itself."""
        return self.role in ("lora_a", "lora_b")

    @property
    def is_scale(self) -> bool:
        """Whether it is a factor of each channel: of a normalization, or of a residual branch."""
        return self.role in SCALES

    @property
    def is_matrix(self) -> bool:
        """Whether the kernel mixes inputs into outputs; scales do not."""
        return not self.is_scale and len(self.kernel.shape) > 1

    @property
    def checked(self) -> bool:
        """Whether a user's code makes the pre-activation, which then must be tested for linearity."""
        return self.taught or bool(self.overrides)

    @property
    def blocks(self) -> int:
        """The number of matrices that the kernel holds side by side: gates, or groups of a convolution."""
        if self.layout is None:
            return 1
        return {"gates": self.layout.gates, "conv": self.layout.groups}.get(self.layout.kind) or 1
