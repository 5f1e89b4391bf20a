"""Vocabularies: which row of an old one each word of a new one has."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

__all__ = ["Words", "pieces_of", "rows_of", "words_of"]


@runtime_checkable
class HasVocabulary(Protocol):
    """A layer or tokenizer that lists its words, such as `keras.layers.TextVectorization`."""

    def get_vocabulary(self) -> Sequence[str]:
        """Returns the words in the order of their rows."""
        ...


Words: TypeAlias = Sequence[str] | HasVocabulary


def words_of(vocabulary: Words) -> list[str]:
    """Returns the words of a vocabulary in the order of their rows.

    Raises:
        ValueError: If a word comes twice, or it is not a list of strings.
    """
    given = vocabulary.get_vocabulary() if isinstance(vocabulary, HasVocabulary) else vocabulary
    words = [] if isinstance(given, str) else list(given)
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(
            "`vocabulary` must be two lists of words, the donor's first, or layers with `get_vocabulary`. Received: "
            f"{vocabulary!r:.80}."
        )
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(f"`vocabulary` must have each word once. Received: {twice!r} twice.")
    return words


def rows_of(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """Returns for each word of a vocabulary its row in another; None for a word that is not there.

    >>> rows_of(["", "the", "cat"], ["", "cat", "dog"])
    [0, 2, None]
    """
    known = {word: row for row, word in enumerate(old)}
    return [known.get(word) for word in new]


def pieces_of(
    like: Mapping[str, str | Sequence[str]], old: Sequence[str], new: Sequence[str]
) -> dict[int, tuple[int, ...]]:
    """Returns for new rows the rows of the donor whose mean they take.

    Args:
        like: For new words, a word of the donor, or several.
        old: The donor's words.
        new: The model's words.

    Raises:
        ValueError: If a word is not where it must be.
    """
    known = {word: row for row, word in enumerate(old)}
    found = {}
    for word, pieces in like.items():
        if word not in new or word in known:
            raise ValueError(
                "`like` must have new words as its keys, which are in the model's vocabulary and not in the donor's. "
                f"Received: {word!r}."
            )
        several = [pieces] if isinstance(pieces, str) else list(pieces)
        lost = [piece for piece in several if piece not in known]
        if lost or not several:
            raise ValueError(
                f"`like` must have words of the donor as its values. Received: {word!r}: {pieces!r}"
                + (f", and the donor has no {lost[0]!r}." if lost else ".")
            )
        found[list(new).index(word)] = tuple(known[piece] for piece in several)
    return found
