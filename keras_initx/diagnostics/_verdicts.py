"""From numbers to words: what is wrong with a signal, and what to do."""

import math
from collections.abc import Iterator, Sequence

from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._report import SignalRow, Verdict
from keras_initx.fans import compute_fans
from keras_initx.walk import KernelSite

__all__ = ["verdicts_of"]

# What matters most first.
_KINDS = (
    *("nonfinite", "symmetry", "duplicate", "forward", "backward", "variance", "saturated", "dead"),
    *("collapse", "no_gradient", "update"),
)
# Limits beyond which a signal is called wrong; healthy nets stay far within them.
_VARIANCE = 16.0  # of a pre-activation, times what its true fan gives,
_SIZE = 5.0  # if that makes it as many times too large or small
_END_TO_END = 1e3  # of the gains from input to output
_FRACTION = 0.5  # dead or saturated
_COLLAPSED = 1e-3  # of the distance between two rows that is left
_UPDATE = 1.0  # of a kernel's own size

_GATES = ("sigmoid", "hard_sigmoid", "relu6")
_BY_ROLE = 'initx.initialize(model, "by_role")'
_LSUV = 'initx.calibrate(model, data, "initx>LSUV")'

Pairs = Sequence[tuple[KernelSite, SignalRow]]


def verdicts_of(
    pairs: Pairs,
    forward_gain: float | None,
    backward_gain: float | None,
    input_agreement: float | None,
    duplicates: Sequence[Duplicate],
) -> tuple[Verdict, ...]:
    """Returns what is wrong, what matters most first.

    Args:
        pairs: The kernels with their rows.
        forward_gain: That of the model.
        backward_gain: That of the model.
        input_agreement: Mean cosine between two rows where they enter.
        duplicates: Pairs of kernels that are copies.
    """
    found = list(_of_nonfinite([row for _, row in pairs]))
    found += [(weight, verdict) for site, row in pairs for weight, verdict in _of_row(site, row)]
    if not any(row.nonfinite for _, row in pairs):
        found += _of_model(pairs, forward_gain, backward_gain)
        found += _of_outputs(pairs, input_agreement)
        found += _of_gradients([row for _, row in pairs])
    found += [(float(len(group)), _of_copies(group)) for group in _groups(duplicates)]
    found.sort(key=lambda pair: (_KINDS.index(pair[1].kind), -pair[0]))
    return tuple(verdict for _, verdict in found)


def _of_nonfinite(rows: Sequence[SignalRow]) -> Iterator[tuple[float, Verdict]]:
    """The first kernel with NaN or Inf, and those that hold some themselves: it spreads from there."""
    bad = [row for row in rows if row.nonfinite]
    for number, row in enumerate(bad):
        if number == 0 or (row.weight_std is not None and math.isnan(row.weight_std)):
            message = f"{100 * row.nonfinite:.3g} % of its values are NaN or Inf"
            yield -float(number), Verdict(row.path, "nonfinite", message, _BY_ROLE)


def _of_row(site: KernelSite, row: SignalRow) -> Iterator[tuple[float, Verdict]]:
    """What is wrong with one kernel, each with how much."""
    if row.nonfinite:
        return
    if row.weight_std == 0 and row.units and row.units > 1 and row.preactivation_std:
        message = f"all entries are equal, so that its {row.units} units stay equal in training"
        yield 1.0, Verdict(row.path, "symmetry", message, _of_path(row.path))
    ratio = _variance_ratio(site, row)
    if ratio:
        size, word = (ratio, "large") if ratio > 1 else (1 / ratio, "small")
        message = f"output variance {size:.3g} times too {word}{_fan_note(site)}"
        yield abs(math.log(ratio)), Verdict(row.path, "variance", message, _of_path(row.path))
    if row.saturated is not None and row.saturated > _FRACTION:
        message = f"{row.saturated:.0%} of its {site.feeds} outputs are saturated"
        yield row.saturated, Verdict(row.path, "saturated", message, _LSUV)
    if row.dead is not None and row.dead > _FRACTION and row.dead >= _chance(row.units):
        message = f"{row.dead:.0%} of its {row.units} units are 0 on all rows"
        cure = f"{_LSUV}, or a bias nearer to zero"
        yield row.dead, Verdict(row.path, "dead", message, cure)
    if row.update_ratio is not None and row.update_ratio > _UPDATE:
        message = f"one step changes it by {row.update_ratio:.3g} times its own size"
        yield row.update_ratio, Verdict(row.path, "update", message, "a smaller learning rate")


