"""Laws that make a head: its kernel and its bias, from the features that reach it and their targets."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.initializers._base import draw
from keras_initx.initializers._head_rows import HeadRows
from keras_initx.initializers._labels import Labelled

__all__ = ["ALIKE", "Head", "HeadLaw", "log_prior", "unseen_classes"]

ALIKE = "the features of all rows are the same: the head holds the frequencies alone"


@dataclasses.dataclass(frozen=True)
class Head:
    """A head that a law made.

    Attributes:
        kernel: float64 of shape (fan_in, units).
        bias: float64 of shape (units,). A head without a bias does not hold it.
        held_out: Accuracy on rows that the head is not made from; R2 for numbers. None if no row could be
            held out.
        told: A sentence for the report.
        note: Why the head may be off; empty if all is well.
    """

    kernel: np.ndarray
    bias: np.ndarray
    held_out: float | None
    told: str
    note: str = ""


class HeadLaw(Labelled):
    """Base of the laws that make a head from the features that reach it and from their targets.

    Such a law draws zeros, as `ZeroHead` does, and has a method `solve`. `keras_initx.calibrate` calls it
    once, with the rows of one pass. Derive a law of your own from this class and register it with Keras.

    >>> class Means(HeadLaw):
    ...     def solve(self, rows, bias=True):
    ...         kernel = rows.cross(rows.flat).T / rows.weights.sum()
    ...         return Head(kernel, np.zeros(rows.units), None, "sums of features")
    >>> rows = HeadRows(np.ones((4, 1, 3)), np.zeros((4, 1), int), np.ones((4, 1)), 2, "categorical")
    >>> Means().solve(rows).kernel[:, 0]
    array([1., 1., 1.])

    Args:
        form: Form of the targets: `"categorical"` (one class of several, as a number or a one-hot row),
            `"binary"` (zeros and ones, for each unit by itself) or `"numeric"`. None decides by the
            activation after the head, then by the loss, then by the targets.
    """

    needs = frozenset({"inputs", "targets"})
    scope = "head"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns zeros as a tensor of this shape and float dtype (None: Keras' floatx)."""
        return draw(lambda dtype: ops.zeros(tuple(shape), dtype), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"form": self.form}

    def add_up(self, rows: HeadRows, origin: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns sums over rows that `solve` can take in place of the rows, where they are too many.

        A law without sums makes its head from the sample.

        Args:
            rows: Some of the rows.
            origin: A point near the mean of the features, to count them from.
        """
        del rows, origin
        return ()

    def solve(self, rows: HeadRows, bias: bool = True) -> Head:
        """Returns the head.

        Args:
            rows: The features and their targets. Of more than 20,000 rows they are a random sample, with the
                sums of `add_up` over all rows.
            bias: Whether the head has a bias.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `solve(self, rows, bias=True)`, which returns a `Head`."
        )


def log_prior(counts: np.ndarray, total: float, form: str) -> np.ndarray:
    """Returns the logits of the frequencies of classes, with one more example of each, as `LabelPrior` does.

    Args:
        counts: Weighted number of examples of each class.
        total: Weighted number of all examples.
        form: `"categorical"` or `"binary"`.
    """
    if form == "binary":
        return np.asarray(np.log(counts + 1) - np.log(total - counts + 1))
    return np.asarray(np.log(counts + 1) - np.log(total + len(counts)))


def unseen_classes(counts: np.ndarray, form: str, given: np.ndarray | None = None) -> str:
    """Returns a note on classes without an example; empty if each class has one.

    Args:
        counts: Weighted number of examples of each class.
        form: `"binary"`, `"categorical"` or `"numeric"`.
        given: Number of rows of each class before some were drawn, or None.
    """
    if form != "categorical":
        return ""
    drawn = counts > 0
    there = drawn if given is None else given > 0
    notes = []
    for told, missing in (
        ("classes without an example", ~drawn & ~there),
        ("classes of which no position was drawn", ~drawn & there),
    ):
        numbers = np.flatnonzero(missing)
        if len(numbers):
            shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
            notes.append(f"{told}: {shown}; their columns are zero")
    return "; ".join(notes)
