"""What a reader of a comparison should know beside its figures, in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_initx.experiments._trial import TrialResult

__all__ = ["notes_of"]


def notes_of(results: Sequence["TrialResult"]) -> list[str]:
    """Returns the notes of trials, each once, with the initializers that have it."""
    labels: dict[str, dict[str, None]] = {}
    for result in results:
        for note in result.notes:
            labels.setdefault(note, {})[result.trial.initializer] = None
    every = {result.trial.initializer for result in results}
    return [
        f"Note: {note}" if found.keys() == every else f"Note on {', '.join(found)}: {note}"
        for note, found in labels.items()
    ]
