"""The factors of a model's variables, and how they find the variables again in a copy of the model."""

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from keras_initx._types import Variable
from keras_initx.optimizers._laws import Law
from keras_initx.tables import listed

__all__ = ["Multiplier", "Multipliers"]


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """The factors by which an optimizer's settings are multiplied for one variable.

    Attributes:
        path: The variable's path (`variable.path`).
        shape: The variable's shape.
        learning_rate: Factor of the learning rate.
        epsilon: Factor of the epsilon that the optimizer adds to the root of the mean squared gradient.
        weight_decay: Factor of the decay per step, which Keras takes from the optimizer's own learning rate.
    """

    path: str = ""
    shape: tuple[int, ...] = ()
    learning_rate: float = 1.0
    epsilon: float = 1.0
    weight_decay: float = 1.0

    @property
    def factors(self) -> tuple[float, float, float]:
        """The factors of learning rate, epsilon and decay."""
        return self.learning_rate, self.epsilon, self.weight_decay

    @property
    def is_one(self) -> bool:
        """Whether no factor changes anything."""
        return self.factors == (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """The factors of all variables of a model.

    Keras gives the variables of a model other paths when it loads the model from a file, and two variables
    may have the same path. The variables of the model itself are therefore told by identity. The variables of
    a copy are told by path and shape, or else by their order and shapes.

    >>> import keras
    >>> variables = [keras.Variable([1.0], name="a"), keras.Variable([1.0, 2.0], name="b")]
    >>> multipliers = Multipliers.of(variables, {id(variables[1]): Multiplier(learning_rate=0.5)})
    >>> [found.learning_rate for found in multipliers.for_variables(variables[1:])]
    [0.5]

    Attributes:
        rows: A multiplier for each variable, in the order of `model.variables`.
        law: How the optimizer steps that the factors are for; None for any.
        references: Weak references to the variables, in this order; empty in another process.
    """

    rows: tuple[Multiplier, ...] = ()
    law: Law | None = None
    references: "tuple[weakref.ref[Variable], ...]" = dataclasses.field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls, variables: Sequence[Variable], factors: Mapping[int, Multiplier], law: Law | None = None
    ) -> "Multipliers":
        """Returns the multipliers of a model's variables.

        Args:
            variables: The variables, in the order of `model.variables`.
            factors: The factors by the `id` of the variable. A variable that is missing has the factors 1.
            law: How the optimizer steps that the factors are for; None for any.
        """
        rows = tuple(_of(v, factors.get(id(v), Multiplier())) for v in variables)
        return cls(rows, law, tuple(map(weakref.ref, variables)))

    @property
    def learning_rates(self) -> dict[str, float]:
        """The factors of learning rates that are not 1, by path. A path that comes again gets a number."""
        found: dict[str, float] = {}
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.path] = counts.get(row.path, 0) + 1
            if row.learning_rate != 1:
                number = f" ({counts[row.path]})" if counts[row.path] > 1 else ""
                found[row.path + number] = row.learning_rate
        return found

    def trainable(self) -> "Multipliers":
        """Returns the multipliers without the variables that are known to be frozen now."""
        known = [ref() for ref in self.references] or [None] * len(self.rows)
        kept = [n for n, v in enumerate(known) if v is None or v.trainable]
        return Multipliers(tuple(self.rows[n] for n in kept), self.law)

    def for_variables(self, variables: Sequence[Variable]) -> tuple[Multiplier, ...]:
        """Returns the multiplier of each variable.

        Args:
            variables: Variables of the model, or of a copy of it. A variable of the model may be missing, as
                frozen ones are. A variable that the model did not have before has the factors 1.

        Raises:
            ValueError: If the variables are those of another model.
        """
        known = {id(ref()): row for ref, row in zip(self.references, self.rows, strict=False)}
        if any(id(v) in known for v in variables) or all(row.is_one for row in self.rows):
            self._check_adapters([v for v in variables if known and id(v) not in known])
            return tuple(_of(v, known.get(id(v), Multiplier())) for v in variables)
        by_path = {(row.path, row.shape): row for row in self.rows}
        keys = [(v.path, tuple(v.shape)) for v in variables]
        if self._are_told_apart() and set(keys) <= set(by_path):
            return tuple(by_path[key] for key in keys)
        if [shape for _, shape in keys] == [row.shape for row in self.rows]:
            return self.rows
        raise ValueError(self._other_model(keys))

    def _check_adapters(self, new: Sequence[Variable]) -> None:
        """Refuses adapters that were made after the factors: their factors are not 1."""
        adapters = [f"`{v.path}`" for v in new if v.name.startswith("lora_")]
        if adapters and not all(row.is_one for row in self.rows):
            raise ValueError(
                "The multipliers of an optimizer must know all adapters of the model. Received: LoRA "
                f"that was enabled after `initialize`, with {listed(adapters, 6)}. Call `initialize` again: "
                'with `include="*/lora_*"` the other weights stay as they are.'
            )

    def _are_told_apart(self) -> bool:
        """Whether variables of equal path and shape have equal factors."""
        return len({(row.path, row.shape) for row in self.rows}) == len(
            {dataclasses.astuple(r) for r in self.rows}
        )

    def _other_model(self, keys: Sequence[tuple[str, tuple[int, ...]]]) -> str:
        shapes = dict(keys)
        first = (
            "The multipliers of an optimizer must be of the model that it trains. Received: multipliers of"
        )
        cure = "Call `initialize` on the model that you train, and take `report.optimizer` of its report."
        for row in self.rows:
            if shapes.get(row.path, row.shape) != row.shape:
                return (
                    f"{first} a model in which `{row.path}` has shape {row.shape}, for a model in which it "
                    f"has shape {shapes[row.path]}. {cure}"
                )
        if not self._are_told_apart():
            return (
                f"{first} a copy of a model in which several variables have one path, with different "
                f"multipliers: {listed(sorted(self._doubles()), 6)}. Give the layers names of their own, or "
                f"pass the variables of the model itself. {cure}"
            )
        missing = [f"`{row.path}`" for row in self.rows if not row.is_one and row.path not in shapes]
        others = [f"`{path}`" for path, _ in keys if path not in {row.path for row in self.rows}]
        return (
            f"{first} {listed(missing or ['no variable'], 6)}, for a model with {listed(others, 6)}. {cure}"
        )

    def _doubles(self) -> set[str]:
        seen: dict[tuple[str, tuple[int, ...]], tuple[float, ...]] = {}
        return {r.path for r in self.rows if seen.setdefault((r.path, r.shape), r.factors) != r.factors}

    def get_config(self) -> list[dict[str, Any]]:
        """Returns the rows as plain dicts."""
        return [dataclasses.asdict(row) | {"shape": list(row.shape)} for row in self.rows]

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, Any]]) -> "Multipliers":
        """Returns multipliers from what `get_config` returned."""
        return cls(tuple(Multiplier(**{**row, "shape": tuple(row["shape"])}) for row in config))

    def __getstate__(self) -> dict[str, Any]:
        """Returns the rows alone: a pickle has other variables."""
        return {"rows": self.rows, "law": self.law, "references": ()}


def _of(variable: Variable, row: Multiplier) -> Multiplier:
    return dataclasses.replace(row, path=variable.path, shape=tuple(variable.shape))