def _chance(units: int | None) -> float:
    """Half of the units are 0 where all rows are about equal: so many of few may be by chance."""
    return min(1.0, 0.5 + 3 * 0.5 / math.sqrt(units or 1))


def _variance_ratio(site: KernelSite, row: SignalRow) -> float | None:
    """How many times the variance of a pre-activation is that of its true fan, where that does harm.

    The kernel's own variance must be off, too: a few units are large or small by chance, and a map smaller
    than its kernel is mostly padding. The signal must be far from unit size, which after calibration it is
    not. A small residual branch and a small gate do no harm.
    """
    if not row.forward_gain or not row.expected_std or row.normalized or site.fans is None:
        return None
    ratio, own = row.forward_gain**2, row.kernel_gain**2 if row.kernel_gain else 1.0
    least = min(abs(math.log(ratio)), abs(math.log(own)) if (own > 1) == (ratio > 1) else 0.0)
    size = abs(math.log(row.forward_gain * row.expected_std))
    if least < math.log(_VARIANCE) or size < math.log(_SIZE) or size < abs(math.log(row.expected_std)):
        return None
    small_is_harmless = row.in_branch or (site.feeds in _GATES and not site.is_output)
    return None if ratio < 1 and small_is_harmless else ratio


def _fan_note(site: KernelSite) -> str:
    """Says what Keras takes for the fans, where the shape misleads it."""
    if site.fans is None or site.axes:
        return ""
    shape = tuple(site.kernel.shape)
    plain = compute_fans(shape)
    if math.isclose(plain.fan_in, site.fans.fan_in) and math.isclose(plain.fan_out, site.fans.fan_out):
        return ""
    return (
        f": by the shape {shape} its fans are {plain.fan_in:g} and {plain.fan_out:g}, "
        f"the true ones are {site.fans.fan_in:g} and {site.fans.fan_out:g}"
    )


def _of_path(path: str) -> str:
    return f'initx.initialize(model, "by_role", include="{path}")'


def _of_model(
    pairs: Pairs, forward_gain: float | None, backward_gain: float | None
) -> Iterator[tuple[float, Verdict]]:
    """What is wrong from end to end. A normalization on the way makes the sizes before it harmless."""
    if any(row.normalized for _, row in pairs):
        return
    words = {"forward": ("signal", forward_gain), "backward": ("gradient", backward_gain)}
    for kind, (name, gain) in words.items():
        if gain is None or not gain or 1 / _END_TO_END <= gain <= _END_TO_END:
            continue
        how = "grows" if gain > 1 else "shrinks"
        message = f"the {name} {how} by {max(gain, 1 / gain):.3g} times over {len(pairs)} kernels"
        yield abs(math.log(gain)), Verdict("", kind, message, f"{_BY_ROLE} or {_LSUV}")


def _of_outputs(pairs: Pairs, input_agreement: float | None) -> Iterator[tuple[float, Verdict]]:
    for site, row in pairs:
        if not site.is_output or row.correlation is None or input_agreement is None:
            continue
        if 1 - row.correlation < _COLLAPSED * (1 - input_agreement):
            message = f"all rows give about the same output (mean cosine {row.correlation:.6f})"
            yield row.correlation, Verdict(row.path, "collapse", message, _LSUV)


def _of_gradients(rows: Sequence[SignalRow]) -> Iterator[tuple[float, Verdict]]:
    """Kernels that no gradient reaches; behind a kernel of zeros that itself is moved one will in a step."""
    if any(row.weight_std == 0 and row.gradient_std for row in rows):
        return
    none = [row.path for row in rows if row.gradient_std == 0 and not row.in_branch]
    if none:
        others = f", nor {len(none) - 1} more" if len(none) > 1 else ""
        yield 1.0, Verdict(none[0], "no_gradient", f"no gradient reaches it{others}", _BY_ROLE)


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


def _of_copies(group: list[str]) -> Verdict:
    others = ", ".join(f"`{path}`" for path in group[1:4]) + (", ..." if len(group) > 4 else "")
    message = f"its kernel is that of {others}: one seed drew them all"
    return Verdict(group[0], "duplicate", message, "initx.initialize(model, None, seed=1)")
