"""Batches of arrays in an order that depends on the seed and the epoch alone, on any backend and runner."""

from typing import Any, TypeGuard

import keras
import numpy as np
from keras import tree

from keras_initx._types import Arrays

__all__ = ["Shuffled", "is_arrays", "rows_of"]


def rows_of(data: Arrays) -> int:
    """Returns the number of rows of a structure of arrays."""
    return len(tree.flatten(data)[0])


def is_arrays(data: object) -> TypeGuard[tuple[Arrays, ...]]:
    """Whether data are a tuple of arrays, or of structures of arrays, so that rows can be indexed."""
    return isinstance(data, tuple) and all(isinstance(leaf, np.ndarray) for leaf in tree.flatten(data))


class Shuffled(keras.utils.PyDataset):
    """Batches of arrays whose rows have a new order in each epoch.

    The shuffling of Keras depends on the backend, and on TensorFlow also on everything that was drawn before.
    Here all initializers of one seed see the same batches, whatever backend or runner trains them.

    Args:
        data: A tuple of arrays, or of structures of arrays.
        batch_size: Rows of a batch.
        seed: Seed of the order.
    """

    def __init__(self, data: tuple[Arrays, ...], batch_size: int, seed: int) -> None:
        super().__init__()
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.rows = rows_of(data)
        self.go_to(0)

    def order_of(self, epoch: int) -> np.ndarray:
        """Returns the order of the rows in an epoch, counted from 0."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __len__(self) -> int:
        """The number of batches; the last batch may be smaller."""
        return -(-self.rows // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """One batch."""
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return tree.map_structure(lambda leaf: leaf[chosen], self.data)

    def to_fit(self, epochs: int) -> dict[str, Any]:
        """Returns the arguments of `fit` for this number of epochs.

        On TensorFlow the data become a `tf.data.Dataset` of the same batches. A `PyDataset` calls Python for
        each batch, and that call takes longer than a step of a small model.
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
        """Takes the order of an epoch.

        A callback calls this method. `on_epoch_end` of a `PyDataset` cannot: Keras calls it more often than
        there are epochs.
        """
        self.order = self.order_of(epoch)
