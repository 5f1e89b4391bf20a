"""Turns the numbers of an examination into findings: the faults, each in a sentence.

A verdict that is wrong costs more trust than a verdict that is missing. So each rule has two parts:

    the number is far beyond its limit      limits that healthy models do not come near
    the number does harm where it stands    no normalization, residual branch, gate or prior explains it

Faults come in chains, and only the start of a chain is told: one NaN spreads over all later kernels, and one
kernel of zeros takes the gradient from all kernels before it.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

from keras_initx.diagnostics._adapters import faults_of
from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._report import KINDS, SignalRow
from keras_initx.diagnostics._rows import UNREACHED
from keras_initx.diagnostics._updates import Step
from keras_initx.fans import compute_fans
from keras_initx.walk import KernelSite

__all__ = ["SIZE", "Finding", "findings_of"]

# The limits. Healthy nets stay far within them.
_VARIANCE = 16.0  # factor between the variance of a pre-activation and its variance under the law
SIZE = 5.0  # factor between the size of a signal and 1
_END_TO_END = 1e3  # gains from the input to the heads, or their inverse
_FRACTION = 0.5  # share of units that are dead, or of outputs that are saturated
_COLLAPSED = 1e-3  # share of the distance between two rows that is left at a head
_UPDATE = 1.0  # change of a kernel by one step, over its size
# Share of the fall in the loss that the gradient promises. Algorithm 4.1 of Nocedal and Wright shortens a
# step below a quarter. In our trials, deep nets that kept a quarter still trained, and nets that kept less
# than a sixth did not.
_KEPT = 0.2

# Activations of squeeze-and-excitation gates. A small pre-activation leaves such a gate about half open.
_GATES = ("sigmoid", "hard_sigmoid", "relu6")

Pairs = Sequence[tuple[KernelSite, SignalRow]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault, before its cure is known.

    Attributes:
        path: Path of the kernel. Empty for a fault of the whole model.
        kind: The kind, as in `Verdict`.
        message: The fault, in a sentence.
        weight: Importance among findings of one kind.
        paths: Paths of the kernels that a cure has to change. Empty for all kernels.
        cure: The only law that cures it, as code. Empty for the laws of its kind.
    """

    path: str
    kind: str
    message: str
    weight: float
    paths: tuple[str, ...] = ()
    cure: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Kind and path, by which findings of two examinations are compared."""
        return self.kind, self.path

    def concerns(self, chosen: Collection[str]) -> bool:
        """Whether the fault is of one of these kernels, or of the whole model, which no choice hides."""
        return not self.path or any(path in chosen for path in (self.path, *self.paths))


def findings_of(
    pairs: Pairs,
    forward_gain: float | None,
    backward_gain: float | None,
    input_agreement: float | None,
    duplicates: Sequence[Duplicate],
    step: Step | None,
) -> tuple[Finding, ...]:
    """Returns the faults, the most important first.

    Args:
        pairs: The kernels with their rows.
        forward_gain: Gain of the signal through the whole model; None if it is not known.
        backward_gain: Gain of the gradient through the whole model; None if it is not known.
        input_agreement: Mean cosine between two rows of the input; None if it is not known.
        duplicates: Pairs of kernels that are copies.
        step: One step of the optimizer; None if the model has none.
    """
    rows = [row for _, row in pairs]
    found = list(_of_nonfinite(rows))
    for site, row in pairs:
        found += _of_row(site, row, pairs)
    # With a NaN somewhere, the numbers of the whole model mean nothing.
    if not any(row.nonfinite for row in rows):
        found += _of_model(pairs, forward_gain, backward_gain)
        found += _of_outputs(pairs, input_agreement)
        found += _of_gradients(rows)
        if step is not None and not any(finding.kind == "update" for finding in found):
            found += _of_step(rows, step)
    factors = {site.path for site, _ in pairs if site.is_factor}
    found += [_of_copies(group, factors) for group in _groups(duplicates)]
    found += [Finding(path, kind, told, 1.0, (path,), cure) for path, kind, told, cure in faults_of(pairs)]
    return tuple(sorted(found, key=lambda finding: (KINDS.index(finding.kind), -finding.weight)))


def _of_nonfinite(rows: Sequence[SignalRow]) -> Iterator[Finding]:
    """Finds the first kernel with NaN or Inf, and all kernels that hold NaN or Inf in their entries.

    From these, NaN spreads over the outputs of all later kernels. The later kernels are not told.
    """
    bad = [row for row in rows if row.nonfinite]
    for number, row in enumerate(bad):
        if number == 0 or (row.weight_std is not None and math.isnan(row.weight_std)):
            message = f"{100 * row.nonfinite:.3g} % of its values are NaN or Inf"
            yield Finding(row.path, "nonfinite", message, -float(number), (row.path,))


def _of_row(site: KernelSite, row: SignalRow, pairs: Pairs) -> Iterator[Finding]:
    """Finds the faults of one kernel."""
    if row.nonfinite:
        return
    found: list[tuple[str, float, str]] = []
    # A kernel of zeros has equal entries, too, but as the end of a residual branch or as a head it is a law.
    if row.weight_std == 0 and row.units and row.units > 1 and row.preactivation_std:
        found.append(
            ("symmetry", 1.0, f"all entries are equal, so its {row.units} units stay equal in training")
        )
    ratio = _variance_ratio(site, row, pairs)
    if ratio:
        size, word = (ratio, "large") if ratio > 1 else (1 / ratio, "small")
        message = f"its output has a variance {size:.3g} times too {word}{_fan_note(site, row)}"
        found.append(("variance", abs(math.log(ratio)), message))
    if row.saturated is not None and row.saturated > _FRACTION:
        message = f"{row.saturated:.0%} of its {site.feeds} outputs are saturated"
        found.append(("saturated", row.saturated, message))
    if row.dead is not None and row.dead > _FRACTION and row.dead >= _chance(row.units):
        found.append(("dead", row.dead, f"{row.dead:.0%} of its {row.units} units are 0 on all rows"))
    # `not <=`, since NaN is a fault, too.
    if row.update_ratio is not None and not row.update_ratio <= _UPDATE:
        message = f"one step of the optimizer changes it by {row.update_ratio:.3g} times its own size"
        found.append(("update", row.update_ratio, message))
    for kind, weight, message in found:
        yield Finding(row.path, kind, message, weight, (row.path,))


def _chance(units: int | None) -> float:
    """Returns the share of dead units that chance alone may bring.

    Where all rows are about equal, each unit is dead or alive for all of them, with even odds. Three standard
    errors of such a share are 3 * 0.5 / sqrt(units).
    """
    return min(1.0, 0.5 + 3 * 0.5 / math.sqrt(units or 1))


def _variance_ratio(site: KernelSite, row: SignalRow, pairs: Pairs) -> float | None:
    """Returns the variance of a pre-activation over its variance under the law; None if it does no harm.

    Three numbers must be off together:

        forward_gain   the measured output, against the law on the measured input
        kernel_gain    the kernel's own entries, in the same direction. Few units are large or small by
                       chance, and in a map that is smaller than its kernel most inputs are padding.
        size           the distance of the output from unit size. After a calibration it is about 1, whatever
                       the kernel had to be. It must also be larger than the distance that the law itself
                       would give, so that a kernel which corrects its input is not blamed.

    A small output is often harmless, and then not told: see `_small_is_harmless`.
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
    """Whether a small output is harmless at this place of the model."""
    if site.role == "embedding":
        # A small table is harmless if the first kernels behind it see a larger sum: another table was added.
        readers = [(s, r) for s, r in pairs if s.depth == 1 and s.role != "embedding"]
        met = [r.expected_std for _, r in readers if r.expected_std]
        if met and min(met) * SIZE >= 1:
            return True
        # In T-Fixup, rows of about unit length are the law: residual branches add to them.
        length = site.kernel.shape[-1] * (row.weight_std or 0.0) ** 2
        return bool(readers) and all(r.in_branch for _, r in readers) and length * _VARIANCE >= 1
    if row.in_branch or (site.feeds in _GATES and not site.is_output):
        return True
    # In a cross-attention, keys and values come from outside the branch, but the attention works within it.
    if site.attention and any(s.attention == site.attention and r.in_branch for s, r in pairs):
        return True
    # A small head is a common choice. A head that is small since its fans were misread is not a choice.
    return site.is_output and not _fan_note(site, row)


