"""Labelled images that scikit-learn ships, without tensorflow-datasets."""

import dataclasses

import numpy as np

from keras_initx.extras import require

__all__ = ["DigitImages", "read_digits"]

TRAIN_ROWS = 1437


@dataclasses.dataclass(frozen=True)
class DigitImages:
    """Two splits of labelled images.

    Attributes:
        labels: Names of the labels, by number.
        train: Images, uint8 of shape (1437, 8, 8, 1) with values from 0 to 16, and their labels.
        test: The same, 360 others.
    """

    labels: tuple[str, ...]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def read_digits() -> DigitImages:
    """Returns scikit-learn's handwritten digits, in the splits of the tfds data set `initx_digits`.

    It needs neither tensorflow-datasets nor TensorFlow.

    >>> digits = read_digits()
    >>> digits.train[0].shape, digits.test[0].shape, digits.labels[:3]
    ((1437, 8, 8, 1), (360, 8, 8, 1), ('0', '1', '2'))

    Raises:
        ImportError: If scikit-learn is absent.
    """
    require("sklearn", extra="examples", purpose="`read_digits`")
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images, numbers = digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int32)
    # The file is not shuffled: a fixed permutation gives both splits the same mixture.
    train, test = np.split(np.random.default_rng(0).permutation(len(images)), [TRAIN_ROWS])
    return DigitImages(
        tuple(map(str, digits.target_names)), (images[train], numbers[train]), (images[test], numbers[test])
    )
