"""Strategies for heads, and for models that grow in width."""

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
    """Sets the kernels that make the model's outputs to 0; all other weights as by `ByRole`.

    Law: W = 0 in the head, so that the first outputs are the head's bias. The loss starts at its value for a
    constant prediction, and no gradient reaches the body at the very first step. Choose it to fine-tune a
    body under a new head, and if early confident errors of a head would do harm. With `initx>PriorBias` as
    the head's bias initializer, the first prediction is the prior.

    >>> import keras
    >>> net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> from keras_initx.strategies import initialize
    >>> [row.std > 0 for row in initialize(net, ZeroHead(), seed=1).rows if row.fans]
    [True, False]

    Args:
        head: Pattern of the head's paths. None to take the kernels that the trace finds before the outputs.

    Raises:
        ValueError: When planning, if no kernel makes the outputs; embeddings and recurrent layers do not
            count.

    Reference:
        Zhang et al., 2019, rule 1 (https://arxiv.org/abs/1901.09321): zero. Goyal et al., 2017, draw the head
        with std 0.01 (https://arxiv.org/abs/1706.02677, section 5.1).
    """

    head: str | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        plan = ByRole().plan(sites)
        heads = [s for s in plan if matches(s, self.head)] if self.head else output_kernels(plan)
        if not heads:
            raise ValueError(
                "`ZeroHead` needs a kernel that makes the model's output. Received: a model in which the "
                f'trace found none, head={self.head!r}. Name it: ZeroHead(head="predictions"). Paths: '
                f"{[site.path for site in plan][-6:]}."
            )
        return plan | {site: zero("makes the output") for site in heads}


@dataclasses.dataclass(frozen=True, eq=False)
class MuP:
    """Draws kernels and scales learning rates by the growth in width (maximal update parametrization).

    Law: the model is compared with a base model of the same structure and smaller width. For each kernel,
    n = fan_in / fan_in of the base.

        kernel                               Var W            learning rate, Adam    SGD
        hidden: inputs and outputs grow      g^2 / fan_in     1 / n                  growth of outputs / n
        output: only inputs grow             g^2 / (n fan_in) 1 / n                  1 / n
        input, embedding: inputs stay        as in the base   1                      growth of outputs

    Logits then fall as 1 / sqrt(n), where another initializer keeps their size. Under SGD, scales of
    normalizations have the multiplier of their growth. At base width the strategy equals `ByRole`. Choose it
    to tune a small model and to train a large one with the same learning rate. The multipliers are in
    `report.learning_rates`; you apply them in your optimizer.

    Three things are left to you. First, muP divides the logits of attention by the width of a head, where
    Keras divides by its root: let the number of heads grow, not their width. Second, a tied embedding keeps
    the base's variance: divide its logits by n. Third, under SGD multiply the learning rates of the biases of
    growing layers by the growth of the layer.

    >>> import keras
    >>> def build(width):
    ...     return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(width, name="in"),
    ...         keras.layers.Dense(width, name="hidden"), keras.layers.Dense(3, name="out")])
    >>> from keras_initx.strategies import initialize
    >>> initialize(build(64), MuP(base=build(16)), seed=1).learning_rates
    {'hidden': 0.25, 'out': 0.25}

    Args:
        base: The built model of base width.
        optimizer: `"adam"`, for Adam and similar optimizers, or `"sgd"`.

    Raises:
        ValueError: If the optimizer is unknown. When planning, if there is no base, its kernels do not match
            the model's, or one of them is larger than the model's.

    Reference:
        Yang et al., 2022, "Tensor Programs V" (https://arxiv.org/abs/2203.03466), table 3, in the form that
        scales learning rates and not the forward pass. The table was quoted from memory; the learning rates
        were compared with `mup.optim` of the authors' package (https://github.com/microsoft/mup).
    """

    base: Model | None = None
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, _OPTIMIZERS)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel, with the multiplier of its learning rate."""
        pairs = self._pairs(sites)
        plan = ByRole().plan(sites)
        for site, base in pairs:
            if site.fans:
                plan[site] = self._draw(site, plan[site], *_growth(site, base))
            elif self.optimizer == "sgd":
                plan[site] = _scale(site, base)
        return plan

    def _pairs(self, sites: Sequence[KernelSite]) -> list[tuple[KernelSite, KernelSite]]:
        """Each kernel of the model with its kernel in the base, paired by order: names may differ."""
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
            # `ByRole` draws a tied embedding with Var W = 1 / width, so that states would shrink as the width
            # grows. The factor takes this back, and the variance is the base's.
            draw = scaled(draw, math.sqrt(outputs), "divide the logits by the growth of the width")
        elif inputs > 1 and outputs == 1:
            draw = scaled(draw, 1 / math.sqrt(inputs), "output of muP")
        return dataclasses.replace(draw, learning_rate=(outputs if self.optimizer == "sgd" else 1) / inputs)


def _structure(site: KernelSite) -> tuple[Any, ...]:
    """The properties that a kernel shares with its kernel of another width."""
    shape, layout = tuple(site.kernel.shape), site.layout
    field = shape[:-2] if layout is not None and layout.kind in _FIELDS else ()
    return site.role, type(site.layer).__name__, len(shape), field


def _told(site: KernelSite) -> str:
    return f"`{site.path}` ({site.role}, shape {tuple(site.kernel.shape)})"


def _growth(site: KernelSite, base: KernelSite) -> tuple[float, float]:
    """How many times as many inputs per unit, and outputs in all, a kernel has as its kernel in the base."""
    if site.fans is None or base.fans is None:
        return 1.0, 1.0
    inputs, outputs = site.fans.fan_in / base.fans.fan_in, site.fans.fan_out / base.fans.fan_out
    if site.layout is not None and site.layout.kind in ("conv", "depthwise"):
        # Fans count one group or channel; more groups mean more outputs at equal fans.
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
    """The draw of a scale by its layer's own initializer, with the growth of its length as a multiplier."""
    growth = math.prod(site.kernel.shape) / max(math.prod(base.kernel.shape), 1)
    own = site.initializer or keras.initializers.Ones()
    return Draw(own, as_is=True, learning_rate=growth)
