"""What diagnose found, in rows and in words."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._format import columns_of
from keras_initx.diagnostics._jacobian import Spectrum
from keras_initx.reports import Report
from keras_initx.tables import Table

__all__ = ["KINDS", "SignalError", "SignalReport", "SignalRow", "Verdict"]

# Of verdicts: what matters most first.
KINDS = (
    *("nonfinite", "symmetry", "duplicate", "forward", "backward", "variance", "saturated", "dead"),
    *("collapse", "no_gradient", "update"),
)


class SignalError(ValueError):
    """A report that breaks a limit of `SignalReport.check`; `rows` are those that do."""

    def __init__(self, message: str, rows: tuple["SignalRow", ...]) -> None:
        super().__init__(message)
        self.rows = rows


@dataclasses.dataclass(frozen=True)
class SignalRow:
    """What one kernel makes of the signal; None for what does not apply or was not seen.

    A head's bias may be a prior: `forward_gain`, `saturated` and `correlation` of a head leave it out.

    Attributes:
        path: Path of the kernel within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        units: Number of its outputs: channels, features.
        expected_std: What a kernel of variance gain^2 / fan_in, with its true fan and the gain of the
            activation that feeds it, would make of what reaches it: a root mean square. 1 for an embedding
            that does not make the logits, too.
        preactivation_std: Standard deviation of its pre-activation over rows, positions and units.
        forward_gain: Root mean square of the pre-activation over `expected_std`.
        kernel_gain: The same by the kernel alone: sqrt(fan_in E[w^2]) over the gain.
        backward_gain: Length of the gradient of the loss at what reaches it over that at its pre-activation,
            times sqrt(E f'(z)^2) of the activation that feeds it.
        signal_gradient: Length of the gradient of the loss at its pre-activation, all rows together.
        chi: fan_in E[w^2] E[f'(z)^2] with the activation f that it feeds, z normal with the measured std.
        activation_mean: Mean of the activation that its output goes through, of the output if there is none.
        activation_std: Its standard deviation.
        activation_square: Its second moment.
        dead: Fraction of units whose activation is 0 on all rows.
        saturated: Fraction of the activation within 2.5 % of its range from a bound, for bounded ones.
        nonfinite: Fraction of NaN and Inf in the kernel, its pre-activation or its activation, the largest.
        correlation: Mean cosine between the pre-activations of two rows.
        weight_std: Standard deviation of the kernel's entries.
        gradient_std: Standard deviation of the gradient of the loss by them; None for a frozen kernel.
        update_ratio: Root mean square of what one step of the compiled optimizer changes over that of the
            kernel.
        normalized: Whether a normalization makes the size of its output harmless.
        in_branch: Whether it lies in a residual branch.
        note: What is not known of it, and why.
    """

    path: str
    role: str
    units: int | None = None
    expected_std: float | None = None
    preactivation_std: float | None = None
    forward_gain: float | None = None
    kernel_gain: float | None = None
    backward_gain: float | None = None
    signal_gradient: float | None = None
    chi: float | None = None
    activation_mean: float | None = None
    activation_std: float | None = None
    activation_square: float | None = None
    dead: float | None = None
    saturated: float | None = None
    nonfinite: float = 0.0
    correlation: float | None = None
    weight_std: float | None = None
    gradient_std: float | None = None
    update_ratio: float | None = None
    normalized: bool = False
    in_branch: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Something that is wrong, and what to do.

    Attributes:
        path: Path of the kernel; empty for the model.
        kind: `nonfinite`, `symmetry`, `duplicate`, `variance`, `dead`, `saturated`, `forward`, `backward`,
            `collapse`, `no_gradient` or `update`.
        message: What is wrong, in a sentence.
        cure: What to do, as code over `initx`, `model` and `data`; a comment where no cure is known.
    """

    path: str
    kind: str
    message: str
    cure: str

    def __str__(self) -> str:
        """Formats the verdict as one line."""
        return f"`{self.path or 'the model'}`: {self.message}; {self.cure}"


@dataclasses.dataclass(frozen=True)
class SignalReport(Report):
    """What `diagnose` found.

    Attributes:
        rows: One row per kernel, in the order in which the layers run.
        verdicts: What is wrong, what matters most first.
        loss: The loss on the batch.
        loss_name: What it is: `given`, `compiled`, or `random projection` where there are no targets.
        samples: Rows of data in the batch.
        forward_gain: Root mean square of what leaves the heads, before their activation, over that of what
            reaches the first kernel; None if one of them is not known.
        backward_gain: Length of the gradient at what reaches the first kernel over that at the heads.
        chi_1: Geometric mean of the rows' chi, those before a normalization left out; None if there is none.
        duplicates: Pairs of kernels that are equal, or perfectly correlated.
        jacobian: Singular values of outputs by inputs, where they were asked for.
        seconds: Seconds spent, cures included.
        step_kept: By how much one step of the compiled optimizer lowers the loss on the batch, over what its
            gradient promises: 1 for a tiny step, below 0 where the loss rises; None without targets or
            optimizer.
    """

    rows: tuple[SignalRow, ...]
    verdicts: tuple[Verdict, ...]
    loss: float
    loss_name: str
    samples: int
    forward_gain: float | None
    backward_gain: float | None
    chi_1: float | None
    duplicates: tuple[Duplicate, ...]
    jacobian: Spectrum | None
    seconds: float
    step_kept: float | None = None

    def check(
        self,
        *,
        max_gain: float | None = 2.0,
        max_dead: float | None = 0.5,
        max_saturated: float | None = 0.5,
        max_update_ratio: float | None = None,
        max_verdicts: int | None = 0,
        allow: Sequence[str] = (),
    ) -> None:
        """Raises SignalError when a row breaks a limit, or there is a verdict that is not allowed.

        Gains of kernels before a normalization are not looked at, and those within a residual branch may be
        small. The output of few units is large or small by chance: limits of gains are widened by three
        standard errors, 3 / sqrt(2 units).

        Args:
            max_gain: Forward and backward gain must lie between its inverse and it.
            max_dead: Largest fraction of dead units.
            max_saturated: Largest fraction of saturated activations.
            max_update_ratio: Largest ratio of an update to its weights.
            max_verdicts: Most verdicts; None for any number, but NaN, Inf and equal kernels break it still.
            allow: Kinds of verdicts that do not count, such as `("update",)`.

        Raises:
            SignalError: With the rows that break a limit.
            ValueError: If a limit is not a positive number, or there is no such kind.
        """
        limits = {
            "max_gain": max_gain,
            "max_dead": max_dead,
            "max_saturated": max_saturated,
            "max_update_ratio": max_update_ratio,
            "max_verdicts": max_verdicts,
        }
        for name, limit in limits.items():
            if limit is not None and not (isinstance(limit, int | float) and 0 <= limit < math.inf):
                raise ValueError(f"`{name}` must be None or a number of at least 0. Received: {limit!r}.")
        if max_gain is not None and max_gain < 1:
            raise ValueError(f"`max_gain` must be at least 1. Received: max_gain={max_gain!r}.")
        allowed = _check_kinds(allow)
        broken = {row: found for row in self.rows if (found := _broken(row, limits, allowed))}
        lines = [f"{row.path}: {'; '.join(found)}" for row, found in broken.items()]
        if "duplicate" not in allowed:
            lines += [f"{d.path} and {d.other}: perfectly correlated" for d in self.duplicates]
        verdicts = [str(verdict) for verdict in self.verdicts if verdict.kind not in allowed]
        if max_verdicts is not None and len(verdicts) > max_verdicts:
            lines += verdicts
        if lines:
            given = ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
            raise SignalError("\n".join([f"the signal breaks a limit ({given}):", *lines]), tuple(broken))

    def _table(self) -> Table:
        """The kernels, with the totals and the verdicts."""
        return Table(columns_of(self.rows), (*self._totals(), *map(str, self.verdicts)))

    def _totals(self) -> list[str]:
        """The numbers of the whole model, in sentences."""
        gains = {
            "forward gain": self.forward_gain,
            "backward gain": self.backward_gain,
            "chi_1": self.chi_1,
        }
        kept = self.step_kept
        parts = [
            f"{len(self.rows)} kernels on {self.samples} rows",
            *(f"{name} {value:.3g}" for name, value in gains.items() if value is not None),
            f"loss {self.loss:.4g} ({self.loss_name})",
            *([] if kept is None else [f"a step keeps {kept:.0%} of what its gradient promises"]),
            f"{self.seconds:.2f} s",
        ]
        lines = [", ".join(parts)]
        if (found := self.jacobian) is not None:
            lines.append(
                f"Jacobian of {found.outputs} outputs by {found.inputs} inputs: largest singular value "
                f"{found.largest:.4g}, root mean square {math.sqrt(found.mean_square):.4g}"
            )
        count = len(self.verdicts)
        verdicts = f"{count} verdict{'s' if count > 1 else ''}" if count else f"no verdicts{self._untold()}"
        return [*lines, verdicts]

    def _untold(self) -> str:
        """What a report without verdicts does not promise."""
        if self.step_kept is None:
            return "; nothing is known of the learning rate without targets and a compiled optimizer"
        return "; of the learning rate the first step alone is known"


def _check_kinds(allow: Any) -> set[str]:
    kinds = {allow} if isinstance(allow, str) else set(allow)
    if not kinds <= set(KINDS):
        raise ValueError(
            f"`allow` must hold kinds of verdicts, of {sorted(KINDS)}. Received: allow={allow!r}."
        )
    return kinds


def _broken(row: SignalRow, limits: dict[str, Any], allowed: set[str]) -> list[str]:
    bad = row.nonfinite and "nonfinite" not in allowed
    found = [f"{100 * row.nonfinite:.3g} % of its values are NaN or Inf"] if bad else []
    gain = limits["max_gain"]
    if gain is not None and not row.normalized:
        spread = 3 / math.sqrt(2 * (row.units or 1))
        least = 0.0 if row.in_branch else max(1 - spread, 0) / gain
        for name in ("forward_gain", "backward_gain"):
            value = getattr(row, name)
            if value is not None and not least <= value <= gain * (1 + spread):
                found.append(f"{name} {value:.3g}")
    for name in ("dead", "saturated", "update_ratio"):
        value, limit = getattr(row, name), limits[f"max_{name}"]
        if value is not None and limit is not None and not value <= limit:
            found.append(f"{name} {value:.3g}")
    return found