def _fan_note(site: KernelSite, row: SignalRow) -> str:
    """Returns the end of a message that blames the fans; empty if the fans are not the reason.

    Keras reads the fans from the shape alone, which is wrong for depthwise kernels, for example. The fans are
    blamed only if they differ, and the kernel has the size that a common law gives with the wrong fans: LeCun
    1 / fan_in, He 2 / fan_in, or Glorot 2 / (fan_in + fan_out).
    """
    if site.fans is None or site.axes or not row.weight_std:
        return ""
    shape = tuple(site.kernel.shape)
    plain = compute_fans(shape)
    if math.isclose(plain.fan_in, site.fans.fan_in) and math.isclose(plain.fan_out, site.fans.fan_out):
        return ""
    laws = (1 / plain.fan_in, 2 / plain.fan_in, 2 / (plain.fan_in + plain.fan_out))
    # The variance of n normal entries has the relative standard error sqrt(2 / n). Four of them are allowed.
    error = 4 * math.sqrt(2 / math.prod(shape))
    if not any(abs(row.weight_std**2 / law - 1) < error for law in laws):
        return ""
    return (
        f": Keras reads the fans {plain.fan_in:g} and {plain.fan_out:g} from the shape {shape}, "
        f"the true fans are {site.fans.fan_in:g} and {site.fans.fan_out:g}"
    )


