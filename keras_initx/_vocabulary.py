"""Reads vocabularies in all their forms: which word each row of a table has."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from keras_initx.checks import is_whole

__all__ = ["HasVocabulary", "Words", "least_rows", "words_of"]


@runtime_checkable
class HasVocabulary(Protocol):
    """A layer or tokenizer that lists its words, such as `keras.layers.TextVectorization`."""

    def get_vocabulary(self) -> Iterable[str]:
        """Returns the words in the order of their rows."""
        ...


# Words in the order of their rows, the number of each word, or a layer or tokenizer that tells them.
Words: TypeAlias = Sequence[str] | Mapping[str, int] | HasVocabulary


def words_of(vocabulary: object) -> tuple[str, ...] | None:
    """Returns the word of each row of a vocabulary; None if it is no vocabulary.

    A layer with `max_tokens` has rows without a word up to there, which are empty strings.

    >>> words_of({"cat": 2, "": 0, "the": 1})
    ('', 'the', 'cat')

    Args:
        vocabulary: A sequence of words, a mapping of words to numbers, or a layer with `get_vocabulary`.

    Raises:
        ValueError: If the numbers of a mapping are not 0, 1, 2 and so on, each once.
    """
    given: Any = vocabulary
    if isinstance(vocabulary, HasVocabulary):
        # A tokenizer of byte pairs lists the keys of a dict, in whatever order they came.
        own = getattr(vocabulary, "vocabulary", None)
        given = own if isinstance(own, Mapping) else vocabulary.get_vocabulary()
    if isinstance(given, Mapping):
        given = _by_number(given)
    words = tuple(given) if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str) else ()
    if not words or not all(isinstance(word, str) for word in words):
        return None
    config = vocabulary.get_config() if hasattr(vocabulary, "get_config") else {}
    more = max(0, (config.get("max_tokens") or 0) - len(words))
    return (*map(str, words), *[""] * more)


def least_rows(words: Sequence[str]) -> int:
    """Returns the number of rows that a vocabulary needs: the table may lack empty strings at its end.

    >>> least_rows(["", "the", "", ""])
    2
    """
    return max((row for row, word in enumerate(words, 1) if word), default=0)


def _by_number(numbers: Mapping[Any, Any]) -> list[Any]:
    """Returns the keys of a mapping in the order of their numbers."""
    if not all(map(is_whole, numbers.values())) or sorted(numbers.values()) != list(range(len(numbers))):
        low, high = (min(numbers.values()), max(numbers.values())) if numbers else ("-", "-")
        raise ValueError(
            "`vocabulary` must have the numbers from 0 on, each for one word. Received: a mapping of "
            f"{len(numbers)} words to numbers from {low} to {high}. If the numbers begin at 1, pass "
            '{"": 0} | numbers; a row without a word needs a list, with an empty string for the row.'
        )
    return sorted(numbers, key=lambda word: numbers[word])
