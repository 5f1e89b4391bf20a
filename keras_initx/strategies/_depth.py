"""The factors of a weight by depth: CompleteP, which divides the branches of a deeper residual net.

With m = depth / depth of the base, a block is x + m^-alpha f(x). No layer of the model needs to multiply: the
factor stands in the last factor of the branch, W = m^-alpha V. A step of W is m^-alpha times the step of V,
and the gradient of V is m^-alpha times the gradient of W, from which the rates of W follow.

    weight                     first value       rate, SGD          rate, others     epsilon
    within a branch            as it is          m^(2 alpha - 1)    m^(alpha - 1)    m^-alpha
    end of a branch, W         m^-alpha V        1 / m              1 / m            1
    scale of a ResidualScale   m^-alpha          1 / m              1 / m            1
"""

import dataclasses
import functools
from collections.abc import Sequence

import keras

from keras_initx._types import Model, Patterns
from keras_initx.initializers import ConstantFill
from keras_initx.optimizers import Multiplier
from keras_initx.strategies._pairs import Pair
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._residual import scaled
from keras_initx.strategies._select import ResidualBranch, find_branches
from keras_initx.walk import KernelSite

__all__ = ["Depth"]


@dataclasses.dataclass(frozen=True, eq=False)
class Depth:
    """The branches of a model, and how many times as many it has as the base.

    Attributes:
        growth: The number of branches over the number of the base.
        alpha: The exponent.
        branches: The branches of the model.
    """

    growth: float = 1.0
    alpha: float = 1.0
    branches: tuple[ResidualBranch, ...] = ()

    @classmethod
    def of(
        cls,
        sites: Sequence[KernelSite],
        base: Sequence[KernelSite],
        base_depth: int,
        alpha: float,
        patterns: Patterns | None,
        models: tuple[Model | None, Model],
    ) -> "Depth":
        """Returns the depth of a model relative to a base of `base_depth` blocks.

        Raises:
            ValueError: If one of them has no residual branches, or the base has another depth.
        """
        own, theirs = (
            find_branches("MuP", found, patterns, model)
            for found, model in zip((sites, base), models, strict=True)
        )
        if len(theirs) % base_depth:
            raise ValueError(
                "`base_depth` must be the number of the base's blocks, each of as many residual branches. "
                f"Received: base_depth={base_depth!r}, for a base of {len(theirs)} branches."
            )
        if len(theirs) > len(own):
            raise ValueError(
                "`base` must have no more blocks than the model. Received: a base of "
                f"{len(theirs)} residual branches, for a model of {len(own)}."
            )
        return cls(len(own) / len(theirs), alpha, tuple(own))

    @property
    def branch(self) -> float:
        """The factor of a branch."""
        return self.growth**-self.alpha

    def plan(self, plan: Plan) -> Plan:
        """Returns the draws of the weights that hold the factors of the branches."""
        found: Plan = {}
        for site in (site for branch in self.branches for site in branch.stops):
            if site.role == "residual_scale":
                found[site] = Draw(ConstantFill(self.branch), "divides its residual branch")
            elif self.growth == 1:
                continue
            elif not site.is_scale:
                found[site] = scaled(plan[site], self.branch, "divides its residual branch")
            elif isinstance(site.initializer, keras.initializers.Ones):
                found[site] = Draw(ConstantFill(self.branch), "divides its residual branch")
        return found

    def size(self, pair: Pair) -> float:
        """How many times as large a weight is at first for the depth."""
        return self.branch if self._place(pair) in ("end", "scale") else 1.0

    def multiplier(self, pair: Pair, kind: str) -> Multiplier:
        """Returns the factors of a weight for the depth, for an optimizer of a kind of `optimizers.Law`."""
        place, m, alpha = self._place(pair), self.growth, self.alpha
        decay = m ** (alpha - 1)
        if place == "inside":
            rate = m ** (2 * alpha - 1) if kind == "sgd" else m ** (alpha - 1)
            return Multiplier(learning_rate=rate, epsilon=self.branch, weight_decay=decay)
        if place == "end":
            return Multiplier(learning_rate=1 / m, weight_decay=decay)
        return Multiplier(learning_rate=1 / m if place == "scale" else 1.0)

    def _place(self, pair: Pair) -> str:
        """Where a weight stands: `outside` of branches, `inside`, at an `end`, or in a `scale` of one."""
        inside = "inside" if id(pair.own.layer) in self._layers else "outside"
        return self._stops.get(id(pair.own.kernel), inside)

    @functools.cached_property
    def _layers(self) -> set[int]:
        return {id(site.layer) for branch in self.branches for site in branch.sites}

    @functools.cached_property
    def _stops(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for site in (site for branch in self.branches for site in branch.stops):
            # The bias after the last kernel, or the shift of the last normalization, is divided with it.
            after = site.layer.weights if site.is_scale else [site.bias]
            place = "scale" if site.role == "residual_scale" else "end"
            found |= {id(variable): place for variable in (site.kernel, *after)}
        return found
