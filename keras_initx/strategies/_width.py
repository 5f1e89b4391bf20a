"""Strategies for heads and for width."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._residual import scaled, zero
from keras_initx.strategies._select import matches
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["MuP", "ZeroHead"]

_OPTIMIZERS = ("adam", "sgd")


@dataclasses.dataclass(frozen=True)
class ZeroHead:
    """The kernels that make the model's outputs are 0, all else as in `ByRole`.

    Law: the outputs at first are the head's bias alone, so that the loss starts at its value for a constant
    prediction, and no gradient reaches the body at the very first step. Choose it for fine-tuning a body under a
    new head, and for heads whose early confident errors would harm; with `initx>PriorBias` as the head's bias
    initializer the first prediction is the prior.

    >>> import keras
    >>> net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> from keras_initx.strategies import initialize
    >>> [row.std > 0 for row in initialize(net, ZeroHead(), seed=1).rows if row.fans]
    [True, False]

    Args:
        head: Pattern of the kernels' paths; None to take those that the trace finds before the outputs.

    Raises:
        ValueError: When planning, if there is no such kernel.

    Reference:
        Goyal et al., 2017, use std 0.01 there (https://arxiv.org/abs/1706.02677, section 5.1); zero is Zhang
        et al., 2019, rule 1 (https://arxiv.org/abs/1901.09321).
    """

    head: str | None = None

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel."""
        plan = ByRole().plan(sites)
        heads = [site for site in plan if (matches(site, self.head) if self.head else site.is_output)]
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
    alone grow (output) have Var W = g^2 / (n fan_in), so that logits fall as 1 / sqrt(n) where they would stay;
    those whose inputs do not grow (input, embeddings) are those of the base. Learning rates are multiplied
    by 1 / n for hidden and output kernels under Adam; under SGD by 1 / n for output kernels and by the growth of
    fan_out for input ones. At base width it is `ByRole`. Choose it to tune a small model and train a large
    one with the same learning rate; the multipliers are in the report (`report.learning_rates`) and are for
    your optimizer to apply. Attention must divide its logits by the head's width, not its root; Keras does the
    latter, and the base of it stays yours to change.

    Args:
        base: The built model of base width.
        optimizer: `"adam"` (and its kin) or `"sgd"`.

    Raises:
        ValueError: If the optimizer is unknown; when planning, if there is no base or its kernels are not
            those of the model.

    Reference:
        Yang et al., 2022, "Tensor Programs V" (https://arxiv.org/abs/2203.03466), table 3, in the form in which
        learning rates and not multipliers of the forward pass scale. The table was quoted from memory.
    """

    base: Any = None
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZERS:
            raise ValueError(
                f"`optimizer` must be one of {sorted(_OPTIMIZERS)}. Received: optimizer={self.optimizer!r}."
            )

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel, with its learning rate's multiplier."""
        pairs = zip(*self._pairs(sites), strict=True)
        plan = ByRole().plan(sites)
        for site, base in pairs:
            plan[site] = self._draw(plan[site], _growth(site, base))
        return plan

    def _pairs(self, sites: Sequence[KernelSite]) -> tuple[list[KernelSite], list[KernelSite]]:
        if not isinstance(self.base, keras.layers.Layer) or not self.base.built:
            raise ValueError(
                "`base` must be a built Keras model of the same structure and smaller width. Received: "
                f"base={self.base!r}. Pass MuP(base=build(width=64)) for a model of build(width=1024)."
            )
        own, others = ([s for s in found if s.fans] for found in (sites, list(iter_kernels(self.base))))
        for site, base in zip(own, others, strict=False):
            if site.role != base.role or len(site.kernel.shape) != len(base.kernel.shape):
                raise ValueError(
                    "`base` must have the structure of the model. Received: "
                    f"`{base.path}` ({base.role}) where the model has `{site.path}` ({site.role})."
                )
        if len(own) != len(others):
            raise ValueError(
                "`base` must have the structure of the model. Received: "
                f"{len(others)} kernels where the model has {len(own)}."
            )
        return own, others

    def _draw(self, draw: Draw, growth: tuple[float, float]) -> Draw:
        inputs, outputs = growth
        if inputs > 1 and outputs == 1:
            draw = scaled(draw, 1 / math.sqrt(inputs), "output of muP")
            return dataclasses.replace(draw, learning_rate=1 / inputs)
        if inputs > 1 and self.optimizer == "adam":
            return dataclasses.replace(draw, learning_rate=1 / inputs)
        if inputs == 1 and outputs > 1 and self.optimizer == "sgd":
            return dataclasses.replace(draw, learning_rate=outputs)
        return draw


def _growth(site: KernelSite, base: KernelSite) -> tuple[float, float]:
    """How much wider a kernel's inputs and outputs are than its base's."""
    if site.fans is None or base.fans is None:
        return 1.0, 1.0
    growth = site.fans.fan_in / base.fans.fan_in, site.fans.fan_out / base.fans.fan_out
    if min(growth) < 1:
        raise ValueError(
            f"`base` must be no wider than the model. Received: `{base.path}` with {base.fans} where the model "
            f"has {site.fans}."
        )
    return growth
