"""Rows that have names: which row of the donor each class or word of the model takes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_initx._vocabulary import Words, least_rows, words_of
from keras_initx.checks import is_whole
from keras_initx.donors._kinds import Kinds
from keras_initx.donors._pair import Pair
from keras_initx.walk import matching

__all__ = ["Named", "Words", "named_rows", "pieces_of", "shared_words", "two_vocabularies"]

# Layers have several rows for unknown words, and rows without a word.
_REPEATED = ("", "[UNK]")


@dataclasses.dataclass(frozen=True)
class Named:
    """The rows of the donor that the rows of an axis take.

    Attributes:
        rows: For each row of the model the row of the donor; None for a new row.
        known: Number of the donor's rows that have a word; None for all of them.
        note: What told the rows; empty if the user named the weight.
    """

    rows: Sequence[int | None]
    known: int | None = None
    note: str = ""


def rows_of(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """Returns for each row of a vocabulary its row in another; None for a word that is not there.

    Of a word that has several rows, as unknown words may, each takes its own. Rows without a word are new.

    >>> rows_of(["", "the", "cat"], ["", "cat", "dog"])
    [0, 2, None]
    """
    known: dict[str, list[int]] = {}
    for row, word in enumerate(old[: least_rows(old)]):
        if word or not row:
            known.setdefault(word, []).append(row)
    found: list[int | None] = []
    seen: dict[str, int] = {}
    for row, word in enumerate(new):
        places = known.get(word, []) if word or not row else []
        nth = seen[word] = seen.get(word, -1) + 1
        found.append(places[min(nth, len(places) - 1)] if places else None)
    return found


def shared_words(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """Returns how many words two vocabularies share, and how many they could, without unknown words."""
    first, second = (set(words) - set(_REPEATED) for words in (old, new))
    return len(first & second), min(len(first), len(second))


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


def two_vocabularies(vocabulary: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the words of a donor and of a model.

    Raises:
        ValueError: If there are no two vocabularies, or a word comes twice in a list.
    """
    if not isinstance(vocabulary, tuple | list) or len(vocabulary) != 2:
        raise _no_words(vocabulary)
    old, new = (_checked(own) for own in vocabulary)
    return old, new


def _checked(vocabulary: object) -> tuple[str, ...]:
    words = words_of(vocabulary)
    if words is None:
        raise _no_words(vocabulary)
    seen = set(_REPEATED)
    for word in () if hasattr(vocabulary, "get_vocabulary") else words:
        if word in seen and word not in _REPEATED:
            raise ValueError(f"`vocabulary` must have each word once. Received: {word!r} twice.")
        seen.add(word)
    return words


def named_rows(
    pairs: Sequence[Pair],
    kinds: Kinds,
    rows: Mapping[str, Sequence[int | None]],
    words: tuple[Sequence[str], Sequence[str]] | None,
) -> dict[tuple[int, int], Named]:
    """Returns the donor's row of each class or word, by the ids of the variables and their axes.

    Args:
        pairs: All weights of the model, with their counterparts.
        kinds: What their axes number.
        rows: For patterns of paths, the rows as the user gives them.
        words: The words of the donor and of the model, for all variables with as many rows.

    Raises:
        ValueError: If nothing has the rows that are given.
    """
    found = {} if words is None else dict(_by_words(pairs, kinds, *words))
    axes = {id(p.own): kinds.named_axes(p.own) or kinds.reaching_axes(p.own) for p in pairs}
    for pattern, given in rows.items():
        _check_rows(pattern, given)
        fitting = [w for w in matching([p.own for p in pairs], pattern, "rows") if axes[id(w)]]
        if not fitting:
            raise ValueError(
                "`rows` must have patterns of embeddings, or of heads that make the model's output. "
                f"Received: {pattern!r}, which fits neither."
            )
        for w in fitting:
            axis = axes[id(w)][0]
            if len(given) != w.kernel.shape[axis]:
                raise ValueError(
                    f"`rows` must have a number or None for each row. Received: {len(given)} rows for "
                    f"`{w.path}` with {w.kernel.shape[axis]}."
                )
            found[id(w.kernel), axis] = Named(given)
    return found


def _by_words(
    pairs: Sequence[Pair], kinds: Kinds, old: Sequence[str], new: Sequence[str]
) -> Iterator[tuple[tuple[int, int], Named]]:
    """Yields the rows of each axis with as many rows as words, in the model and in the donor."""
    sizes: dict[tuple[int, int], Any] = {}
    for p in pairs:
        for axis in (*kinds.named_axes(p.own), *kinds.reaching_axes(p.own)):
            sizes[id(p.own.kernel), axis] = p, p.own.kernel.shape[axis]
    fitting = {key: p for key, (p, size) in sizes.items() if least_rows(new) <= size <= len(new)}
    if not fitting:
        raise _other_size("model", new, {size for _, size in sizes.values()})
    theirs = {
        key: p.donor.kernel.shape[key[1]]
        for key, p in fitting.items()
        if p.donor is not None and len(p.donor.kernel.shape) == len(p.own.kernel.shape)
    }
    if theirs and not any(least_rows(old) <= size <= len(old) for size in theirs.values()):
        raise _other_size("donor", old, set(theirs.values()))
    for key, size in theirs.items():
        if least_rows(old) <= size <= len(old):
            rows = rows_of(old, new)[: sizes[key][1]]
            yield key, Named(rows, least_rows(old), "rows by `vocabulary`")


def _check_rows(pattern: str, rows: Sequence[int | None]) -> None:
    for row in rows:
        if row is not None and (not is_whole(row) or row < 0):
            raise ValueError(
                "`rows` must have numbers of the donor's rows, from 0 on, or None for a new row. Received: "
                f"{row!r} for {pattern!r}."
            )


def _other_size(which: str, words: Sequence[str], sizes: set[int]) -> ValueError:
    return ValueError(
        f"`vocabulary` must have as many words as an embedding or head of the {which} has rows. Received: "
        f"{len(words)} words for a {which} with rows of {sorted(sizes)}. Words for padding and for unknown "
        "words count, so pass the layer that numbers the words, or its `get_vocabulary()` with special "
        "tokens. In a list, an empty string is a row without a word."
    )


def _no_words(vocabulary: object) -> ValueError:
    return ValueError(
        "`vocabulary` must be two lists of words, the donor's first, mappings of words to their rows, or "
        f"layers with `get_vocabulary`. Received: {vocabulary!r:.80}."
    )
