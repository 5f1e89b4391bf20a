"""The sentences of a comparison's summary."""

from collections.abc import Sequence

from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._rows import ComparisonRow, Difference

__all__ = ["join", "say_chance", "say_difference", "say_lost", "say_rate", "say_rates"]

_LEVEL = 0.05


def join(words: Sequence[str]) -> str:
    """Joins words to an enumeration in a sentence.

    >>> join(["a", "b", "c"])
    'a, b and c'

    Args:
        words: At least one word.
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def say_difference(difference: Difference, found: Comparison) -> str:
    """Returns the sentence of one difference."""
    first, second = difference.first, difference.second
    if difference.kind == "endings":
        rows = {row.initializer: row for row in found.rows}
        counts = [f"{rows[label].ended} of {rows[label].judged}" for label in (first, second)]
        verb = "ends well more often than" if difference.real else "may end well as often as"
        return f"{first} {verb} {second}: {counts[0]} seeds against {counts[1]} ({_p(difference)})."
    if difference.seeds < 2:
        shared = "one seed only" if difference.seeds else "no seed"
        return f"{first} and {second} cannot be told apart: both ended well on {shared}."
    size = f"{difference.mean:+.3g} [{difference.low:.3g}, {difference.high:.3g}]"
    tail = f"{size} ({_p(difference)}, {difference.seeds} seeds)."
    if difference.real:
        return f"{first} beats {second}: {tail}"
    return f"{first} against {second} may be noise: {tail}"


def _p(difference: Difference) -> str:
    """Returns the p value with enough digits to stay on its side of 0.05: 0.0496 is not rounded to 0.05."""
    p = difference.corrected
    if p < 0.001:
        return "p < 0.001"
    digits = next((n for n in range(2, 16) if (float(f"{p:.{n}g}") < _LEVEL) == (p < _LEVEL)), 16)
    return f"p = {p:.{digits}g}"


def say_lost(row: ComparisonRow) -> list[str]:
    """Returns a sentence about the seeds that did not end well, if there are such seeds."""
    ways = [
        f"diverged in {row.diverged}" if row.diverged else "",
        f"was stopped in {row.stopped} as it was behind" if row.stopped else "",
        f"failed in {row.failed}, which says nothing about it" if row.failed else "",
    ]
    rest = f" Its mean is over the other {row.ended}." if row.ended else ""
    words = join([way for way in ways if way] or [""])
    return [f"Of {row.seeds} seeds {row.initializer} {words}.{rest}"] if row.lost else []


def say_rate(row: ComparisonRow, found: Comparison) -> list[str]:
    """Returns a sentence about a learning rate at which the initializer diverges less, if there is one."""
    safer = [
        (other.validation, other)
        for other in found.grid
        if other.initializer == row.initializer and other.diverged < row.diverged
        if other.validation is not None
    ]
    if not safer or row.validation is None:
        return []
    value, best = (min if found.minimize else max)(safer, key=lambda pair: pair[0])
    return [
        f"At learning rate {best.learning_rate:g} instead of {row.learning_rate:g}, {row.initializer} "
        f"diverged in {best.diverged or 'no'} seeds, with a validation {found.metric} of {value:.4g} instead "
        f"of {row.validation:.4g}."
    ]


def say_chance(row: ComparisonRow, found: Comparison) -> list[str]:
    """Returns a sentence about an initializer that learned nothing, with the value that shows it."""
    if not row.at_chance:
        return []
    seeds = "its one seed it is not" if row.ended == 1 else f"none of {row.ended} seeds is it"
    return [
        f"{row.initializer} stayed at chance: in {seeds} better than one prediction for all {found.reported} "
        f"rows, whose {found.metric} is {found.chance:.4g}."
    ]


def say_rates(found: Comparison) -> list[str]:
    """Returns a warning if learning rates were chosen on the data that the figures come from."""
    if len({row.learning_rate for row in found.grid}) < 2 or found.reported != "validation":
        return []
    return [
        "Learning rates were chosen on the validation data that the figures come from, which flatters "
        "them; pass `test` for figures that were not chosen on."
    ]
