"""`read_digits`: the handwritten digits that scikit-learn ships."""

import numpy as np

from keras_initx.datasets._labelled_images import LabelledImages
from keras_initx.extras import require

__all__ = ["read_digits"]

TRAIN_ROWS = 1437


def read_digits() -> LabelledImages:
    """Returns scikit-learn's handwritten digits, 8x8 pixels, in a split to train on and a held-out split.

    The rows are the rows of the data set `initx_digits` of tensorflow-datasets. This function needs neither
    tensorflow-datasets nor TensorFlow nor a network.

    >>> digits = read_digits()
    >>> digits.train[0].shape, digits.test[0].shape, digits.labels[:3]
    ((1437, 8, 8, 1), (360, 8, 8, 1), ('0', '1', '2'))

    Returns:
        The names of the labels and the two splits, always in the same order. Pixels have values from 0 to 16.

    Raises:
        ImportError: If scikit-learn is not installed.

    Reference:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI repository
        (https://doi.org/10.24432/C50P49), the test part, as in `sklearn.datasets.load_digits`.
    """
    require("sklearn", extra="examples", purpose="`read_digits`")
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images, numbers = digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int32)
    # The rows in the file are not shuffled. A fixed permutation gives both splits the same mixture.
    train, test = np.split(np.random.default_rng(0).permutation(len(images)), [TRAIN_ROWS])
    return LabelledImages(
        tuple(map(str, digits.target_names)), (images[train], numbers[train]), (images[test], numbers[test])
    )
