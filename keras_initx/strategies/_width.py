"""Strategies for heads and for width."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_initx._types import Model
from keras_initx.checks import check_choice
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._residual import output_kernels, scaled, zero
from keras_initx.walk import KernelSite, iter_kernels, matches

__all__ = ["MuP", "ZeroHead"]

_OPTIMIZERS = ("adam", "sgd")
_FIELDS = ("conv", "depthwise", "transposed")  # kernels whose first axes are a receptive field


@dataclasses.dataclass(frozen=True)
class ZeroHead:
    """The kernels that make the model's outputs are 0, all else as in `ByRole`.

    Law: the outputs at first are the head's bias alone, so that the loss starts at its value for a constant
    prediction, and no gradient reaches the body at the very first step. Choose it for fine-tuning a body
    under a new head, and for heads whose early confident errors would harm; with `initx>PriorBias` as the
    head's bias initializer the first prediction is the prior.

    >>> import keras
    >>> net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> from keras_initx.strategies import initialize
    >>> [row.std > 0 for row in initialize(net, ZeroHead(), seed=1).rows if row.fans]
    [True, False]

    Args:
        head: Pattern of the kernels' paths; None to take those that the trace finds before the outputs.

    Raises:
        ValueError: When planning, if there is no such kernel, or none but an embedding or a recurrent layer.

    Reference:
        Goyal et al., 2017, use std 0.01 there (https://arxiv.org/abs/1706.02677, section 5.1); zero is Zhang
        et al., 2019, rule 1 (https://arxiv.org/abs/1901.09321).
    """

    head: str | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns what draws each kernel."""
        plan = ByRole().plan(sites)
        heads = [s for s in plan if matches(s, self.head)] if self.head else output_kernels(plan)
        if not heads:
            raise ValueError(
                "`ZeroHead` needs a kernel whose output is the model's. Received: a model in which the trace "
                f'found none, head={self.head!r}. Name it: ZeroHead(head="predictions"); paths: '
                f"{[site.path for site in plan][-6:]}."
            )
        return plan | {site: zero("makes the output") for site in heads}


@dataclasses.dataclass(frozen=True, eq=False)
class MuP:
    """Maximal update parametrization: what to draw, and how to scale learning rates, as width grows.

    Law: against a base model of the same structure and smaller width, with n = fan_in / base fan_in of a
    kernel: kernels whose inputs and outputs both grow (hidden) have Var W = g^2 / fan_in; those whose inputs
    alone grow (output) have Var W = g^2 / (n fan_in), so that logits fall as 1 / sqrt(n) where they would
    stay; those whose inputs do not grow (input, embeddings) are those of the base. Learning rates are
    multiplied by 1 / n under Adam, and by the growth of the outputs / n under SGD, so that there hidden
    kernels keep theirs, output ones have 1 / n of it, and input ones and scales more. At base width it is
    `ByRole`. Choose it to tune a small model and train a large one with the same learning rate; the
    multipliers are in the report (`report.learning_rates`) and are for your optimizer to apply.

    Three things are the model's or yours. Attention must divide its logits by the head's width, not its root
    as Keras does: let the number of heads grow, not their width. Logits of tied embeddings, which keep the
    base's variance, must be divided by n. Under SGD biases of growing layers want the multiplier of their
    growth, as scales have it.

    >>> import keras
    >>> def build(width):
    ...     return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(width, name="in"),
    ...         keras.layers.Dense(width, name="hidden"), keras.layers.Dense(3, name="out")])
    >>> from keras_initx.strategies import initialize
    >>> initialize(build(64), MuP(base=build(16)), seed=1).learning_rates
    {'hidden': 0.25, 'out': 0.25}

    Args:
        base: The built model of base width.
        optimizer: `"adam"` (and its kin) or `"sgd"`.

    Raises:
        ValueError: If the optimizer is unknown; when planning, if there is no base, its kernels are not those
            of the model, or one of them is larger.

    Reference:
        Yang et al., 2022, "Tensor Programs V" (https://arxiv.org/abs/2203.03466), table 3, in the form in
        which learning rates and not multipliers of the forward pass scale. The table was quoted from memory,
        the learning rates compared with `mup.optim` of the authors' package (https://github.com/microsoft/mup).
    """

    base: Any = None
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, _OPTIMIZERS)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns what draws each kernel, with its learning rate's multiplier."""
        pairs = self._pairs(sites)
        plan = ByRole().plan(sites)
        for site, base in pairs:
            if site.fans:
                plan[site] = self._draw(site, plan[site], *_growth(site, base))
            elif self.optimizer == "sgd":
                plan[site] = _scale(site, base)
        return plan

    def _pairs(self, sites: Sequence[KernelSite]) -> list[tuple[KernelSite, KernelSite]]:
        if not isinstance(self.base, keras.layers.Layer) or not self.base.built or not self.base.weights:
            raise ValueError(
                "`base` must be a built Keras model of the same structure and smaller width. Received: "
                f"base={self.base!r}. Pass MuP(base=build(width=64)) for a model of build(width=1024)."
            )
        own, others = (
            [s for s in found if not s.skip and (s.fans or s.is_scale)]
            for found in (sites, list(iter_kernels(self.base)))
        )
        for site, base in zip(own, others, strict=False):
            if _structure(site) != _structure(base):
                raise ValueError(
                    "`base` must have the structure of the model. Received: a base with "
                    f"{_told(base)} where the model has {_told(site)}."
                )
        if len(own) != len(others):
            more, fewer = (own, others) if len(own) > len(others) else (others, own)
            names = {site.path for site in fewer}
            extra = next((site for site in more if site.path not in names), more[-1])
            raise ValueError(
                f"`base` must have the structure of the model. Received: a base of {len(others)} kernels for "
                f"a model of {len(own)}; only one of them has {_told(extra)}."
            )
        return list(zip(own, others, strict=True))

    def _draw(self, site: KernelSite, draw: Draw, inputs: float, outputs: float) -> Draw:
        if site.tied:
            # By its role Var W = 1 / width, which would let the states shrink: the base's stays.
            draw = scaled(draw, math.sqrt(outputs), "divide the logits by the growth of the width")
        elif inputs > 1 and outputs == 1:
            draw = scaled(draw, 1 / math.sqrt(inputs), "output of muP")
        return dataclasses.replace(draw, learning_rate=(outputs if self.optimizer == "sgd" else 1) / inputs)


def _structure(site: KernelSite) -> tuple[Any, ...]:
    """What a kernel of another width has in common."""
    shape, layout = tuple(site.kernel.shape), site.layout
    field = shape[:-2] if layout is not None and layout.kind in _FIELDS else ()
    return site.role, type(site.layer).__name__, len(shape), field


def _told(site: KernelSite) -> str:
    return f"`{site.path}` ({site.role}, shape {tuple(site.kernel.shape)})"


def _growth(site: KernelSite, base: KernelSite) -> tuple[float, float]:
    """How much wider the inputs of a kernel's units and all its outputs are than its base's."""
    if site.fans is None or base.fans is None:
        return 1.0, 1.0
    inputs, outputs = site.fans.fan_in / base.fans.fan_in, site.fans.fan_out / base.fans.fan_out
    if site.layout is not None and site.layout.kind in ("conv", "depthwise"):
        # Groups, and depthwise channels, grow without a change of fans.
        outputs *= _groups(site) / _groups(base)
    if min(inputs, outputs) < 1:
        raise ValueError(
            f"`base` must be no wider than the model. Received: `{base.path}` with {base.fans} where the "
            f"model has {site.fans}."
        )
    return inputs, outputs


def _groups(site: KernelSite) -> int:
    assert site.layout is not None
    return site.kernel.shape[-2] if site.layout.kind == "depthwise" else site.layout.groups


def _scale(site: KernelSite, base: KernelSite) -> Draw:
    """A scale by its layer's initializer: a vector as long as the layer is wide."""
    growth = math.prod(site.kernel.shape) / max(math.prod(base.kernel.shape), 1)
    own = site.initializer or keras.initializers.Ones()
    return Draw(own, as_is=True, learning_rate=growth)
