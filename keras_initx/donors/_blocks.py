"""Finds the parts of a sequence that repeat, such as the blocks of a model, and pairs those of two depths."""

import collections
from collections.abc import Hashable, Sequence

__all__ = ["DEPTHS", "counterpart", "occurrences", "places"]

DEPTHS = ("first", "uniform", "stack", "identity")


def places(keys: Sequence[Hashable]) -> list[int]:
    """Numbers the keys of a sequence so that repetitions of a part have the numbers of the first.

    >>> places("in a b a b a b out".split())
    [0, 1, 2, 1, 2, 1, 2, 3]
    """
    found: list[int] = []
    at, used = 0, 0
    while at < len(keys):
        length, times = _repetition(keys[at:])
        # Within the part, too: two equal keys in a row may be one place in another model of fewer blocks.
        part = places(keys[at : at + length]) if times > 1 else [0]
        found += [used + place for place in part] * times
        used, at = used + max(part) + 1, at + length * times
    return found


def _repetition(keys: Sequence[Hashable]) -> tuple[int, int]:
    """The length of the part that a sequence begins with and repeats at once, and how often it comes.

    Of several, the repetition that covers most; a part of one key that comes once if there is none.
    """
    best = (1, 1)
    for length in range(1, len(keys) // 2 + 1):
        times = 1
        while keys[times * length : (times + 1) * length] == keys[:length]:
            times += 1
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def occurrences(numbers: Sequence[Hashable]) -> list[int]:
    """Counts for each entry of a sequence how often the entry has come before.

    >>> occurrences([0, 1, 1, 2, 1])
    [0, 0, 1, 0, 2]
    """
    seen: collections.Counter[Hashable] = collections.Counter()
    found = []
    for number in numbers:
        found.append(seen[number])
        seen[number] += 1
    return found


def counterpart(block: int, blocks: int, donor_blocks: int, depth: str) -> int | None:
    """Returns the block of the donor that a block of the model takes; None for a block that starts new.

    >>> [counterpart(block, 3, 6, "uniform") for block in range(3)]
    [0, 2, 4]
    >>> [counterpart(block, 4, 2, "stack") for block in range(4)]
    [0, 1, 0, 1]

    Args:
        block: Number of the model's block, from 0.
        blocks: Number of the model's blocks.
        donor_blocks: Number of the donor's blocks.
        depth: One of `DEPTHS`.
    """
    if blocks == donor_blocks:
        return block
    if depth == "uniform":
        return block * donor_blocks // blocks
    if depth == "stack":
        return block % donor_blocks
    return block if block < donor_blocks else None
