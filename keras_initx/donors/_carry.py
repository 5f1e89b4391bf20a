"""`Carrier`: turns the value of a donor's weight into that of its counterpart."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from keras_initx._types import Variable
from keras_initx.donors._match import Pair, Place
from keras_initx.donors._pick import Pick, identity, pick
from keras_initx.donors._read import value_of
from keras_initx.donors._tables import fill_new, grid_of, resize_positions
from keras_initx.uses import Coupling, Units
from keras_initx.walk import KernelSite

__all__ = ["Carried", "Carrier"]

Grid: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
# What an axis numbers: units that may stand for one another, taps of a field, features of the model's input, or
# things with names of their own: words or classes, and positions.
Kind: TypeAlias = Literal["units", "field", "features", "named", "positions"]
_FIELDS = ("conv", "depthwise", "transposed")
_ENDS = (None, "linear", "softmax", "sigmoid", "log_softmax")


@dataclasses.dataclass(frozen=True)
class Carried:
    """What becomes of a weight.

    Attributes:
        value: Returns the value of the weight. None if the donor has none for it.
        note: What was done beside the selection of units, or why the donor has no value.
    """

    value: Callable[[], np.ndarray] | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Carrier:
    """Carries weights from a donor to a model.

    Attributes:
        own: The units of the model's weights.
        donor: Those of the donor's.
        kernels: The kernels of the model.
        width: `select`, for a model that is narrower, or `clone`, for one that is wider.
        rows: For the ids of weights, the rows of the donor that their named axis takes; None for new rows.
        new_rows: The law of new rows.
        like: For numbers of new rows, numbers of the donor's rows whose mean they take.
        grid: Height and width of the donor's positions, and of the model's. None to find square ones.
        noise: Standard deviation of the noise on the shares of cloned units, relative to that of the weight.
        seed: Seed of everything that is drawn.
        scaled: The ids of the queries' weights in attention that divides scores by the root of the heads' width.
    """

    own: Coupling
    donor: Coupling
    kernels: Sequence[KernelSite]
    width: str = "select"
    rows: Mapping[int, Sequence[int | None]] = dataclasses.field(default_factory=dict)
    new_rows: str = "mean"
    like: Mapping[int, Sequence[int]] = dataclasses.field(default_factory=dict)
    grid: Grid | None = None
    noise: float = 0.0
    seed: int = 0
    scaled: frozenset[int] = frozenset()

    def carry(self, pair: Pair) -> Carried:
        """Returns what becomes of a weight that has a counterpart.

        Raises:
            ValueError: If the model is wider than the donor where it must be narrower, or the reverse; or the
                grid of positions is not known.
        """
        own, donor = pair.own.kernel, pair.donor.kernel  # type: ignore[union-attr]
        flat = len(own.shape) == len(donor.shape) + 1 and self._fields(pair.own)
        shape = (1, *donor.shape) if flat else tuple(donor.shape)
        if len(shape) != len(own.shape):
            return Carried(
                None, f"its shape {tuple(own.shape)} has other axes than the donor's, {tuple(donor.shape)}"
            )
        if own.dtype != donor.dtype and "int" in str(donor.dtype):
            return Carried(None, f"the donor's is of {donor.dtype}")
        units = [Units(0, 1)] * flat + list(self.donor.units(donor))
        steps, notes = [], []
        for axis, (one, other) in enumerate(zip(self.own.units(own), units, strict=True)):
            step = self._axis(pair.own, axis, one, other)
            if isinstance(step, str):
                return Carried(None, step)
            steps.append(step)
            notes.append(step.note)
        notes.append(self._doubt(pair.own, steps))
        factor = self._of_query(own, steps)

        def value() -> np.ndarray:
            found = value_of(pair.donor)  # type: ignore[arg-type]
            found = found[None] if flat else found
            for axis, step in enumerate(steps):
                found = step.take(found, axis)
            found = self._noisy(found, own, steps) if self.noise else found
            return found * factor if factor != 1 else found

        return Carried(value, "; ".join(dict.fromkeys(filter(None, notes))))

    def named_axis(self, weight: Place) -> int | None:
        """The axis of a weight whose units have names: words of a table, or classes of a head."""
        kinds = [self._kind(weight, axis, units) for axis, units in enumerate(self.own.units(weight.kernel))]
        return kinds.index("named") if "named" in kinds else None

    def _axis(self, weight: Place, axis: int, own: Units, donor: Units) -> "_Step | str":
        """How an axis is carried, or the reason why it cannot be."""
        kind = self._kind(weight, axis, own)
        if kind == "named" and id(weight.kernel) in self.rows:
            return self._named(weight, own, donor)
        if own.size == donor.size:
            return _Step(identity(own.size))
        if kind == "field":
            if donor.size == 1:  # a kernel of fewer dimensions, repeated along the new one
                return _Step(
                    Pick(np.zeros(own.size, int), np.full(own.size, own.size)), shared=True, note="inflated"
                )
            return f"its field has {own.size} taps where the donor's has {donor.size}"
        if kind == "features":
            if not own.how and self._fields(weight):
                return _channels(own.size, donor.size)
            return f"its {own.size} inputs are features of the data, and the donor's {donor.size} are others"
        if kind == "named":
            return (
                f"its {own.size} units have names, and the donor's {donor.size} are others: tell which by `rows` or "
                "`vocabulary`"
            )
        if kind == "positions":
            return self._positions(weight, own.size, donor.size)
        return self._units(weight, axis, own, donor)

    def _units(self, weight: Place, axis: int, own: Units, donor: Units) -> "_Step | str":
        found = pick(own, donor, self.seed)
        if self.width == "select" and found.grows:
            raise _not_that_way(weight, own.size, donor.size, "narrower", "clone")
        if self.width == "clone" and len(set(found.index.tolist())) < donor.size:
            raise _not_that_way(weight, own.size, donor.size, "wider", "select")
        uses = [use for use in self.own.uses(weight.kernel) if use.is_kernel and use.roles]
        summed = [axis in use.roles.axes("inputs") for use in uses]  # type: ignore[union-attr]
        note = "" if found.followed else "how its units are grouped is not known, in both models the same way"
        if found.grows and isinstance(weight, KernelSite) and weight.is_matrix and not uses:
            return "no operation that takes it is known, so that its inputs are not, either"
        if any(summed) and not all(summed):
            return _Step(found, note="it also makes the logits, which are larger by the factor of the width")
        return _Step(found, shared=bool(summed) and all(summed), note=note)

    def _named(self, weight: Place, own: Units, donor: Units) -> "_Step":
        given = self.rows[id(weight.kernel)]
        index = np.array([-1 if row is None else row for row in given])
        new = np.flatnonzero(index < 0)
        note = f"{len(new)} new rows by {self.new_rows!r}" if len(new) else ""
        generator = np.random.default_rng((self.seed, 1))
        # All weights of these rows draw alike, so that the bias of a row goes with its kernel.
        fill = functools.partial(fill_new, new=new, law=self.new_rows, like=self.like, generator=generator)
        return _Step(Pick(index, np.ones(len(index), int)), fill=fill if len(new) else None, note=note)

    def _positions(self, weight: Place, own: int, donor: int) -> "_Step | str":
        grid, note = self.grid, f"{donor} positions resampled to {own}"
        if grid is None:
            if not self._has_image:
                note = (
                    f"the first {own} of {donor} positions" if own < donor else f"{donor} positions, repeated"
                )
            elif (squares := grid_of(own, donor)) is None:
                raise ValueError(
                    f"`grid` must tell the grids of `{weight.path}`. Received: grid=None for {own} positions where the "
                    f"donor has {donor}, which are no squares. Pass grid=((height, width), (height, width)), the "
                    "donor's first."
                )
            else:
                grid = (squares[2], squares[2]), (squares[1], squares[1])
        prefix = [count - math.prod(sides) for count, sides in zip((donor, own), grid or (), strict=False)]
        if grid is not None and (prefix[0] != prefix[1] or prefix[0] < 0):
            raise ValueError(
                f"`grid` must leave as many rows of `{weight.path}` without a place in both models. Received: "
                f"grid={grid} for {donor} positions of the donor and {own} of the model."
            )
        return _Step(
            identity(own), resize=functools.partial(resize_positions, rows=own, grid=grid), note=note
        )

    @functools.cached_property
    def _has_image(self) -> bool:
        return any(
            site.layout is not None and site.layout.kind == "conv" and len(site.kernel.shape) == 4
            for site in self.kernels
        )

    @functools.cached_property
    def _consumed(self) -> set[int]:
        """The keys of units that some kernel sums over."""
        return {
            self.own.units(site.kernel)[axis].key
            for site in self.kernels
            for use in self.own.uses(site.kernel)
            if use.is_kernel and use.roles
            for axis in use.roles.axes("inputs")
        }

    @functools.cached_property
    def _made(self) -> dict[int, bool]:
        """The keys of units that some kernel makes, and whether these are what a head tells apart."""
        found: dict[int, bool] = {}
        for site in self.kernels:
            ends = (
                site.is_output
                and not site.normalized
                and getattr(site.feeds, "__name__", site.feeds) in _ENDS
            )
            for use in self.own.uses(site.kernel):
                for axis in use.roles.axes("outputs") if use.is_kernel and use.roles else ():
                    units = self.own.units(site.kernel)[axis]
                    is_head = ends and "output" in units.marks and units.key not in self._consumed
                    found[units.key] = found.get(units.key, False) or is_head
        return found

    def _kind(self, weight: Place, axis: int, units: Units) -> Kind:
        if axis < self._fields(weight):
            return "field"
        if "rows" in units.marks or self._made.get(units.key):
            return "named"
        uses = self.own.uses(weight.kernel)
        if "positions" in units.marks:
            return "positions"
        taken = [use for use in uses if use.is_kernel and use.roles]
        if any(axis in use.roles.axes("inputs") for use in taken) and _is_input(units):  # type: ignore[union-attr]
            return "features"
        free = units.key not in self._made and units.key not in self._consumed
        if uses and not taken and len(weight.kernel.shape) > 1 and free:
            return "positions"
        return "units"

    def _fields(self, weight: Place) -> int:
        """The number of axes of a kernel that are a receptive field."""
        layout = weight.layout
        return (
            len(weight.kernel.shape) - 2
            if layout is not None and layout.kind in _FIELDS and weight.role != "bias"
            else 0
        )

    def _doubt(self, weight: Place, steps: "Sequence[_Step]") -> str:
        """Why the function of the donor does not stay; empty if nothing is known against it."""
        grown = [step.pick for step in steps if step.pick.grows]
        if not grown:
            return ""
        if (
            weight.role == "scale"
            and "BatchNorm" not in type(weight.layer).__name__
            and not all(p.even for p in grown)
        ):
            return "the width is no multiple of the donor's, so that the mean over it is another"
        wider = self._of_query(weight.kernel, steps, known=False) != 1
        if wider and weight.role == "query" and id(weight.kernel) not in self.scaled:
            return "its heads are wider, and how the scores are divided by that width is not known"
        return ""

    def _of_query(self, variable: Variable, steps: "Sequence[_Step]", known: bool = True) -> float:
        """The factor of queries that keeps the scores of wider heads.

        A head that is r times as wide sums r times as many products, and divides them by the root of r.
        """
        if known and id(variable) not in self.scaled:
            return 1.0
        units = self.own.units(variable)
        wider = [step.pick for step, one in zip(steps, units, strict=True) if _is_head(one)]
        return math.prod(1 / math.sqrt(one.copies[0]) for one in wider if one.even)

    def _noisy(self, value: np.ndarray, variable: Variable, steps: "Sequence[_Step]") -> np.ndarray:
        """Adds noise to the shares of cloned units, which sums to 0 over the clones: the function stays."""
        for axis, step in enumerate(steps):
            if not step.shared or not step.pick.grows:
                continue
            generator = np.random.default_rng((self.seed, variable.shape[axis], len(value.reshape(-1))))
            drawn = np.moveaxis(generator.standard_normal(value.shape), axis, 0)
            sums = np.zeros((step.pick.index.max() + 1, *drawn.shape[1:]))
            np.add.at(sums, step.pick.index, drawn)
            drawn -= (sums / np.bincount(step.pick.index).reshape(-1, *(1,) * (drawn.ndim - 1)))[
                step.pick.index
            ]
            value = value + self.noise * value.std() * np.moveaxis(drawn, 0, axis)
        return value


@dataclasses.dataclass(frozen=True)
class _Step:
    """How one axis is carried.

    Attributes:
        pick: The units that it takes.
        shared: Whether units that are taken several times are summed, so that each gets its share.
        factor: Factor of all values.
        fill: Fills new rows.
        resize: Resizes a table of positions, in place of `pick`.
        note: What was done, for the report.
    """

    pick: Pick
    shared: bool = False
    factor: float = 1.0
    sums: bool = False
    fill: Callable[..., np.ndarray] | None = None
    resize: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""

    def take(self, value: np.ndarray, axis: int) -> np.ndarray:
        """Returns a value with this axis carried."""
        if self.resize is not None:
            return np.moveaxis(self.resize(np.moveaxis(value, axis, 0)), 0, axis)
        if self.sums:
            return value.sum(axis=axis, keepdims=True)
        if self.fill is not None:
            first = np.moveaxis(value, axis, 0)
            return np.moveaxis(self.fill(first[self.pick.index], old=first), 0, axis)
        found = (
            value
            if self.pick.is_identity and len(self.pick.index) == value.shape[axis]
            else value.take(self.pick.index, axis)
        )
        if self.shared and self.pick.grows:
            found = found / self.pick.copies.reshape(-1, *(1,) * (value.ndim - 1 - axis)).astype(found.dtype)
        return found * np.asarray(self.factor, found.dtype) if self.factor != 1 else found


def _channels(own: int, donor: int) -> _Step:
    """How a first kernel takes other channels: grey is their sum; more of them come again, with their sum kept."""
    if own == 1:
        return _Step(identity(1), sums=True, note=f"the sum of {donor} channels")
    index = np.arange(own) % donor
    return _Step(
        Pick(index, np.ones(own, int)), factor=donor / own, note=f"{donor} channels repeated to {own}"
    )


def _is_input(units: Units) -> bool:
    return any("input" in part.marks for part in _parts(units))


def _is_head(units: Units) -> bool:
    """Whether queries are multiplied with keys over these units."""
    return "mixed" in units.marks or (units.how == "product" and "mixed" in units.of[-1].marks)


def _parts(units: Units) -> list[Units]:
    return [units, *(part for own in units.of for part in _parts(own))]


def _not_that_way(weight: Place, own: int, donor: int, told: str, other: str) -> ValueError:
    return ValueError(
        f"`width` must be {other!r} for a model that is not {told} than the donor. Received: `{weight.path}` with "
        f"{own} units where the donor has {donor}. Pass FromModel(donor, width={other!r})."
    )
