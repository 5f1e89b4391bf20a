"""The conclusions of a comparison: the recommendation and the summary."""

import dataclasses
from collections.abc import Sequence

from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._rows import ComparisonRow, Difference
from keras_initx.experiments._words import (
    join,
    say_chance,
    say_difference,
    say_lost,
    say_rate,
    say_rates,
)

__all__ = ["conclude"]


def conclude(found: Comparison) -> Comparison:
    """Returns the comparison with its recommendation and its summary."""
    top = found.rows[0]
    said = [
        say_difference(difference, found)
        for difference in found.differences
        if top.initializer in (difference.first, difference.second) and _is_told(difference, found)
    ]
    for row in found.rows:
        said += [*say_lost(row), *say_rate(row, found), *say_chance(row, found)]
    recommendation, verdict = _recommend(found)
    said += [verdict, *say_rates(found)]
    return dataclasses.replace(found, recommendation=recommendation, summary="\n".join(said))


def _is_told(difference: Difference, found: Comparison) -> bool:
    """Whether the summary has a sentence for a difference.

    A pair has one test or two: of the values, and of how often both end well. A test that finds something
    always has its sentence. If neither finds anything, one sentence is enough: about the values if both
    initializers share two seeds or more, else about the endings.
    """
    if difference.real or len(_between(found, difference.first, difference.second)) == 1:
        return True
    return (difference.seeds >= 2) == (difference.kind == "values")


def _recommend(found: Comparison) -> tuple[str | None, str]:
    """Returns the label of the initializer that beats all others, or None, and the sentence about it."""
    top, others = found.rows[0], [row for row in found.rows[1:] if row.judged]
    if top.mean is None:
        return None, "No initializer ended well in any seed."
    if not others:
        return None, f"No recommendation: there is nothing to compare {top.initializer} with."
    if doubts := _doubts(found, top, others):
        return None, f"No recommendation: {top.initializer} has the best mean, but {join(doubts)}."
    if ties := [row.initializer for row in others if not _beats(found, top, row)]:
        names = join([top.initializer, *ties])
        seeds = "one seed" if top.seeds == 1 else f"{top.seeds} seeds"
        return None, f"No recommendation: no difference was found between {names} with {seeds}."
    ways = [(top.diverged, "diverged"), (top.stopped, "stopped early")]
    lost = join([f"{count} of {top.seeds} seeds {how}" for count, how in ways if count] or [""])
    return top.initializer, f"Recommended: {top.initializer}{lost and f', although {lost}'}."


def _doubts(found: Comparison, top: ComparisonRow, others: Sequence[ComparisonRow]) -> list[str]:
    """Returns the reasons that forbid recommending the initializer with the best mean, whatever it beats."""
    doubts = []
    if top.at_chance:
        doubts.append("it stayed at chance")
    if top.diverged >= top.ended:
        doubts.append(f"it diverged in {top.diverged} of {top.judged} seeds")
    for row in others:
        pairs = _between(found, top.initializer, row.initializer)
        if any(pair.real for pair in pairs):
            doubts += [_doubt(pair) for pair in pairs if pair.first == row.initializer and _counts(pair)]
    return doubts


def _counts(pair: Difference) -> bool:
    """Whether a test that the other initializer won forbids the recommendation.

    A worse mean always forbids it, even if the difference may be noise. Ending well less often forbids it
    only if the difference is real.
    """
    return pair.kind == "values" or pair.real


def _doubt(pair: Difference) -> str:
    if pair.kind == "endings":
        return f"{pair.first} ends well more often"
    return f"{pair.first} is better where both ended well"


def _beats(found: Comparison, top: ComparisonRow, row: ComparisonRow) -> bool:
    """Whether the first row is really better, by its values or by how often it ends well."""
    return any(
        pair.real and pair.first == top.initializer
        for pair in _between(found, top.initializer, row.initializer)
    )


def _between(found: Comparison, *labels: str) -> list[Difference]:
    return [
        difference for difference in found.differences if {difference.first, difference.second} == set(labels)
    ]
