"""Data that are no arrays: read from their start by every trial, in an order that its seed decides."""

import itertools
import pathlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

__all__ = ["Counted", "Rewound", "as_source", "is_read_once", "seed_all", "varies"]

_KNOWN = {"grain", "keras", "tensorflow", "torch"}  # whose data sets `fit` reads anew for each epoch
_COMPARED = 4  # batches


def seed_all(seed: int) -> None:
    """Seeds whatever may shuffle data: Python, NumPy, TensorFlow, the backend, and torch if it is there."""
    keras.utils.set_random_seed(seed)
    if "torch" in sys.modules:  # of which a DataLoader may be read on any backend
        sys.modules["torch"].manual_seed(seed)


def is_read_once(data: Any) -> bool:
    """Tells whether data end with one reading: an iterator, or an iterable that `fit` takes only as one."""
    if isinstance(data, Iterator):
        return True
    if (
        not isinstance(data, Iterable)
        or hasattr(data, "shape")
        or isinstance(data, dict | list | str | tuple)
    ):
        return False
    return not _KNOWN & {kind.__module__.partition(".")[0] for kind in type(data).__mro__}


class Counted(keras.utils.PyDataset):
    """The batches of an iterator, opened anew for each epoch. From a generator, `fit` reads one epoch alone.

    Args:
        open_data: Returns the iterator, or an iterable.
        count: Its number of batches; None to read it once and count.
    """

    def __init__(self, open_data: Callable[[], Iterable[Any]], count: int | None = None) -> None:
        super().__init__()
        self.open_data = open_data
        self.count = sum(1 for _ in open_data()) if count is None else count
        self._next = -1

    def __len__(self) -> int:
        """The number of batches."""
        return self.count

    def __getitem__(self, index: int) -> Any:
        """One batch; Keras asks for the first ones more than once."""
        if index != self._next:
            self._batches = itertools.islice(self.open_data(), index, None)
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError(
                "Data must bring as many batches each time they are read. Received: "
                f"{index} batches, where there were {self.count}."
            )
        self._next = index + 1
        return batch


class Rewound:
    """A `tf.data.Dataset` whose shuffles begin anew with each call, as its first reading has them.

    A shuffle draws a new order for each reading, and keeps where it is, with a seed or without. Iterators
    can be saved and restored with that state.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._start = self._checkpoint().write(str(pathlib.Path(folder) / "start"))

    def __call__(self) -> Any:
        """Returns the dataset at its start."""
        self._checkpoint().read(self._start)
        return self.dataset

    def _checkpoint(self) -> Any:
        import tensorflow as tf

        return tf.train.Checkpoint(iterator=iter(self.dataset))


def as_source(data: Any) -> Any:
    """Returns what gives the same batches to each trial, where data can be brought to do that."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(data, tf.data.Dataset):
        return data
    try:
        return Rewound(data)
    except tf.errors.OpError:  # random operations of its own functions have a state that cannot be saved
        return data


def varies(open_data: Callable[[], Any]) -> bool:
    """Tells whether two readings differ in their first batches.

    Args:
        open_data: Returns the data, from one seed.
    """
    first, second = (_first_batches(open_data) for _ in range(2))
    if len(first) != len(second):
        return True
    return not all(
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        for one, other in zip(first, second, strict=True)
    )


def _first_batches(open_data: Callable[[], Any]) -> list[Any]:
    data = open_data()
    # A PyDataset has no `__iter__` that ends, in some releases of Keras.
    batches = map(data.__getitem__, range(len(data))) if hasattr(data, "__getitem__") else iter(data)
    leaves = tree.flatten(list(itertools.islice(batches, _COMPARED)))
    if hasattr(data, "on_epoch_end"):  # where it may be shuffled for the next
        data.on_epoch_end()
    return [_to_numpy(leaf) for leaf in leaves if keras.ops.is_tensor(leaf) or hasattr(leaf, "__array__")]


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
