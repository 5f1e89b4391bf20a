"""Finds the parts of a sequence that repeat, such as the blocks of a model, and pairs those of two depths."""

import collections
from collections.abc import Hashable, Sequence

__all__ = ["DEPTHS", "counterpart", "occurrences", "places", "within_blocks"]

DEPTHS = ("first", "uniform", "stack", "identity")


def places(keys: Sequence[Hashable], tears: Sequence[int] = ()) -> tuple[list[int], dict[int, int]]:
    """Numbers the keys of a sequence so that repetitions of a part have the numbers of the first.

    >>> places("in a b b a b b out".split())
    ([0, 1, 2, 2, 1, 2, 2, 3], {0: 1, 1: 1, 2: 2, 3: 1})

    Args:
        keys: The keys.
        tears: For each key, how much is torn apart if a repetition begins with the key. Of a sequence such as
            "b a b a b", they tell whether "b a" repeats or "a b".

    Returns:
        The number of each key, and for each number how often it comes in one repetition.
    """
    tears = tears or [0] * len(keys)
    found: list[int] = []
    each: dict[int, int] = {}
    at, used = 0, 0
    while at < len(keys):
        length, times = _repetition(keys[at:])
        skipped = _offset(keys[at:], tears[at:], length, times) if times > 1 else 0
        if skipped:
            part, inner = places(keys[at : at + skipped], tears[at : at + skipped])
            found += [used + place for place in part]
            each |= {used + place: count for place, count in inner.items()}
            used, at = used + max(part) + 1, at + skipped
        # Within the part, too: two equal keys in a row may be one place in another model of fewer blocks.
        end = at + length
        part = places(keys[at:end], tears[at:end])[0] if times > 1 and length > 1 else [0] * length
        found += [used + place for place in part] * times
        each |= {used + place: part.count(place) for place in part}
        used, at = used + max(part) + 1, at + length * times
    return found, each


def _offset(keys: Sequence[Hashable], tears: Sequence[int], length: int, times: int) -> int:
    """How many keys to skip, so that the repetitions of a part tear least apart."""
    ends = length * times
    rest = next((n for n, key in enumerate(keys[ends:]) if key != keys[n % length]), len(keys) - ends)
    offsets = range(min(rest, length - 1) + 1)
    return min(offsets, key=lambda offset: sum(tears[offset + n * length] for n in range(times)))


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


def within_blocks(
    nth: int, own: tuple[int, int], donor: tuple[int, int], depth: str
) -> tuple[int | None, int]:
    """Returns the donor's weight for the nth of those at one place, and the number of the donor's blocks.

    >>> [within_blocks(nth, (8, 2), (4, 2), "uniform")[0] for nth in range(8)]  # four blocks of two, from two
    [0, 1, 0, 1, 2, 3, 2, 3]

    Args:
        nth: The number of the weight, from 0.
        own: How many weights the model has at the place, and how many of them in a block.
        donor: The same of the donor.
        depth: One of `DEPTHS`.
    """
    (count, each), (others, their) = own, donor
    # In a model of one block, what comes several times within the block looks like blocks.
    each = their if count == their else each
    their = each if others == each else their
    block = counterpart(nth // each, count // each, others // their, depth)
    inner = counterpart(nth % each, each, their, depth)
    return (None if block is None or inner is None else block * their + inner), others // their
