"""Data that are not arrays: every trial reads them from their start, in the order of its seed."""

import itertools
import pathlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_initx._types import Data, Tensor

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Counted", "Rewound", "Source", "as_source", "is_read_once", "seed_all", "varies"]

# Data, or a function without arguments that returns the data anew for each trial.
Source: TypeAlias = Data | Callable[[], Data]

_KNOWN = {"grain", "keras", "tensorflow", "torch"}  # packages with data sets that `fit` reads anew each epoch
_COMPARED = 4  # batches of two readings that are compared


def seed_all(seed: int) -> None:
    """Seeds all generators that may shuffle data: Python, NumPy, TensorFlow, the backend, and torch."""
    keras.utils.set_random_seed(seed)
    if "torch" in sys.modules:  # a DataLoader of torch can be read on any backend
        sys.modules["torch"].manual_seed(seed)


def is_read_once(data: object) -> bool:
    """Whether data end after one reading: an iterator, or an iterable that `fit` reads as an iterator."""
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
    """The batches of an iterator, which is opened anew for each epoch.

    Without this class, `fit` would read a generator once, and train for one epoch only.

    Args:
        open_data: Returns the iterator, or an iterable.
        count: Number of batches; None to read the data once and count them.
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
        """One batch. Keras asks for the first batches more than once, so the iterator may start again."""
        if index != self._next:
            self._batches = itertools.islice(self.open_data(), index, None)
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError(
                "Data must have the same number of batches each time they are read. Received: "
                f"{index} batches, where there were {self.count} before. Make the data in a function."
            )
        self._next = index + 1
        return batch


class Rewound:
    """A `tf.data.Dataset` that repeats its first reading with each call.

    A shuffle of `tf.data` draws a new order for each reading, even with a seed, and remembers its state. A
    checkpoint of an iterator holds this state. So the state is written once, before the first reading, and is
    restored for each trial.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: "tf.data.Dataset") -> None:
        self.dataset = dataset
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._start = self._checkpoint().write(str(pathlib.Path(folder) / "start"))

    def __call__(self) -> "tf.data.Dataset":
        """Returns the dataset at its start."""
        self._checkpoint().read(self._start)
        return self.dataset

    def _checkpoint(self) -> "tf.train.Checkpoint":
        import tensorflow as tf

        return tf.train.Checkpoint(iterator=iter(self.dataset))


def as_source(data: Source) -> Source:
    """Returns data that give the same batches to each trial, if the data are a `tf.data.Dataset`."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(data, tf.data.Dataset):
        return data
    try:
        return Rewound(data)
    except tf.errors.OpError:  # the state of random operations in the dataset's functions cannot be saved
        return data


def varies(open_data: Callable[[], Data]) -> bool:
    """Whether two readings differ in their first batches.

    Args:
        open_data: Returns the data, always from the same seed.
    """
    first, second = (_first_batches(open_data) for _ in range(2))
    if len(first) != len(second):
        return True
    return not all(
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        for one, other in zip(first, second, strict=True)
    )


def _first_batches(open_data: Callable[[], Data]) -> list[np.ndarray]:
    data: Any = open_data()
    # In some releases of Keras the `__iter__` of a PyDataset never ends.
    batches = map(data.__getitem__, range(len(data))) if hasattr(data, "__getitem__") else iter(data)
    leaves = tree.flatten(list(itertools.islice(batches, _COMPARED)))
    if hasattr(data, "on_epoch_end"):  # where data may shuffle themselves for the next epoch
        data.on_epoch_end()
    return [_to_numpy(leaf) for leaf in leaves if keras.ops.is_tensor(leaf) or hasattr(leaf, "__array__")]


def _to_numpy(leaf: np.ndarray | Tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
