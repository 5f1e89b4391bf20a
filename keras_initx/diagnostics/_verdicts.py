"""From numbers to words: what is wrong with a signal."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._report import KINDS, SignalRow
from keras_initx.diagnostics._rows import UNREACHED
from keras_initx.diagnostics._updates import Step
from keras_initx.fans import compute_fans
from keras_initx.walk import KernelSite

__all__ = ["SIZE", "Finding", "findings_of"]

# Limits beyond which a signal is called wrong; healthy nets stay far within them.
_VARIANCE = 16.0  # of a pre-activation, times what its true fan gives,
SIZE = 5.0  # if that makes it as many times too large or small
_END_TO_END = 1e3  # of the gains from input to output
_FRACTION = 0.5  # dead or saturated
_COLLAPSED = 1e-3  # of the distance between two rows that is left
_UPDATE = 1.0  # of a kernel's own size
# Of the fall in the loss that the gradient promises. Nocedal and Wright's algorithm 4.1 shortens a step below
# a quarter; deep nets that a quarter was left of still trained, those with less than a sixth did not.
_KEPT = 0.2

_GATES = ("sigmoid", "hard_sigmoid", "relu6")

Pairs = Sequence[tuple[KernelSite, SignalRow]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, before a cure is known.

    Attributes:
        path: Path of the kernel; empty for the model.
        kind: As in `Verdict`.
        message: What is wrong, in a sentence.
        weight: How wrong, among findings of one kind.
        paths: Paths of the kernels that a cure has to change; empty for all.
    """

    path: str
    kind: str
    message: str
    weight: float
    paths: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What is wrong, and where."""
        return self.kind, self.path


def findings_of(
    pairs: Pairs,
    forward_gain: float | None,
    backward_gain: float | None,
    input_agreement: float | None,
    duplicates: Sequence[Duplicate],
    step: Step | None,
) -> tuple[Finding, ...]:
    """Returns what is wrong, what matters most first.

    Args:
        pairs: The kernels with their rows.
        forward_gain: The model's.
        backward_gain: The model's.
        input_agreement: Mean cosine between two rows where they enter.
        duplicates: Pairs of kernels that are copies.
        step: One step of the optimizer, where the model has one.
    """
    rows = [row for _, row in pairs]
    found = list(_of_nonfinite(rows))
    for site, row in pairs:
        found += _of_row(site, row, pairs)
    if not any(row.nonfinite for row in rows):
        found += _of_model(pairs, forward_gain, backward_gain)
        found += _of_outputs(pairs, input_agreement)
        found += _of_gradients(rows)
        if step is not None and not any(finding.kind == "update" for finding in found):
            found += _of_step(rows, step)
    found += map(_of_copies, _groups(duplicates))
    return tuple(sorted(found, key=lambda finding: (KINDS.index(finding.kind), -finding.weight)))


def _of_nonfinite(rows: Sequence[SignalRow]) -> Iterator[Finding]:
    """The first kernel with NaN or Inf, and those that hold some themselves: it spreads from there."""
    bad = [row for row in rows if row.nonfinite]
    for number, row in enumerate(bad):
        if number == 0 or (row.weight_std is not None and math.isnan(row.weight_std)):
            message = f"{100 * row.nonfinite:.3g} % of its values are NaN or Inf"
            yield Finding(row.path, "nonfinite", message, -float(number), (row.path,))


def _of_row(site: KernelSite, row: SignalRow, pairs: Pairs) -> Iterator[Finding]:
    """What is wrong with one kernel."""
    if row.nonfinite:
        return
    found: list[tuple[str, float, str]] = []
    if row.weight_std == 0 and row.units and row.units > 1 and row.preactivation_std:
        found.append(
            ("symmetry", 1.0, f"all entries are equal: its {row.units} units stay equal in training")
        )
    ratio = _variance_ratio(site, row, pairs)
    if ratio:
        size, word = (ratio, "large") if ratio > 1 else (1 / ratio, "small")
        message = f"output variance {size:.3g} times too {word}{_fan_note(site, row)}"
        found.append(("variance", abs(math.log(ratio)), message))
    if row.saturated is not None and row.saturated > _FRACTION:
        message = f"{row.saturated:.0%} of its {site.feeds} outputs are saturated"
        found.append(("saturated", row.saturated, message))
    if row.dead is not None and row.dead > _FRACTION and row.dead >= _chance(row.units):
        found.append(("dead", row.dead, f"{row.dead:.0%} of its {row.units} units are 0 on all rows"))
    if row.update_ratio is not None and not row.update_ratio <= _UPDATE:
        message = f"one step changes it by {row.update_ratio:.3g} times its own size"
        found.append(("update", row.update_ratio, message))
    for kind, weight, message in found:
        yield Finding(row.path, kind, message, weight, (row.path,))


def _chance(units: int | None) -> float:
    """Half of the units are 0 where all rows are about equal: so many of few may be by chance."""
    return min(1.0, 0.5 + 3 * 0.5 / math.sqrt(units or 1))


def _variance_ratio(site: KernelSite, row: SignalRow, pairs: Pairs) -> float | None:
    """How many times the variance of a pre-activation is that of its true fan, where that does harm.

    The kernel's own variance must be off, too: a few units are large or small by chance, and a map smaller
    than its kernel is mostly padding. The signal must be far from unit size, which after calibration it is
    not. A small residual branch, head or gate does no harm, unless its size is that of a wrong fan, nor does
    a small table that something larger is added to.
    """
    if not row.forward_gain or not row.expected_std or row.normalized or site.fans is None:
        return None
    ratio, own = row.forward_gain**2, row.kernel_gain**2 if row.kernel_gain else 1.0
    least = min(abs(math.log(ratio)), abs(math.log(own)) if (own > 1) == (ratio > 1) else 0.0)
    size = abs(math.log(row.forward_gain * row.expected_std))
    if least < math.log(_VARIANCE) or size < math.log(SIZE) or size < abs(math.log(row.expected_std)):
        return None
    return None if ratio < 1 and _small_is_harmless(site, row, pairs) else ratio


def _small_is_harmless(site: KernelSite, row: SignalRow, pairs: Pairs) -> bool:
    if site.role == "embedding":
        readers = [(s, r) for s, r in pairs if s.depth == 1 and s.role != "embedding"]
        met = [r.expected_std for _, r in readers if r.expected_std]
        if met and min(met) * SIZE >= 1:
            return True
        # Where branches add to the rows, as in T-Fixup, rows of about unit length are a law of their own.
        length = site.kernel.shape[-1] * (row.weight_std or 0.0) ** 2
        return bool(readers) and all(r.in_branch for _, r in readers) and length * _VARIANCE >= 1
    if row.in_branch or (site.feeds in _GATES and not site.is_output):
        return True
    # Keys and values of a cross-attention come from outside of the branch that they work in.
    if site.attention and any(s.attention == site.attention and r.in_branch for s, r in pairs):
        return True
    return site.is_output and not _fan_note(site, row)


def _fan_note(site: KernelSite, row: SignalRow) -> str:
    """Says what Keras takes for the fans, where the kernel has the size that a law of these gives it."""
    if site.fans is None or site.axes or not row.weight_std:
        return ""
    shape = tuple(site.kernel.shape)
    plain = compute_fans(shape)
    if math.isclose(plain.fan_in, site.fans.fan_in) and math.isclose(plain.fan_out, site.fans.fan_out):
        return ""
    laws = (1 / plain.fan_in, 2 / plain.fan_in, 2 / (plain.fan_in + plain.fan_out))
    # The second moment of n normal entries has the relative error sqrt(2 / n): four of it.
    error = 4 * math.sqrt(2 / math.prod(shape))
    if not any(abs(row.weight_std**2 / law - 1) < error for law in laws):
        return ""
    return (
        f": by the shape {shape} its fans are {plain.fan_in:g} and {plain.fan_out:g}, "
        f"the true ones are {site.fans.fan_in:g} and {site.fans.fan_out:g}"
    )


def _of_model(pairs: Pairs, forward_gain: float | None, backward_gain: float | None) -> Iterator[Finding]:
    """What is wrong from end to end. A normalization on the way makes the sizes before it harmless."""
    if any(row.normalized for _, row in pairs):
        return
    words = {"forward": ("signal", forward_gain), "backward": ("gradient", backward_gain)}
    for kind, (name, gain) in words.items():
        if gain is None or not gain or 1 / _END_TO_END <= gain <= _END_TO_END:
            continue
        how = "grows" if gain > 1 else "shrinks"
        message = f"the {name} {how} by {max(gain, 1 / gain):.3g} times over {len(pairs)} kernels"
        yield Finding("", kind, message, abs(math.log(gain)))


def _of_outputs(pairs: Pairs, input_agreement: float | None) -> Iterator[Finding]:
    for site, row in pairs:
        if not site.is_output or row.correlation is None or input_agreement is None:
            continue
        if 1 - row.correlation < _COLLAPSED * (1 - input_agreement):
            message = f"all rows give about the same output (mean cosine {row.correlation:.6f})"
            yield Finding(row.path, "collapse", message, row.correlation)


def _of_gradients(rows: Sequence[SignalRow]) -> Iterator[Finding]:
    """Kernels that no gradient reaches; behind a kernel of zeros that itself is moved one will in a step."""
    if any(row.weight_std == 0 and row.gradient_std for row in rows):
        return
    reached = [row for row in rows if row.note != UNREACHED and not row.in_branch]
    none = [row.path for row in reached if row.gradient_std == 0]
    if none:
        others = f", nor {len(none) - 1} more" if len(none) > 1 else ""
        yield Finding(none[0], "no_gradient", f"no gradient reaches it{others}", 1.0, tuple(none))


def _of_step(rows: Sequence[SignalRow], step: Step) -> Iterator[Finding]:
    """A step so long that the loss falls by a fraction of what its gradient promises, or rises."""
    if step.kept is None or step.kept >= _KEPT:
        return
    largest = max((row.update_ratio for row in rows if row.update_ratio is not None), default=0.0)
    how = f"lowers the loss by {step.fall:.3g}" if step.fall >= 0 else f"raises the loss by {-step.fall:.3g}"
    message = (
        f"one step {how} where its gradient promises a fall of {step.promise:.3g}, so it is too long, at an "
        f"update ratio of at most {largest:.3g}"
    )
    yield Finding("", "update", message, -step.kept)


def _groups(duplicates: Sequence[Duplicate]) -> list[list[str]]:
    """The paths of kernels that are copies of each other, together."""
    groups: list[list[str]] = []
    for pair in duplicates:
        group = next((group for group in groups if pair.path in group or pair.other in group), None)
        if group is None:
            group = []
            groups.append(group)
        group += [path for path in (pair.path, pair.other) if path not in group]
    return groups


def _of_copies(group: list[str]) -> Finding:
    others = ", ".join(f"`{path}`" for path in group[1:4]) + (", ..." if len(group) > 4 else "")
    message = f"its kernel is that of {others}: one seed drew them all"
    return Finding(group[0], "duplicate", message, float(len(group)), tuple(group[1:]))
