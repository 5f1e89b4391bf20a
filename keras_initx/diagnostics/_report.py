"""The result of `diagnose`: rows, verdicts, and limits for tests."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._format import columns_of
from keras_initx.diagnostics._jacobian import Spectrum
from keras_initx.reports import Report
from keras_initx.tables import Table

__all__ = ["KINDS", "SignalError", "SignalReport", "SignalRow", "Verdict"]

# The kinds of verdicts, in the order of a report. A fault stands before the faults that it brings about: a
# NaN makes all later numbers meaningless, and a signal that fades makes gradients fade.
KINDS = (
    *("nonfinite", "symmetry", "duplicate", "adapter", "forward", "backward", "variance", "saturated"),
    *("dead", "collapse", "no_gradient", "update"),
)


class SignalError(ValueError):
    """Raised by `SignalReport.check` for a report that breaks a limit.

    Attributes:
        rows: The rows that break a limit. Empty if verdicts alone break one.
    """

    def __init__(self, message: str, rows: tuple["SignalRow", ...]) -> None:
        super().__init__(message)
        self.rows = rows


@dataclasses.dataclass(frozen=True)
class SignalRow:
    """The signal and the gradient at one kernel. A number is None if it does not apply or was not measured.

    If a layer runs several times in one pass, its numbers are means over the calls. The bias of a head may be
    a prior, so `forward_gain`, `saturated` and `correlation` of a head leave the bias out.

    Attributes:
        path: Path of the kernel within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        units: Number of the kernel's outputs: features or channels.
        expected_std: Root mean square that the pre-activation would have, on the measured input, if the
            kernel had the variance gain^2 / fan_in, with its true fan and the gain of the activation that
            feeds it. 1 for an embedding, unless the embedding also makes the logits.
        preactivation_std: Standard deviation of the pre-activation over rows, positions and units.
        forward_gain: Root mean square of the pre-activation, divided by `expected_std`.
        kernel_gain: The same gain from the kernel alone, without data: sqrt(fan_in E[w^2]) / gain.
        backward_gain: Length of the gradient of the loss at the kernel's input, divided by its length at the
            pre-activation, times sqrt(E f'(z)^2) of the activation f that feeds the kernel.
        signal_gradient: Length of the gradient of the loss at the pre-activation, all rows together.
        chi: fan_in E[w^2] E[f'(z)^2] with the activation f behind the kernel, for a normal z of the measured
            standard deviation.
        activation_mean: Mean of the activation behind the kernel. If there is none, of the kernel's output.
        activation_std: Standard deviation of this activation.
        activation_square: Second moment of this activation.
        dead: Fraction of units with an activation of 0 on all rows.
        saturated: Fraction of a bounded activation within 2.5 % of its range from a bound.
        nonfinite: Fraction of NaN and Inf in the kernel, its pre-activation or its activation: the largest of
            the three.
        correlation: Mean cosine between the pre-activations of two rows.
        weight_std: Standard deviation of the kernel's entries.
        gradient_std: Standard deviation of the gradient of the loss with respect to the entries. None for a
            frozen kernel.
        update_ratio: Root mean square of the change by one step of the compiled optimizer, divided by the
            root mean square of the kernel. Of a kernel with an adapter, the change that A and B make.
        normalized: Whether a normalization makes the size of the kernel's output harmless.
        in_branch: Whether the kernel lies in a residual branch.
        note: The facts that are not known of the kernel, and the reason.
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
    """A fault of the model, and its cure.

    Attributes:
        path: Path of the kernel. Empty for a fault of the whole model.
        kind: `nonfinite`, `symmetry`, `duplicate`, `adapter`, `forward`, `backward`, `variance`, `saturated`,
            `dead`, `collapse`, `no_gradient` or `update`.
        message: The fault, in a sentence.
        cure: The cure, as code over `initx`, `model` and `data`. A comment if no cure is known.
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
    """The report of `diagnose`.

    Attributes:
        rows: One row per chosen kernel, in the order in which the layers run.
        verdicts: The faults, the most important first.
        loss: The loss on the batch.
        loss_name: The origin of the loss: `given`, `compiled`, or `random projection` without targets.
        samples: Number of rows of data in the batch.
        forward_gain: Root mean square of the heads' pre-activations, divided by the root mean square of the
            first kernels' inputs. Of the whole model. None if one of the two is not known.
        backward_gain: Length of the gradient at the first kernels' inputs, divided by its length at the
            heads' pre-activations. Of the whole model. None if one of the two is not known.
        chi_1: Geometric mean of chi over all kernels of the model, without kernels before a normalization.
            None if there is none.
        duplicates: Pairs of kernels that are equal or perfectly correlated.
        jacobian: Singular values of the outputs with respect to the inputs, if they were asked for.
        seconds: Seconds that the call took, with all cures.
        step_kept: Fall of the loss on the batch in one step of the compiled optimizer, divided by the fall
            that the gradient promises. 1 for a tiny step; below 0 if the loss rises. None without targets or
            an optimizer.
        unseen: Paths of the chosen kernels whose signal could not be read: nothing is known of their health.
        seen: Share of the parameters of the chosen kernels whose signal was read, from 0 to 1.
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
    unseen: tuple[str, ...] = ()
    seen: float = 1.0

    def check(
        self,
        *,
        min_seen: float = 1.0,
        max_gain: float | None = 2.0,
        max_dead: float | None = 0.5,
        max_saturated: float | None = 0.5,
        max_update_ratio: float | None = None,
        max_verdicts: int | None = 0,
        allow: str | Sequence[str] = (),
    ) -> None:
        """Raises SignalError if a row breaks a limit, or there is a verdict that is not allowed.

        The gains of a kernel before a normalization are not checked. The gains of a kernel in a residual
        branch may be small. If a kernel has few units, its output is large or small by chance, so the limits
        of the gains are wider by three standard errors, 3 / sqrt(2 units).

        Args:
            min_seen: Smallest share of the kernels' parameters whose signal must have been read.
            max_gain: Largest forward and backward gain. The smallest is 1 / max_gain. None for no limit.
            max_dead: Largest fraction of dead units. None for no limit.
            max_saturated: Largest fraction of saturated activations. None for no limit.
            max_update_ratio: Largest ratio of an update to its weights. None for no limit.
            max_verdicts: Largest number of verdicts. None for any number, but NaN, Inf and equal kernels
                still raise the error.
            allow: Kinds of verdicts that do not count, such as `("update",)`.

        Raises:
            SignalError: If a limit is broken. Its `rows` are the rows that break a limit.
            ValueError: If a limit is not a number of at least 0, `max_gain` is below 1, `min_seen` is not
                from 0 to 1, or `allow` holds a word that is not a kind of verdict.
        """
        if not (isinstance(min_seen, int | float) and 0 <= min_seen <= 1):
            raise ValueError(f"`min_seen` must be a number from 0 to 1. Received: min_seen={min_seen!r}.")
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
        # One error names all broken limits: a test that fails again for the next limit costs a run each time.
        lines = [f"{row.path}: {'; '.join(found)}" for row, found in broken.items()]
        if "duplicate" not in allowed:
            lines += [f"{d.path} and {d.other}: kernels are perfectly correlated" for d in self.duplicates]
        verdicts = [str(verdict) for verdict in self.verdicts if verdict.kind not in allowed]
        if max_verdicts is not None and len(verdicts) > max_verdicts:
            lines += verdicts
        if self.seen < min_seen:
            lines.insert(
                0, f"{self._seen()}: pass min_seen={math.floor(100 * self.seen) / 100:g} to allow it"
            )
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
            *([] if kept is None else [f"a step keeps {kept:.0%} of the fall that its gradient promises"]),
            f"{self.seconds:.2f} s",
        ]
        lines = [", ".join(parts), *([self._seen()] if self.unseen else [])]
        if (found := self.jacobian) is not None:
            lines.append(
                f"Jacobian of {found.outputs} outputs by {found.inputs} inputs: largest singular value "
                f"{found.largest:.4g}, root mean square {math.sqrt(found.mean_square):.4g}"
            )
        count = len(self.verdicts)
        of = " on those that were seen" if self.unseen else ""
        return [
            *lines,
            f"{count} verdict{'s' if count > 1 else ''}" if count else f"no verdicts{of}{self._untold()}",
        ]

    def _seen(self) -> str:
        """How much of the model was seen."""
        seen, share = len(self.rows) - len(self.unseen), math.floor(100 * self.seen)
        names = ", ".join(self.unseen[:3]) + (", ..." if len(self.unseen) > 3 else "")
        return f"saw {seen} of {len(self.rows)} kernels, {share} % of their parameters; not {names}"

    def _untold(self) -> str:
        """The limits of a report without verdicts: a healthy signal promises nothing of the training."""
        if self.step_kept is None:
            return "; nothing is known of the learning rate without targets and a compiled optimizer"
        return "; the learning rate is known to suit the first step only"


def _check_kinds(allow: str | Sequence[str]) -> set[str]:
    """Returns the kinds that `allow` holds. One kind may come as a text."""
    kinds = {allow} if isinstance(allow, str) else set(allow)
    if not kinds <= set(KINDS):
        raise ValueError(
            f"`allow` must hold kinds of verdicts, from {sorted(KINDS)}. Received: allow={allow!r}."
        )
    return kinds


def _broken(row: SignalRow, limits: Mapping[str, float | None], allowed: set[str]) -> list[str]:
    """Returns a text for each limit that a row breaks."""
    bad = row.nonfinite and "nonfinite" not in allowed
    found = [f"{100 * row.nonfinite:.3g} % of its values are NaN or Inf"] if bad else []
    gain = limits["max_gain"]
    if gain is not None and not row.normalized:
        # The std of n normal numbers has the relative standard error 1 / sqrt(2 n). With rows that resemble
        # each other, only the units are independent.
        spread = 3 / math.sqrt(2 * (row.units or 1))
        least = 0.0 if row.in_branch else max(1 - spread, 0) / gain
        for name in ("forward_gain", "backward_gain"):
            value = getattr(row, name)
            if value is not None and not least <= value <= gain * (1 + spread):
                found.append(f"{name} {value:.3g}")
    for name in ("dead", "saturated", "update_ratio"):
        value, limit = getattr(row, name), limits[f"max_{name}"]
        # `not <=`, since NaN must break the limit.
        if value is not None and limit is not None and not value <= limit:
            found.append(f"{name} {value:.3g}")
    return found
