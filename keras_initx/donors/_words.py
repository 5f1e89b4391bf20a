"""Rows that have names: which row of the donor each class or word of the model takes."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from keras_initx.donors._kinds import Kinds
from keras_initx.donors._pair import Place
from keras_initx.walk import matching

__all__ = ["Words", "named_rows", "pieces_of", "two_vocabularies"]


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
        raise _no_words(vocabulary)
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
                "`like` must have new words as its keys, which are in the model's vocabulary and not in the "
                f"donor's. Received: {word!r}."
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


def two_vocabularies(vocabulary: object) -> tuple[list[str], list[str]]:
    """Returns the words of a donor and of a model; raises ValueError if there are no two vocabularies."""
    if not isinstance(vocabulary, tuple | list) or len(vocabulary) != 2:
        raise _no_words(vocabulary)
    old, new = map(words_of, vocabulary)
    return old, new


def named_rows(
    weights: Sequence[Place],
    kinds: Kinds,
    rows: Mapping[str, Sequence[int | None]],
    words: tuple[Sequence[str], Sequence[str]] | None,
) -> dict[int, Sequence[int | None]]:
    """Returns the donor's row of each class or word, by the ids of the variables that have such rows.

    Args:
        weights: All weights of the model.
        kinds: What their axes number.
        rows: For patterns of paths, the rows as the user gives them.
        words: The words of the donor and of the model, for all variables with as many rows.

    Raises:
        ValueError: If nothing has the rows that are given.
    """
    sizes = {id(w): w.kernel.shape[axis] for w in weights if (axis := kinds.named_axis(w)) is not None}
    found: dict[int, Sequence[int | None]] = {}
    if words is not None:
        fitting = [w for w in weights if sizes.get(id(w)) == len(words[1])]
        if not fitting:
            raise ValueError(
                "`vocabulary` must have as many words as an embedding or head of the model has rows. "
                f"Received: {len(words[1])} words for a model with rows of {sorted(set(sizes.values()))}."
            )
        found |= dict.fromkeys((id(w.kernel) for w in fitting), rows_of(*words))
    for pattern, given in rows.items():
        fitting = [w for w in matching(weights, pattern, "rows") if id(w) in sizes]
        if not fitting:
            raise ValueError(
                "`rows` must have patterns of embeddings, or of heads that make the model's output. "
                f"Received: {pattern!r}, which fits neither."
            )
        for w in fitting:
            if len(given) != sizes[id(w)]:
                raise ValueError(
                    f"`rows` must have a number or None for each row. Received: {len(given)} rows for "
                    f"`{w.path}` with {sizes[id(w)]}."
                )
            found[id(w.kernel)] = given
    return found


def _no_words(vocabulary: object) -> ValueError:
    return ValueError(
        "`vocabulary` must be two lists of words, the donor's first, or layers with `get_vocabulary`. "
        f"Received: {vocabulary!r:.80}."
    )
