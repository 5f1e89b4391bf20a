"""`LabelledImages`: the rows of an image data set as arrays, and as the examples of tensorflow-datasets."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["LabelledImages", "examples"]


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Labelled images in two splits.

    Attributes:
        labels: The name of each label: `labels[3]` is the name of label 3.
        train: The images to train on and their labels: uint8 of shape (rows, height, width, 1), and int32 of
            shape (rows,).
        test: The held-out images and their labels, in the same form.
    """

    labels: tuple[str, ...]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def examples(split: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a split in the form that tensorflow-datasets writes: a key and the features."""
    for row, (image, label) in enumerate(zip(*split, strict=True)):
        yield row, {"image": image, "label": int(label)}
