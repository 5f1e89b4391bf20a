"""The report of `initialize`: a row for each weight, as data and as a table."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras_initx._types import Model, Optimizer
from keras_initx.adapters import PlainLoRA, Start, as_plain
from keras_initx.fans import Fans
from keras_initx.optimizers import Multipliers, scale_rates
from keras_initx.reports import Report, records_of
from keras_initx.tables import Table, listed, numbers, words

__all__ = ["FROZEN", "OWN", "UNKNOWN", "InitReport", "InitRow"]

FROZEN = "frozen: left as it is"
OWN = "drawn by its layer's own initializer"
UNKNOWN = "nothing tells its initial value: left as it is"


@dataclasses.dataclass(frozen=True)
class InitRow:
    """One weight: the values that `initialize` gave the weight, or the reason why the weight kept its values.

    Attributes:
        path: Path of the weight within the model.
        role: Role of a kernel, as in `keras_initx.walk`. The other weights have the role `bias`, `shift`,
            `statistic` or `other`.
        shape: Shape of the weight.
        initializer: The initializer that drew the weight; empty if the weight was left as it is.
        fans: The true fans of a kernel; None for the other weights.
        std: Standard deviation of the new values of a kernel, over the first values if the kernel is large.
            None for the other weights, and for a kernel that was left as it is.
        learning_rate: The factor by which `report.optimizer` multiplies the learning rate of the weight.
        note: Why the weight was left as it is, or a fact to know about the weight; empty when all is well.
        is_kernel: Whether the weight mixes inputs into outputs. Biases, statistics and scales do not.
        source: Path of the weight of the donor that the value comes from; empty for other values.
        share: Share of the parameters that come from there: 1, but for new rows of words or classes.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    initializer: str = ""
    fans: Fans | None = None
    std: float | None = None
    learning_rate: float = 1.0
    note: str = ""
    is_kernel: bool = False
    source: str = ""
    share: float = 1.0

    @property
    def size(self) -> int:
        """Number of the weight's parameters."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class InitReport(Report):
    """The report of `initialize`. `print(report)` shows the kernels as a table.

    Attributes:
        rows: One row for each weight in the scope of the call: kernels first, in call order.
        initializer: The initializer or the strategy.
        seed: The seed of all weights. The same seed gives the same weights again.
        optimizer_reset: Whether the slots of the model's optimizer were set back.
        seconds: Seconds that the call took.
        multipliers: The factors by which `optimizer` multiplies learning rates, for each weight of the whole
            model, drawn or not.
        starts: How the adapters began, for `as_lora`; empty unless the strategy is one for adapters.
    """

    rows: tuple[InitRow, ...]
    initializer: str
    seed: int
    optimizer_reset: bool
    seconds: float
    multipliers: Multipliers = dataclasses.field(default_factory=Multipliers)
    starts: tuple[Start, ...] = dataclasses.field(default=(), repr=False)

    @property
    def learning_rates(self) -> dict[str, float]:
        """The factors of learning rates that are not 1, by the path of the variable (`variable.path`)."""
        return self.multipliers.learning_rates

    def optimizer(self, optimizer: Optimizer, *, scale_decay: bool = False) -> Optimizer:
        """Returns a copy of an optimizer that multiplies the learning rates of the weights by their factors.

        The copy is of a subclass of the optimizer's class, has one `learning_rate`, and is saved and loaded
        with the model. Schedules, callbacks, clipping, averages, accumulation of gradients, loss scales and
        `jit_compile` work as they do without the factors.

        Args:
            optimizer: A new Keras optimizer, which steps as the one that the strategy was given.
            scale_decay: Whether the factor of a weight multiplies its weight decay, too. If not, the decay
                per step is the optimizer's `learning_rate` times its `weight_decay`, as in the authors'
                `MuAdamW`.

        Returns:
            The copy, to be passed to `compile`.

        Raises:
            ValueError: If the optimizer has been built, does not step variable by variable, or is not the one
                that the factors are for. At the first step, if the model is another one.
        """
        return scale_rates(optimizer, self.multipliers, scale_decay=scale_decay)

    def as_lora(self, model: Model) -> PlainLoRA:
        """Returns the adapters of a model as plain LoRA for the original base, before or after training.

        A start that changed the base, as `PiSSA` and `OLoRA` do, gives adapters of twice the rank; the other
        starts keep the rank. The scale alpha / rank is in the factors. `apply` gives them to a model with the
        original weights, whose keras_hub backbone can then `save_lora_weights`.

        Args:
            model: The model that this report is of.

        Returns:
            The adapters, of scale 1. After `LoftQ` of one round they belong on the quantized base.

        Raises:
            ValueError: If the report is not of a start of adapters, the model has other adapters, or the base
                is one that only this model has, as after several rounds of `LoftQ`.
        """
        return as_plain(self.starts, model)

    @property
    def kept(self) -> tuple[str, ...]:
        """Paths of the weights that were left as they were because nothing tells their initial values."""
        return tuple(row.path for row in self.rows if row.note.endswith(UNKNOWN))

    @property
    def matched(self) -> float:
        """Share of the parameters in scope that come from a donor, without new rows, from 0 to 1."""
        whole = sum(row.size for row in self.rows)
        return sum(row.size * row.share for row in self.rows if row.source) / whole if whole else 0.0

    @property
    def unseen(self) -> tuple[str, ...]:
        """Paths of the kernels that the initializer could not draw: nothing tells what they are for."""
        return tuple(row.path for row in self.rows if _is_unseen(row))

    @property
    def seen(self) -> float:
        """Share of the parameters of the kernels in scope without the unseen kernels, from 0 to 1."""
        unseen, whole = (
            sum(row.size for row in self.rows if row.is_kernel and counts(row))
            for counts in (_is_unseen, lambda _: True)
        )
        return 1 - unseen / whole if whole else 1.0

    def _more(self) -> dict[str, Any]:
        rows = [dataclasses.asdict(row) for row in self.multipliers.rows if not row.is_one]
        starts = [start.path for start in self.starts]
        return {
            "starts": starts,
            "kept": self.kept,
            "unseen": self.unseen,
            "seen": self.seen,
            "multipliers": rows,
        }

    def _records(self) -> list[dict[str, object]]:
        """Rows of the data frame, with a column for each of the two fans."""
        records = records_of(self.rows)
        for record, row in zip(records, self.rows, strict=True):
            del record["fans"]
            record["fan_in"] = row.fans.fan_in if row.fans else None
            record["fan_out"] = row.fans.fan_out if row.fans else None
        return records

    def _table(self) -> Table:
        """The kernels and the weights with a note; other weights are only counted."""
        shown = [row for row in self.rows if row.fans or row.learning_rate != 1 or row.note]
        rates = bool(self.learning_rates)  # a column of ones would say nothing
        columns = (
            words("path", [row.path for row in shown]),
            words("role", [row.role for row in shown]),
            words("shape", ["x".join(map(str, row.shape)) or "()" for row in shown]),
            numbers("fan in", [row.fans.fan_in if row.fans else None for row in shown]),
            numbers("fan out", [row.fans.fan_out if row.fans else None for row in shown]),
            words("initializer", [row.initializer for row in shown]),
            numbers("std", [row.std for row in shown]),
            numbers("lr x", [row.learning_rate if rates else None for row in shown]),
            words("note", [row.note for row in shown], note=True),
        )
        drawn = sum(bool(row.initializer) for row in self.rows)
        reset = ", optimizer slots reset" if self.optimizer_reset else ""
        total = (
            f"{drawn} of {len(self.rows)} weights drawn by {self.initializer} with seed {self.seed}{reset}, "
            f"{self.seconds:.2f} s; {self._hidden(shown)} are not shown"
        )
        return Table(columns, (total,), self._first())

    def _hidden(self, shown: Sequence[InitRow]) -> str:
        """Where the values of the weights come from that the table leaves out."""
        seen = {row.path for row in shown}
        left = [row for row in self.rows if row.path not in seen]
        taken = sum(bool(row.source) for row in left)
        own = "by their layers' own initializers"
        if not taken:
            return f"{len(left)} biases, scales and statistics, {own},"
        rest = f" and {len(left) - taken} {own}" if len(left) > taken else ""
        return f"{len(left)} biases, scales and statistics, {taken} of the donor{rest},"

    def _first(self) -> tuple[str, ...]:
        """How many kernels the initializer drew, if it could not draw them all."""
        if not self.unseen:
            return ()
        kernels = sum(row.is_kernel for row in self.rows)
        share = math.floor(100 * self.seen)
        seen = f"saw {kernels - len(self.unseen)} of {kernels} kernels, {share} % of their parameters"
        return (f"{seen}; not {listed(self.unseen)}",)


def _is_unseen(row: InitRow) -> bool:
    return row.is_kernel and (OWN in row.note or UNKNOWN in row.note)