def _of_model(pairs: Pairs, forward_gain: float | None, backward_gain: float | None) -> Iterator[Finding]:
    """Finds a signal or gradient that changes too much from end to end.

    A normalization on the way makes the sizes before it harmless, so there is nothing to compare.
    """
    if any(row.normalized for _, row in pairs):
        return
    words = {"forward": ("signal", forward_gain), "backward": ("gradient", backward_gain)}
    for kind, (name, gain) in words.items():
        if gain is None or not gain or 1 / _END_TO_END <= gain <= _END_TO_END:
            continue
        how = "grows" if gain > 1 else "shrinks"
        message = f"the {name} {how} by a factor of {max(gain, 1 / gain):.3g} over {len(pairs)} kernels"
        yield Finding("", kind, message, abs(math.log(gain)))


def _of_outputs(pairs: Pairs, input_agreement: float | None) -> Iterator[Finding]:
    """Finds heads that give all rows the same output, compared with the distance of the rows at the input."""
    for site, row in pairs:
        if not site.is_output or row.correlation is None or input_agreement is None:
            continue
        if 1 - row.correlation < _COLLAPSED * (1 - input_agreement):
            message = f"all rows give nearly the same output (mean cosine {row.correlation:.6f})"
            yield Finding(row.path, "collapse", message, row.correlation)


def _of_gradients(rows: Sequence[SignalRow]) -> Iterator[Finding]:
    """Finds kernels that no gradient reaches.

    A kernel of zeros stops the gradient to all kernels before it. If it has a gradient itself, the first step
    moves it, and from the second step on the gradient passes. So such a model has no fault.
    """
    if any(row.weight_std == 0 and row.gradient_std for row in rows):
        return
    reached = [row for row in rows if row.note != UNREACHED and not row.in_branch]
    none = [row.path for row in reached if row.gradient_std == 0]
    if none:
        others = "" if len(none) == 1 else f" or {len(none) - 1} other{'s' if len(none) > 2 else ''}"
        yield Finding(none[0], "no_gradient", f"no gradient reaches this kernel{others}", 1.0, tuple(none))


def _of_step(rows: Sequence[SignalRow], step: Step) -> Iterator[Finding]:
    """Finds a step so long that the loss falls by less than a fifth of the promised fall, or rises."""
    if step.fall is None or step.kept is None or step.kept >= _KEPT:
        return
    largest = max((row.update_ratio for row in rows if row.update_ratio is not None), default=0.0)
    how = f"lowers the loss by {step.fall:.3g}" if step.fall >= 0 else f"raises the loss by {-step.fall:.3g}"
    message = (
        f"one step of the optimizer {how}, but the gradient promises a fall of {step.promise:.3g}: the step "
        f"is too long, although no kernel changes by more than {largest:.3g} times its size"
    )
    yield Finding("", "update", message, -step.kept)


def _groups(duplicates: Sequence[Duplicate]) -> list[list[str]]:
    """Joins pairs that share a kernel, so that one seed for many layers is one fault."""
    groups: list[list[str]] = []
    for pair in duplicates:
        group = next((group for group in groups if pair.path in group or pair.other in group), None)
        if group is None:
            group = []
            groups.append(group)
        group += [path for path in (pair.path, pair.other) if path not in group]
    return groups


def _of_copies(group: list[str], factors: set[str]) -> Finding:
    others = ", ".join(f"`{path}`" for path in group[1:4])
    more = f" and {len(group) - 4} more" if len(group) > 4 else ""
    message = f"its kernel is a copy or a multiple of {others}{more}, as if one seed drew them all"
    # The first kernel may stay: a cure redraws its copies. Adapters are drawn whole, and nothing beside them.
    if factors.issuperset(group):
        layers = tuple(dict.fromkeys(path.rpartition("/")[0] for path in group[1:]))
        return Finding(group[0], "duplicate", message, float(len(group)), layers, '"LoRA"')
    return Finding(group[0], "duplicate", message, float(len(group)), tuple(group[1:]))
