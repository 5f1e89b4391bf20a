"""`Carrier`: turns the value of a donor's weight into that of its counterpart."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from keras_initx._types import Variable
from keras_initx.donors._doubts import REACHING, doubts
from keras_initx.donors._kinds import Kinds
from keras_initx.donors._pair import Place, fields_of
from keras_initx.donors._pick import Pick, identity, pick
from keras_initx.donors._read import value_of
from keras_initx.donors._step import Step, of_channels, of_field
from keras_initx.donors._tables import fill_new, grid_of, resize_positions
from keras_initx.donors._words import Named
from keras_initx.uses import Coupling, Units

__all__ = ["Carried", "Carrier", "Grid", "WrongWidthError"]

# Height and width of the donor's positions, and of the model's.
Grid: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Carried:
    """What becomes of a weight.

    Attributes:
        value: Returns the value of the weight. None if the donor has none for it.
        note: What was done beside the selection of units, or why the donor has no value.
        share: Share of the value that comes from the donor, without new rows.
    """

    value: Callable[[], np.ndarray] | None
    note: str = ""
    share: float = 1.0


class WrongWidthError(ValueError):
    """A model is wider than its donor where it must be narrower, or the reverse.

    Args:
        path: Path of the weight.
        axis: The axis of units.
        units: The model's units, and the donor's.
        width: The width that it would take.
    """

    def __init__(self, path: str, axis: int, units: tuple[Units, Units], width: str) -> None:
        own, donor = _sizes(*units, grows=width == "clone")
        self.told = f"`{path}`, axis {axis} ({own} where the donor has {donor})"
        told = "narrower" if width == "clone" else "wider"
        super().__init__(
            f"`width` must be {width!r} for a model that is not {told} than the donor. Received: `{path}` "
            f"with {units[0].size} units where the donor has {units[1].size}. Pass FromModel(donor, "
            f"width={width!r})."
        )


@dataclasses.dataclass(frozen=True)
class Carrier:
    """Carries weights from a donor to a model.

    Attributes:
        own: The units of the model's weights.
        donor: Those of the donor's.
        kinds: What the axes of the model's weights number.
        width: `select`, for a model that is narrower, or `clone`, for one that is wider.
        rows: For the ids of weights and their axes, the rows of the donor that the axis takes.
        new_rows: The law of new rows.
        like: For numbers of new rows, numbers of the donor's rows whose mean they take.
        grid: The grids of positions. None to find square ones.
        noise: Standard deviation of the noise on the shares of cloned units, relative to that of the weight.
        seed: Seed of everything that is drawn.
        queries: The ids of the weights of queries whose scores are divided by the root of their heads' width.
        attention: The ids of the weights of queries and keys in Keras' attention.
        before_logits: The ids of the weights of the normalization whose output a table of words turns into
            logits.
    """

    own: Coupling
    donor: Coupling
    kinds: Kinds
    width: str = "select"
    rows: Mapping[tuple[int, int], Named] = dataclasses.field(default_factory=dict)
    new_rows: str = "mean"
    like: Mapping[int, Sequence[int]] = dataclasses.field(default_factory=dict)
    grid: Grid | None = None
    noise: float = 0.0
    seed: int = 0
    queries: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    before_logits: frozenset[int] = frozenset()
    told: set[tuple[int, str]] = dataclasses.field(default_factory=set)  # the doubts that a row has told

    def carry(self, weight: Place, source: Place) -> Carried:
        """Returns what becomes of a weight that has a counterpart.

        Args:
            weight: The weight of the model.
            source: The weight of the donor.

        Raises:
            ValueError: If the model is wider than the donor where it must be narrower, or the reverse; or the
                grid of positions is not known.
        """
        own, donor = weight.kernel, source.kernel
        flat = len(own.shape) == len(donor.shape) + 1 and fields_of(weight) > 0
        units = [Units(0, 1)] * flat + list(self.donor.units(donor))
        if len(units) != len(own.shape):
            told = f"its shape {tuple(own.shape)} has other axes than the donor's, {tuple(donor.shape)}"
            return Carried(None, told)
        steps: list[Step] = []
        for axis, other in enumerate(units):
            step = self._step(weight, axis, other)
            if isinstance(step, str):
                return Carried(None, step)
            steps.append(step)
        factor = self._factor_of_query(own, steps) * self._factor_of_logits(own, steps)
        notes = [step.note for step in steps]
        notes.append(f"times {factor:.4g}, for the width of its sums" if factor != 1 else "")
        value = functools.partial(self._value, weight.path, source, flat, steps, factor)
        share = math.prod(step.share for step in steps)
        return Carried(value, "; ".join(dict.fromkeys(filter(None, notes))), share)

    def _value(
        self, path: str, source: Place, flat: bool, steps: Sequence[Step], factor: float
    ) -> np.ndarray:
        found = value_of(source)
        found = found[None] if flat else found
        for axis, step in enumerate(steps):
            found = step.take(found, axis)
        found = self._noisy(found, path, steps) if self.noise else found
        return found * np.asarray(factor, found.dtype) if factor != 1 else found

    def _step(self, weight: Place, axis: int, donor: Units) -> Step | str:
        """How an axis is carried, or the reason why it cannot be."""
        own = self.own.units(weight.kernel)[axis]
        if named := self.rows.get((id(weight.kernel), axis)):
            # The softmax of a head takes the largest logit off all of them, which is no matter.
            mean = "averaged" in own.marks and own.size != donor.size
            mean = mean and self.kinds.of(weight, axis) != "named"
            return self._named(weight.path, named, donor.size, mean)
        if own.size == donor.size:
            return Step(identity(own.size))
        kind = self.kinds.of(weight, axis)
        if kind == "field":
            return of_field(own.size, donor.size)
        if kind == "features":
            if not own.how and fields_of(weight):
                return of_channels(own.size, donor.size)
            return f"its {own.size} inputs are features of the data, and the donor's {donor.size} are others"
        if kind == "named":
            return (
                f"its {own.size} units have names, and the donor's {donor.size} are others: tell which by "
                "`rows` or `vocabulary`"
            )
        if kind == "positions":
            return self._positions(weight, own.size, donor.size)
        return self._units(weight, axis, own, donor)

    def _units(self, weight: Place, axis: int, own: Units, donor: Units) -> Step:
        found = pick(own, donor, self.seed)
        if self.width == "select" and found.grows:
            raise WrongWidthError(weight.path, axis, (own, donor), "clone")
        if self.width == "clone" and len(set(found.index.tolist())) < donor.size:
            raise WrongWidthError(weight.path, axis, (own, donor), "select")
        summed = self.kinds.summed(weight, axis)
        notes = [] if found.followed else ["how its units are grouped is not known of both models"]
        if found.grows and any(summed) and not all(summed) and not self.before_logits:
            notes.append("it also makes the logits, which are larger by the factor of the width")
        told = [REACHING] if axis in self.kinds.reaching_axes(weight) else []
        if found.grows and not all(summed or [False]):
            told += doubts(own, donor, id(weight.kernel) in self.attention)
        # Once for all weights that share the units.
        notes += [note for note in told if (own.key, note) not in self.told]
        self.told.update((own.key, note) for note in told)
        return Step(found, shared=bool(summed) and all(summed), note="; ".join(notes))

    def _named(self, path: str, named: Named, donor: int, mean: bool) -> Step:
        index = np.array([-1 if row is None else row for row in named.rows], int)
        outside = index[index >= donor]
        if len(outside):
            raise ValueError(
                f"`rows` must have numbers of the donor's rows, from 0 to {donor - 1}, or None. Received: "
                f"{int(outside[0])} for `{path}`."
            )
        new = np.flatnonzero(index < 0)

        def change(old: np.ndarray) -> np.ndarray:
            generator = np.random.default_rng((self.seed, donor))
            return fill_new(old[index], new, old[: named.known], self.new_rows, self.like, generator)

        notes = [named.note, f"{len(new)} new rows" if len(new) else ""]
        notes.append("a mean is taken over all of them, which moves all outputs" if mean else "")
        share = 1 - len(new) / max(len(index), 1)
        return Step(identity(len(index)), change=change, note=", ".join(filter(None, notes)), share=share)

    def _positions(self, weight: Place, own: int, donor: int) -> Step:
        grid = self.grid
        if grid is None and self.kinds.has_image:
            squares = grid_of(own, donor)
            if squares is None:
                raise ValueError(
                    f"`grid` must tell the grids of `{weight.path}`. Received: grid=None for {own} "
                    f"positions where the donor has {donor}, which are no squares. Pass grid=((height, "
                    "width), (height, width)), the donor's first."
                )
            grid = squares
        if grid is not None:
            rest = [count - math.prod(sides) for count, sides in zip((donor, own), grid, strict=True)]
            if rest[0] != rest[1] or rest[0] < 0:
                raise ValueError(
                    f"`grid` must leave as many rows of `{weight.path}` beside the grid in both models. "
                    f"Received: grid={grid} for {donor} positions of the donor and {own} of the model."
                )
            note = f"{donor} positions resampled to {own}"
        else:
            note = f"the first {own} of {donor} positions" if own < donor else f"{donor} positions, repeated"
        change = functools.partial(resize_positions, rows=own, grid=grid)
        return Step(identity(own), change=change, note=note)

    def _of_heads(self, variable: Variable, steps: Sequence[Step]) -> list[Pick]:
        """The picks of the units of heads, over which queries and keys are multiplied."""
        units = self.own.units(variable)
        last = len(units) - 1  # Keras' queries are (inputs, heads, units of a head)
        return [
            step.pick
            for axis, (step, one) in enumerate(zip(steps, units, strict=True))
            if (id(variable) in self.queries and axis == last) or "mixed" in one.marks
        ]

    def _factor_of_query(self, variable: Variable, steps: Sequence[Step]) -> float:
        """The factor of queries that keeps the scores of wider heads.

        A head that is r times as wide sums r times as many products, and divides them by the root of r.
        """
        if id(variable) not in self.queries:
            return 1.0
        return math.prod(1 / math.sqrt(one.copies[0]) for one in self._of_heads(variable, steps) if one.even)

    def _factor_of_logits(self, variable: Variable, steps: Sequence[Step]) -> float:
        """The factor of a normalization that keeps the logits which a table of words makes of its output."""
        if id(variable) not in self.before_logits:
            return 1.0
        return math.prod(1 / step.pick.copies[0] for step in steps if step.pick.even)

    def _noisy(self, value: np.ndarray, path: str, steps: Sequence[Step]) -> np.ndarray:
        """Adds noise to the shares of cloned units, which sums to 0 over the clones: the function stays."""
        generator = np.random.default_rng((self.seed, *path.encode()))  # kernels of one shape differ
        for axis, step in enumerate(steps):
            if not step.shared or not step.pick.grows:
                continue
            drawn = generator.standard_normal(value.shape)
            first, index = np.moveaxis(drawn, axis, 0), step.pick.index
            sums = np.zeros((index.max() + 1, *first.shape[1:]))
            np.add.at(sums, index, first)
            first = first - (sums / np.bincount(index).reshape(-1, *(1,) * (first.ndim - 1)))[index]
            value = value + (self.noise * value.std() * np.moveaxis(first, 0, axis)).astype(value.dtype)
        return value


def _sizes(own: Units, donor: Units, grows: bool) -> tuple[int, int]:
    """The sizes of units, or of those that they are made of, of which the model has more or fewer."""
    if own.how == donor.how and len(own.of) == len(donor.of):
        for one, other in zip(own.of, donor.of, strict=True):
            if one.size != other.size and (one.size > other.size) == grows:
                return _sizes(one, other, grows)
    return own.size, donor.size
