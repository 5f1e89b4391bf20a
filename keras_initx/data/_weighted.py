"""Targets together with sample weights."""

from typing import Any, NamedTuple

from keras_initx._types import Arrays

__all__ = ["Weighted", "split_weights"]


class Weighted(NamedTuple):
    """Targets with sample weights, as `fit` takes them in a triple (x, y, sample_weight)."""

    targets: Arrays
    weights: Arrays


def split_weights(targets: Arrays | Weighted | None) -> tuple[Any, Any]:
    """Returns targets and their sample weights; None in place of weights if there are none.

    >>> split_weights(Weighted([1, 0], [0.5, 2.0])), split_weights([1, 0])
    (([1, 0], [0.5, 2.0]), ([1, 0], None))

    Args:
        targets: Targets as `take_pair` returns them.
    """
    return (targets.targets, targets.weights) if isinstance(targets, Weighted) else (targets, None)
