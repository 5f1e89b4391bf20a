"""What `initialize` does for a start of adapters beside the draws: checks, alphas, and the first factors."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_initx._types import Initializer, Model
from keras_initx.adapters import Start, began
from keras_initx.state import slotted
from keras_initx.strategies._plan import Strategy
from keras_initx.tables import listed
from keras_initx.walk import Adapter, KernelSite

__all__ = ["Starts"]


@dataclasses.dataclass(frozen=True)
class Starts:
    """The adapters that a call of `initialize` starts; empty for strategies that are not for adapters.

    Attributes:
        strategy: The strategy for adapters.
        adapters: The adapters by the paths of their layers.
    """

    strategy: Any
    adapters: Mapping[str, Adapter]

    @staticmethod
    def of(
        strategy: Strategy | Initializer | None,
        scope: Sequence[Any],
        overrides: Mapping[str, object],
        frozen: bool,
    ) -> "Starts":
        """Returns the starts of a call, if its arguments fit them.

        Raises:
            ValueError: If the scope has a part of an adapter only, or there are overrides.
        """
        if not getattr(strategy, "of_adapters", False):
            return Starts(None, {})
        name = type(strategy).__name__
        if overrides:
            raise ValueError(
                f"`overrides` must be empty for {name}, which makes the parts of an adapter together. "
                f"Received: overrides for {sorted(overrides)}. Call `initialize` again for these weights."
            )
        found: dict[int, list[KernelSite]] = {}
        for site in scope if frozen else [site for site in scope if site.layer.trainable]:
            found.setdefault(id(site.layer), []).append(site)
        whole = 2 if strategy.base == "kept" else 3  # type: ignore[union-attr]  # of the strategies for adapters
        parts = [site.path for sites in found.values() if len(sites) < whole for site in sites]
        if parts:
            raise ValueError(
                f"`include` and `exclude` must leave whole adapters for {name}: A, B"
                f"{'' if whole == 2 else ' and their base kernel'}. Received: {listed(parts, 6)} alone. Name "
                'layers, such as include="*/query".'
            )
        firsts = [site for sites in found.values() for site in sites if site.role == "lora_a"]
        return Starts(strategy, {a.path.rpartition("/")[0]: a.adapter for a in firsts if a.adapter})

    def finish(self, model: Model) -> tuple[Start, ...]:
        """Sets the alphas, and returns how the adapters began.

        Args:
            model: The model.
        """
        changed = False
        starts = []
        for path, adapter in self.adapters.items():
            alpha = self.strategy.alpha_of(adapter)
            changed |= alpha != adapter.alpha
            self.strategy.settle(adapter, alpha)
            adapter.layer.lora_alpha = alpha
            starts.append(began(path, self.strategy.base, adapter, alpha))
        optimizer = getattr(model, "optimizer", None)
        if starts and optimizer is not None and optimizer.built:
            slots = {id(variable) for variable in slotted(optimizer)}
            if not any(id(adapter.a) in slots for adapter in self.adapters.values()):
                warnings.warn(
                    f"`{model.name}` has an optimizer that does not know its adapters: call `compile` once "
                    "more before `fit`, which would train the old weights.",
                    stacklevel=3,
                )
        if changed:
            # Functions that Keras has compiled hold the old alpha.
            for name in ("train_function", "test_function", "predict_function"):
                if hasattr(model, name):
                    setattr(model, name, None)
        return tuple(starts)
