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

    def to_fit(self, epochs: int) -> dict[str, Any]:
        """What `fit` takes of it for so many epochs.

        On TensorFlow that is a `tf.data` of the same batches: one that calls Python for each of them takes
        longer than the steps of a small model.
        """
        if keras.backend.backend() != "tensorflow":
            return {"x": self, "shuffle": False}
        import tensorflow as tf

        with tf.device("CPU"):
            data = tree.map_structure(tf.constant, self.data)
        orders = tf.data.Dataset.from_generator(
            lambda: map(self.order_of, range(epochs)), output_signature=tf.TensorSpec(self.rows, tf.int64)
        )
        chosen = orders.flat_map(
            lambda order: tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size)
        )
        batches = chosen.map(lambda rows: tree.map_structure(lambda leaf: tf.gather(leaf, rows), data))
        return {"x": batches.prefetch(tf.data.AUTOTUNE), "steps_per_epoch": len(self), "shuffle": False}

    def go_to(self, epoch: int) -> None:
        """Takes the order of an epoch. Keras calls `on_epoch_end` more often than there are epochs."""
        self.order = self.order_of(epoch)
