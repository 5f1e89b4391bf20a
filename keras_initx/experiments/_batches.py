"""Batches of arrays in an order that the seed and the epoch alone decide, on any backend and runner."""

from typing import Any

import keras
import numpy as np
from keras import tree

__all__ = ["Shuffled", "is_arrays", "rows_of"]


def rows_of(data: Any) -> int:
    """The number of rows of a structure of arrays."""
    return len(tree.flatten(data)[0])


def is_arrays(data: Any) -> bool:
    """Whether data is a pair or triple of arrays, or of structures of arrays, that can be indexed by rows."""
    return isinstance(data, tuple) and all(isinstance(leaf, np.ndarray) for leaf in tree.flatten(data))


class Shuffled(keras.utils.PyDataset):
    """The rows of arrays, permuted anew for each epoch.

    Keras' own shuffling differs by backend, and on TensorFlow by what else was drawn: here all schemes of one
    seed see the same batches, whatever trains them.
    """

    def __init__(self, data: Any, batch_size: int, seed: int) -> None:
        super().__init__()
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.rows = rows_of(data)
        self.go_to(0)

    def order_of(self, epoch: int) -> np.ndarray:
        """The order of the rows in an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __len__(self) -> int:
        """The number of batches, the last of which may be smaller."""
        return -(-self.rows // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """One batch."""
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return tree.map_structure(lambda leaf: leaf[chosen], self.data)

    def go_to(self, epoch: int) -> None:
        """Takes the order of an epoch. Keras calls `on_epoch_end` more often than there are epochs."""
        self.order = self.order_of(epoch)
