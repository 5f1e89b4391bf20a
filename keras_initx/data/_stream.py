"""`iter_pairs`: all rows of a user's data in batches, for passes that need not hold them at once."""

from collections.abc import Iterator
from typing import Any

from keras import tree

from keras_initx._types import Arrays, Data, Model
from keras_initx.checks import check_count
from keras_initx.data._inputs import expected_inputs
from keras_initx.data._take import batches_of, checked_targets, fit, is_array_structure, to_arrays

__all__ = ["iter_pairs"]

_SIZE = 128  # rows of a batch of arrays


def iter_pairs(
    model: Model, data: Data, samples: int | None = None, targets: Arrays | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yields batches in the structure of the model's inputs with their targets, as `take_pair` takes one.

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> [len(y) for x, y in iter_pairs(model, (np.ones((300, 3)), np.ones(300)))]
    [128, 128, 44]

    Args:
        model: A built Keras model.
        data: Arrays or an iterable of batches, as `take_pair` takes them.
        samples: Largest number of rows; None for all.
        targets: Arrays to take in place of the targets in `data`.

    Yields:
        A batch, and its targets or None. Batches of arrays have 128 rows, or the size that the model was
        built for, with the last batch filled up by repeated rows: its targets then have fewer rows.

    Raises:
        ValueError: If `take_pair` would raise it; or if all rows are asked for and the data has no end.
    """
    if samples is not None:
        check_count("samples", samples)
    if samples is None and _is_endless(data):
        raise ValueError(
            f"`samples` must be given for data without end. Received: {type(data).__name__}, repeated. Pass "
            "the number of rows, or take `repeat` off."
        )
    fixed = {tensor.shape[0] for tensor in tree.flatten(expected_inputs(model)) if tensor is not None} - {
        None
    }
    size = min(fixed) if fixed else _SIZE
    if is_array_structure(data):
        batch, brought = fit(model, data, samples)
        pairs = iter([(batch, checked_targets(batch, brought, targets))])
    else:
        pairs = _with_targets(batches_of(model, data, samples), targets)
    for batch, labels in pairs:
        rows = len(tree.flatten(batch)[0])  # the targets of arrays may have more
        for start in range(0, rows, size):
            part, own = (_cut(structure, start, min(rows, start + size)) for structure in (batch, labels))
            yield (_filled(part, size) if fixed else part), own


def _with_targets(batches: Iterator[tuple[Any, Any]], targets: Arrays | None) -> Iterator[tuple[Any, Any]]:
    """Yields each batch with its rows of the targets."""
    start, targets = 0, None if targets is None else to_arrays("targets", targets)
    for batch, brought in batches:
        rows = len(tree.flatten(batch)[0])
        own = None if targets is None else _cut(targets, start, start + rows)
        yield batch, checked_targets(batch, brought, own)
        start += rows


def _cut(structure: Arrays | None, start: int, stop: int) -> Any:
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[start:stop], structure)


def _filled(batch: Arrays, size: int) -> Any:
    """Returns a batch with its first row repeated up to a size."""
    return tree.map_structure(lambda leaf: leaf[[*range(len(leaf)), *[0] * (size - len(leaf))]], batch)


def _is_endless(data: Data) -> bool:
    """Tells whether a `tf.data.Dataset` is repeated without end."""
    cardinality = getattr(data, "cardinality", None)
    return callable(cardinality) and int(cardinality()) == -1  # tf.data.INFINITE_CARDINALITY
