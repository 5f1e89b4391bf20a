"""`take_pair`: takes one checked batch, with its targets, from any form of a user's data."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._types import Arrays, Batch, Data, Model, Tensor
from keras_initx.checks import check_count
from keras_initx.data._draw import draw
from keras_initx.data._inputs import (
    Spec,
    Specs,
    check_finite,
    check_leaves,
    check_size,
    describe,
    expected_inputs,
    misfit,
)
from keras_initx.data._weighted import Weighted

__all__ = ["batches_of", "checked_targets", "fit", "is_array_structure", "take_pair", "to_arrays"]


def take_pair(
    model: Model,
    data: Data | None,
    samples: int,
    targets: Arrays | None = None,
    seed: int | None = None,
    drawn: Sequence[Spec] = (),
) -> tuple[Any, Any]:
    """Takes the first rows of the data, in the structure of the model's inputs, and their targets.

    A tuple (x, y) or (x, y, sample_weight) gives x and the targets, unless the model takes that many inputs.
    A list that an iterable yields, as a DataLoader does, is read in the same way. Any other list is a
    structure of arrays, as in Keras; for a list of batches pass `iter(batches)`. A dict is matched by the
    names of the inputs, and its other keys are left out.

    Args:
        model: A built Keras model.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset`, `keras.utils.PyDataset`,
            DataLoader or another iterable of such batches, which are joined until there are enough rows; or
            None to draw a batch in the shapes of the model's inputs: unit Gaussian floats, integers below the
            limit that `drawn` gives, and ones for all other integers and masks.
        samples: Largest number of rows to take.
        targets: An array, or a structure of arrays, to take in place of the targets in `data`.
        seed: Seed of the draw.
        drawn: For each input of the model, a pair for the draw: a shape that gives the lengths of open axes,
            and the number of integers that the input takes, or None. `keras_initx.walk.input_specs` returns
            these. Without a pair, open axes are 32 long.

    Returns:
        The batch, and its targets as NumPy arrays, or None if there are none. The targets of arrays have all
        rows that were given; the targets of an iterable have the rows of the batch. If the data has sample
        weights, the targets are `Weighted`.

    Raises:
        ValueError: If the data is empty, is not finite, or does not fit the model's inputs; if the model was
            built for batches of a size other than `samples`; or if the targets are not finite, or have fewer
            rows than the batch.
    """
    check_count("samples", samples)
    if data is None:
        batch, brought = draw(model, samples, seed, drawn), None
    else:
        batch, brought = (fit if is_array_structure(data) else _gather)(model, data, samples)
    check_size(model, samples, len(tree.flatten(batch)[0]))
    return batch, checked_targets(batch, brought, targets)


def checked_targets(batch: Batch, brought: Arrays | None, targets: Arrays | None) -> Any:
    """Returns the targets of a batch as NumPy arrays, and checks these and the batch.

    Args:
        batch: The batch.
        brought: The targets that came with the data, or None.
        targets: The targets to take in their place, or None.

    Raises:
        ValueError: If an array is not finite, or the targets have fewer rows than the batch.
    """
    check_finite("data", batch)
    rows = len(tree.flatten(batch)[0])
    if targets is None:
        targets = brought
    else:
        targets = to_arrays("targets", targets)
        targets = brought._replace(targets=targets) if isinstance(brought, Weighted) else targets
    labels = [leaf for leaf in tree.flatten(targets) if leaf is not None]
    if targets is not None and (not labels or any(leaf.ndim == 0 or len(leaf) < rows for leaf in labels)):
        raise ValueError(
            f"`targets` must hold a row for each of the {rows} rows of data. Received: {describe(targets)}. "
            "Pass labels for the same rows."
        )
    check_finite("targets", targets)
    return targets


def _is_array(data: object) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def is_array_structure(data: object) -> bool:
    """Tells whether data are arrays, and not an iterable of batches."""
    if isinstance(data, tuple) and len(data) in (2, 3) and data[0] is not None:
        data = tuple(part for part in data if part is not None)  # (x, None, None) has no targets
    if isinstance(data, dict | tuple | list):
        return all(_is_array(leaf) for leaf in tree.flatten(data)) or _is_nested_numbers(data)
    return _is_array(data)


def _is_nested_numbers(data: object) -> bool:
    return isinstance(data, list) and all(isinstance(leaf, int | float | str) for leaf in tree.flatten(data))


def _from_list(name: str, data: Data) -> Any:
    try:
        return np.asarray(data) if _is_nested_numbers(data) else data
    except ValueError as error:
        raise ValueError(f"`{name}` must hold rows of equal lengths. Received: nested lists.") from error


def to_arrays(name: str, data: Data) -> Any:
    """Returns a structure of arrays as NumPy arrays; lists of numbers become one array."""
    return tree.map_structure(_to_numpy, _from_list(name, data))


def _gather(model: Model, data: Data, samples: int) -> tuple[Any, Any]:
    parts = list(batches_of(model, data, samples))
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts)


def batches_of(model: Model, data: Data, samples: int | None) -> Iterator[tuple[Any, Any]]:
    """Yields the batches of an iterable with their targets, until there are enough rows; None takes all."""
    if isinstance(data, dict | list | str) or not (
        isinstance(data, Iterable) or hasattr(data, "__getitem__")
    ):
        raise ValueError(
            "`data` must be an array, a dict, tuple or list of arrays, an iterable of batches, or None. "
            f"Received: {describe(data)}. Pass data that `model.predict` takes."
        )
    # To iterate over a PyDataset never ends; its length gives the number of batches.
    indexed: Any = data
    batches = map(indexed.__getitem__, range(len(indexed))) if hasattr(data, "__getitem__") else iter(data)
    rows = 0
    for batch in batches:
        # A DataLoader turns a pair (x, y) into a list.
        pair = tuple(batch) if isinstance(batch, list) and len(batch) in (2, 3) else batch
        inputs, targets = fit(model, pair, None if samples is None else samples - rows)
        size = len(tree.flatten(inputs)[0])
        # Targets are cut to the rows that were taken: the last batch may have more rows than are needed.
        yield inputs, tree.map_structure(lambda leaf, size=size: _to_numpy(leaf, size), targets)
        rows += size
        if samples is not None and rows >= samples:
            break
    if not rows:
        raise ValueError("`data` must not be empty. Received: an iterable without batches.")


def fit(model: Model, data: Data, samples: int | None) -> tuple[Any, Any]:
    """Returns inputs in the structure of the model's inputs, cut to `samples` rows, and targets or None.

    None in place of `samples` takes all rows.
    """
    data = _from_list("data", data)
    expected = expected_inputs(model)
    targets = None
    # A tuple of two is (x, y) for a model of one input, and both inputs for a model of two. If nothing is
    # known of the model, it is (x, y), as in `fit`.
    paired = isinstance(data, tuple) and len(data) in (2, 3)
    if paired and (expected is None or len(tree.flatten(data)) != len(tree.flatten(expected))):
        data, targets, weights = (*data, None)[:3]
        targets = targets if targets is None or weights is None else Weighted(targets, weights)
    inputs = data if expected is None else _match(expected, data)
    if not all(_is_array(leaf) for leaf in tree.flatten(inputs)):
        raise ValueError(
            f"`data` must hold arrays. Received: a batch that is {describe(data)}. Convert it to arrays."
        )
    batch = tree.map_structure(lambda leaf: _rows(leaf, samples), inputs)
    lengths = {len(leaf) for leaf in tree.flatten(batch)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "`data` must hold at least one row, and the same number of rows in each of its arrays. "
            f"Received: {describe(data)}."
        )
    check_leaves([] if expected is None else tree.flatten(expected), tree.flatten(batch))
    return batch, tree.map_structure(_to_numpy, targets)


def _match(expected: Specs, data: Data) -> Arrays:
    """The arrays of `data` in the structure of the model's inputs; dicts are matched by name."""
    wanted = tree.flatten(expected)
    if isinstance(data, dict):
        keys = list(expected) if isinstance(expected, dict) else [tensor.name for tensor in wanted]
        if missing := sorted(set(keys) - set(data)):
            raise misfit(expected, data, f"the data lacks {missing}")
        return {key: data[key] for key in keys} if isinstance(expected, dict) else [data[key] for key in keys]
    leaves = tree.flatten(data)
    if len(leaves) != len(wanted):
        raise misfit(expected, data, f"the model takes {len(wanted)} arrays, not {len(leaves)}")
    if isinstance(expected, dict):
        raise misfit(expected, data, "the model takes a dict")
    return tree.pack_sequence_as(expected, leaves)


def _rows(leaf: Tensor, samples: int | None) -> np.ndarray:
    if len(leaf.shape) == 0:
        raise ValueError("`data` must hold arrays of rows. Received: an array of shape ().")
    rows = _to_numpy(leaf, samples)
    # NumPy's kinds of complex numbers, time spans and dates.
    if rows.dtype.kind in "cmM":
        raise ValueError(f"`data` must hold real numbers or strings. Received: dtype={rows.dtype}.")
    return rows


def _to_numpy(leaf: Tensor, rows: int | None = None) -> Any:
    leaf = leaf if rows is None or leaf is None else leaf[:rows]
    leaf = keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf
    return leaf if leaf is None else np.asarray(leaf)
