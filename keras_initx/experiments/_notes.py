"""Sentences below the table of a comparison."""

from collections.abc import Sequence

from keras_initx.experiments._rows import ComparisonRow
from keras_initx.experiments._trial import TrialResult

__all__ = ["sentences_of"]


def sentences_of(grid: Sequence[ComparisonRow], results: Sequence[TrialResult], summary: str) -> list[str]:
    """Returns why trials failed, the notes of the trials, and the summary, each sentence on its own line."""
    reasons = [f"{row.initializer} failed: {reason}" for row in grid for reason in row.failures]
    lines = "\n".join([*dict.fromkeys(reasons), *_notes_of(results), summary]).splitlines()
    return [line for line in lines if line.strip()]


def _notes_of(results: Sequence[TrialResult]) -> list[str]:
    """Returns the notes of trials, each note once, with the initializers that the note is about."""
    labels: dict[str, dict[str, None]] = {}
    for result in results:
        for note in result.notes:
            labels.setdefault(note, {})[result.trial.initializer] = None
    every = {result.trial.initializer for result in results}
    return [
        f"Note: {note}" if found.keys() == every else f"Note on {', '.join(found)}: {note}"
        for note, found in labels.items()
    ]
