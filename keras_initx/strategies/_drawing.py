"""Draws one weight after another: chooses its initializer, or the reason to leave it, and fills it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initx._keras_internals import own_trainable_variables
from keras_initx._types import Initializer, Tensor
from keras_initx.state import constraint_note, seeded, stream_seed
from keras_initx.strategies._fill import fill, sample_std
from keras_initx.strategies._fresh import Origins, is_adapted
from keras_initx.strategies._plan import Draw, configure, describe
from keras_initx.strategies._report import FROZEN, OWN, UNKNOWN, InitRow
from keras_initx.walk import KernelSite, Weight, matches

__all__ = ["Drawing"]

_ADAPTED = "adapted to data: left as it is"
_FREE = "does not follow the seed: its draws differ from call to call"
_FIXED = "draws the same for every seed"
_TRUSTED = ("keras", "keras_initx")  # packages whose initializers depend on the seed in their config only


@dataclasses.dataclass
class Drawing:
    """The settings of one call of `initialize`, which draw any weight.

    Attributes:
        plan: The draws by the ids of the weights' variables.
        planned: Whether a user expects the plan to draw all kernels.
        replaced: The initializers of `overrides`, by pattern or role. None stands for the initializer of the
            weight's own layer.
        frozen: Whether layers that are not trainable are drawn, too.
        seed: The seed of all streams.
        width: Function from a kernel to the width of the model at that kernel.
        update: Function `update(variable, function)`, which assigns `function(value)` to the variable.
        rates: The factor of the learning rate of each weight, by the `id` of its variable.
    """

    plan: Mapping[int, Draw]
    planned: bool
    replaced: Mapping[str, Any]
    frozen: bool
    seed: int
    width: Callable[[KernelSite], int | None]
    update: Callable[..., None]
    rates: Mapping[int, float]

    def __post_init__(self) -> None:
        self._origins = Origins(self.seed)
        self._remarks: dict[int, str] = {}

    def row(self, weight: KernelSite | Weight) -> InitRow:
        """Draws a weight or leaves it as it is, and returns its row of the report."""
        draw, note = self._choose(weight)
        shape = tuple(weight.kernel.shape)
        fans, kernel = (weight.fans, weight.is_matrix) if isinstance(weight, KernelSite) else (None, False)
        # Also of a weight that is left as it is: it may be trained later.
        rate = self.rates.get(id(weight.kernel), 1.0)
        if draw is None:
            return InitRow(weight.path, weight.role, shape, "", fans, None, rate, note, kernel)
        try:
            remark = self._draw(weight, draw)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{weight.path}` (role {weight.role}, shape {shape}) cannot be drawn by "
                f"{describe(draw.initializer)}: {error} "
                "Pass `exclude` to leave the weight alone, or `overrides` to give it another initializer."
            ) from error
        std = sample_std(weight.kernel) if fans else None  # kernels only: it costs more than a bias's draw
        told = getattr(draw.initializer, "remark", "")  # FromVectors tells how many words have vectors
        note = "; ".join(filter(None, (note, told, remark, constraint_note(weight.kernel))))
        label = "donor" if draw.source else describe(draw.initializer)
        origin = draw.source, draw.share
        return InitRow(weight.path, weight.role, shape, label, fans, std, rate, note, kernel, *origin)

    def _choose(self, weight: KernelSite | Weight) -> tuple[Draw | None, str]:
        """Returns the draw of a weight and a note, or None and the reason to leave the weight.

        The first of these decides: frozen, skipped, an override, the plan, adapted to data, the initializer
        of the weight's own layer.
        """
        if not (weight.layer.trainable or self.frozen):
            return None, FROZEN
        planned = self.plan.get(id(weight.kernel))
        if planned is not None and planned.computed and not planned.source:
            return planned, planned.note  # of adapters: their bases are frozen, and get values all the same
        if weight.skip:
            return None, f"{weight.skip}: left as it is"
        if _is_frozen_alone(weight) and not self.frozen:
            return None, FROZEN
        # The last pattern that matches counts, so that a dict can go from the general to the particular.
        override = [pattern for pattern in self.replaced if matches(weight, pattern)]
        if override and self.replaced[override[-1]] is not None:
            return Draw(self.replaced[override[-1]]), ""
        note, reason = weight.note if isinstance(weight, KernelSite) else "", ""
        if not override and planned:
            # The walk's remarks are about fans, which a donor's values do not follow.
            note = planned.note if planned.source else "; ".join(filter(None, (note, planned.note)))
            reason = planned.note
            if planned.initializer is not None:
                return planned, note
        if is_adapted(weight):
            return None, "; ".join(filter(None, (note, _ADAPTED)))
        own = self._origins.of(weight)
        if own is None:
            return None, "; ".join(filter(None, (note, UNKNOWN)))
        # With a plan, a user expects the plan to draw all kernels: the row says that this kernel was not.
        unknown = isinstance(weight, KernelSite) and weight.is_matrix and not weight.fans and self.planned
        return Draw(own, as_is=True), f"{note}; {OWN}" if unknown else reason

    def _draw(self, weight: KernelSite | Weight, draw: Draw) -> str:
        """Draws a weight, and returns a remark if its numbers do not follow the seed."""
        known = isinstance(weight, KernelSite) and weight.fans and not draw.as_is
        site = weight if known and isinstance(weight, KernelSite) else None
        layout, width = None if draw.as_is else weight.layout, self.width(site) if site else None
        stream = stream_seed(self.seed, draw.stream or weight.path)
        if draw.computed and callable(draw.initializer):
            if hasattr(draw.initializer, "seed"):
                draw.initializer.seed = stream
            fill(weight.kernel, draw.initializer, self.update, traced=False)
            return ""
        if _is_trusted(draw.initializer):
            fill(weight.kernel, configure(draw.initializer, site, stream, layout, width), self.update)
            return ""

        def drawn(seed: int, shape: Sequence[int], dtype: str | None) -> Any:
            with seeded(seed):
                return configure(draw.initializer, site, seed, layout, width)(shape, dtype=dtype)

        # Code of the user's may draw from anywhere. Three draws tell: two seeds must differ, and the same
        # seed must repeat. Once per initializer, since a model has many kernels.
        if id(draw.initializer) not in self._remarks:
            shape, dtype = tuple(weight.kernel.shape), weight.kernel.dtype
            first, other, again = (drawn(seed, shape, dtype) for seed in (stream, stream ^ 1, stream))
            self._remarks[id(draw.initializer)] = (
                _FIXED if _equal(first, other) else "" if _equal(first, again) else _FREE
            )
        fill(weight.kernel, lambda shape, dtype: drawn(stream, shape, dtype), self.update, traced=False)
        return self._remarks[id(draw.initializer)]


def _is_frozen_alone(weight: KernelSite | Weight) -> bool:
    """Whether a weight that its layer made as a trainable one is not trainable now."""
    made = any(variable is weight.kernel for variable in own_trainable_variables(weight.layer))
    return made and not weight.kernel.trainable


def _is_trusted(initializer: Initializer) -> bool:
    """Whether an initializer's numbers depend on the seed in its config only; nested initializers count."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return False
    package = type(initializer).__module__.partition(".")[0]
    nested = [v for v in vars(initializer).values() if isinstance(v, keras.initializers.Initializer)]
    return package in _TRUSTED and all(map(_is_trusted, nested))


def _equal(one: Tensor, other: Tensor) -> bool:
    # NumPy has no bfloat16.
    one, other = (keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")) for value in (one, other))
    return bool(np.array_equal(one, other, equal_nan=True))
