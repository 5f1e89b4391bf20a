"""Recipes: published initializers with the layout of one kind of layer, for layers that only take a name."""

from typing import Any

from keras_initx._types import Activation
from keras_initx.initializers._base import AxisAware, DrawOptions


class VarianceOptions(DrawOptions, total=False):
    """The arguments of the variance family except `layout`, which the recipe fixes."""

    gain: float
    activation: Activation | None
    mode: str
    distribution: str


class OrthogonalOptions(DrawOptions, total=False):
    """The arguments of the orthogonal family except `layout`, which the recipe fixes."""

    gain: float
    preserve_norm: bool


class Recipe(AxisAware):
    """Base of the recipes: a config holds the layout's option that the recipe takes, not the layout."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        layout = {} if self.layout is None else self.layout.to_dict()
        return {n: v for n, v in (super().get_config() | layout).items() if n not in ("layout", "kind")}
