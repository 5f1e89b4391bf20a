"""From whatever holds a user's data to one checked batch that a model can be called on."""

import itertools
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

__all__ = ["check_looked_up", "knows_inputs", "reason_of", "refusal", "take_pair"]

_OPEN = 32  # how long an open axis is drawn


def take_pair(
    model: Any,
    data: Any,
    samples: int,
    targets: Any = None,
    seed: int | None = None,
    drawn: Sequence[tuple[tuple[int | None, ...], int | None]] = (),
) -> tuple[Any, Any]:
    """Takes the first `samples` rows of the data, in the structure of the model's inputs, and their targets.

    Args:
        model: A built Keras model.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset`, `keras.utils.PyDataset`,
            DataLoader or other iterable of such batches, whose rows are joined until there are enough; or
            None for input that is drawn in the shapes of the model's inputs: unit-Gaussian floats, integers
            below a limit where `drawn` gives one, ones for all other integers and masks. A tuple (x, y) or
            (x, y, sample_weight) gives its x, and the targets, unless the model takes that many inputs.
        samples: Rows to take at most.
        targets: An array, or a structure of arrays, in place of those that the data brings.
        seed: Seed of what is drawn.
        drawn: For each input of the model a shape, for the axes that are open, 32 long without it, and the
            number of integers that it takes, or None; as `keras_initx.walk.input_specs` returns them.

    Returns:
        One batch, and its targets as NumPy arrays: all rows of the arrays that were given, of an iterable
        those of the batch; None where there are none.

    Raises:
        ValueError: If the data is empty, not finite, or does not fit the model's inputs; if `samples` is not
            the size of a batch that the model was built with; if the targets are not finite, or too few.
    """
    if isinstance(samples, bool) or not isinstance(samples, numbers.Integral) or samples < 1:
        raise ValueError(f"`samples` must be a positive int. Received: samples={samples!r}.")
    if data is None:
        batch, brought = _draw(model, samples, seed, drawn), None
    else:
        batch, brought = (_fit if _is_array_structure(data) else _gather)(model, data, samples)
        _check_finite("data", batch)
    rows = len(tree.flatten(batch)[0])
    _check_size(model, samples, rows)
    targets = brought if targets is None else tree.map_structure(_to_numpy, _from_list("targets", targets))
    labels = [leaf for leaf in tree.flatten(targets) if leaf is not None]
    if targets is not None and (not labels or any(leaf.ndim == 0 or len(leaf) < rows for leaf in labels)):
        raise ValueError(
            f"`targets` must hold a row for each of the {rows} rows of data. Received: {_describe(targets)}."
        )
    _check_finite("targets", targets)
    return batch, targets


def check_looked_up(model: Any, batch: Any, specs: Callable[[], Sequence[tuple[Any, int | None]]]) -> None:
    """Raises ValueError for integers outside the vocabulary they are looked up in: some backends take them.

    Args:
        model: The model.
        batch: What `take_pair` took.
        specs: Returns what `keras_initx.walk.input_specs` does; asked only where an integer is beyond the
            smallest vocabulary of all, since it takes a trace.
    """
    sizes = [layer.input_dim for layer in model._flatten_layers() if hasattr(layer, "input_dim")]
    least = min((size for size in sizes if isinstance(size, int)), default=None)
    integers = [leaf for leaf in tree.flatten(batch) if leaf.dtype.kind in "iu"]
    if least is None or all(leaf.min() >= 0 and leaf.max() < least for leaf in integers):
        return
    for leaf, (_, limit) in zip(tree.flatten(batch), specs(), strict=False):
        if limit is not None and (unknown := leaf[(leaf < 0) | (leaf >= limit)]).size:
            raise ValueError(
                f"`data` must hold integers from 0 to {limit - 1}, the vocabulary of the embedding that they "
                f"feed. Received: {unknown[0]}. Raise the layer's `input_dim`, or map what it does not know."
            )


def _check_size(model: Any, samples: int, rows: int) -> None:
    inputs = [tensor for tensor in tree.flatten(_expected_inputs(model)) if tensor is not None]
    for size in {tensor.shape[0] for tensor in inputs} - {None, rows}:
        raise ValueError(
            f"`samples` must be the size of a batch of `{model.name}`: pass samples={size}, and at least as "
            f"many rows. Received: samples={samples}, {rows} rows."
        )


def _check_finite(name: str, structure: Any) -> None:
    for leaf in tree.flatten(structure):
        if getattr(leaf, "dtype", np.dtype(int)).kind == "f" and not np.isfinite(leaf).all():
            bad = int(leaf.size - np.isfinite(leaf).sum())
            raise ValueError(
                f"`{name}` must be finite. Received: an array of shape {leaf.shape} with {bad} NaN or Inf "
                "among its values. Remove or replace those rows, for example with numpy.nan_to_num."
            )


def knows_inputs(model: Any) -> bool:
    """Tells whether `take_pair` has checked the batch against the model's inputs.

    >>> knows_inputs(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]))
    True

    Args:
        model: A built Keras model.

    Returns:
        True for functional and Sequential models, False for subclassed ones.
    """
    return _expected_inputs(model) is not None


def refusal(model: Any, batch: Any, error: Exception) -> ValueError:
    """Returns the error for a batch that a model, whose inputs were not known, cannot be called on.

    Args:
        model: The model.
        batch: What it was called on.
        error: What it raised.

    Returns:
        An error to raise from `error`.
    """
    return ValueError(
        f"`data` must be what `{model.name}` can be called on. Received: {_describe(batch)}; it raised "
        f"{type(error).__name__}: {reason_of(error)} Pass what `model.predict` takes."
    )


def reason_of(error: BaseException) -> str:
    """Returns the line of an error that says why, without what Keras puts before it and the bold type."""
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
    return next((line for line in lines if line.strip() and not line.startswith("Exception encountered")), "")


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def _is_array_structure(data: Any) -> bool:
    if isinstance(data, dict | tuple | list):
        return all(_is_array(leaf) for leaf in tree.flatten(data)) or _is_nested_numbers(data)
    return _is_array(data)


def _is_nested_numbers(data: Any) -> bool:
    return isinstance(data, list) and all(isinstance(leaf, int | float | str) for leaf in tree.flatten(data))


def _from_list(name: str, data: Any) -> Any:
    try:
        return np.asarray(data) if _is_nested_numbers(data) else data
    except ValueError as error:
        raise ValueError(f"`{name}` must hold rows of equal lengths. Received: nested lists.") from error


def _gather(model: Any, data: Any, samples: int) -> tuple[Any, Any]:
    if isinstance(data, dict | list | str) or not (
        isinstance(data, Iterable) or hasattr(data, "__getitem__")
    ):
        raise ValueError(
            "`data` must be an array, a dict, tuple or list of arrays, an iterable of batches, or None. "
            f"Received: {_describe(data)}."
        )
    # A PyDataset has no __iter__ that ends; its length tells how many batches there are.
    batches = map(data.__getitem__, range(len(data))) if hasattr(data, "__getitem__") else iter(data)
    parts, rows = [], 0
    for batch in batches:
        # A DataLoader makes a list of a pair.
        pair = tuple(batch) if isinstance(batch, list) and len(batch) in (2, 3) else batch
        inputs, targets = _fit(model, pair, samples - rows)
        size = len(tree.flatten(inputs)[0])
        parts.append((inputs, tree.map_structure(lambda leaf, size=size: _to_numpy(leaf, size), targets)))
        rows += size
        if rows >= samples:
            break
    if not parts:
        raise ValueError("`data` must not be empty. Received: an iterable without batches.")
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts)


def _fit(model: Any, data: Any, samples: int) -> tuple[Any, Any]:
    """Brings one structure of arrays into that of the model's inputs, cut to `samples` rows, with targets."""
    data = _from_list("data", data)
    expected = _expected_inputs(model)
    targets = None
    paired = isinstance(data, tuple) and len(data) in (2, 3)
    if paired and (expected is None or len(tree.flatten(data)) != len(tree.flatten(expected))):
        data, targets = data[:2]
    inputs = data if expected is None else _match(expected, data)
    if not all(_is_array(leaf) for leaf in tree.flatten(inputs)):
        raise ValueError(f"`data` must hold arrays. Received: a batch that is {_describe(data)}.")
    batch = tree.map_structure(lambda leaf: _rows(leaf, samples), inputs)
    lengths = {len(leaf) for leaf in tree.flatten(batch)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "`data` must hold at least one row, and as many rows in each of its arrays. "
            f"Received: {_describe(data)}."
        )
    _check_leaves([] if expected is None else tree.flatten(expected), tree.flatten(batch))
    return batch, tree.map_structure(_to_numpy, targets)


def _expected_inputs(model: Any) -> Any:
    """The structure of KerasTensors that a functional or Sequential model was built on; None for others."""
    return getattr(getattr(model, "_functional", model), "_inputs_struct", None)


def _match(expected: Any, data: Any) -> Any:
    wanted = tree.flatten(expected)
    if isinstance(data, dict):
        keys = list(expected) if isinstance(expected, dict) else [tensor.name for tensor in wanted]
        if missing := sorted(set(keys) - set(data)):
            raise _misfit(expected, data, f"it lacks {missing}")
        return {key: data[key] for key in keys} if isinstance(expected, dict) else [data[key] for key in keys]
    leaves = tree.flatten(data)
    if len(leaves) != len(wanted):
        raise _misfit(expected, data, f"the model takes {len(wanted)} arrays, not {len(leaves)}")
    if isinstance(expected, dict):
        raise _misfit(expected, data, "the model takes a dict")
    return tree.pack_sequence_as(expected, leaves)


def _misfit(expected: Any, data: Any, why: str) -> ValueError:
    inputs = ", ".join(f"{tensor.name}{tensor.shape}" for tensor in tree.flatten(expected))
    return ValueError(
        f"`data` must have the structure of the model's inputs ({inputs}): {why}. "
        f"Received: {_describe(data)}. Pass what `model.predict` takes."
    )


def _rows(leaf: Any, samples: int) -> np.ndarray:
    if len(leaf.shape) == 0:
        raise ValueError("`data` must hold arrays of rows. Received: an array of shape ().")
    rows = _to_numpy(leaf, samples)
    if rows.dtype.kind in "cmM":
        raise ValueError(f"`data` must hold real numbers or strings. Received: dtype={rows.dtype}.")
    return rows


def _to_numpy(leaf: Any, rows: int | None = None) -> Any:
    leaf = leaf if rows is None or leaf is None else leaf[:rows]
    leaf = keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf
    return leaf if leaf is None else np.asarray(leaf)


def _check_leaves(expected: list[Any], leaves: list[np.ndarray]) -> None:
    for tensor, leaf in zip(expected, leaves, strict=False):
        fits = len(tensor.shape) == leaf.ndim and all(
            size is None or size == got for size, got in zip(tensor.shape[1:], leaf.shape[1:], strict=True)
        )
        if not fits:
            raise _misfit(tensor, leaf, f"`{tensor.name}` takes the shape {tensor.shape}")
        if (tensor.dtype == "string") != (leaf.dtype.kind in "OSUT"):
            raise _misfit(tensor, leaf, f"`{tensor.name}` takes the dtype {tensor.dtype}")


def _draw(model: Any, samples: int, seed: int | None, drawn: Sequence[Any]) -> Any:
    """Draws inputs of the shapes and dtypes that the model was built on."""
    expected = _expected_inputs(model)
    leaves = tree.flatten(expected)
    if expected is None or any(tensor.dtype == "string" for tensor in leaves):
        raise ValueError(
            "`data=None` needs a functional or Sequential model whose inputs are numbers. "
            f"Received: {type(model).__name__} `{model.name}`. Pass a batch of data."
        )
    rng = np.random.default_rng(seed)
    found = []
    for number, tensor in enumerate(leaves):
        given, limit = drawn[number] if number < len(drawn) else ((), None)
        given = given if len(given) == len(tensor.shape) else tensor.shape
        lengths = [own or length or _OPEN for own, length in zip(tensor.shape, given, strict=True)][1:]
        shape = (tensor.shape[0] or samples, *lengths)
        if limit is not None:
            found.append(rng.integers(0, limit, shape).astype("int32"))
        elif "float" in tensor.dtype:
            found.append(rng.standard_normal(shape).astype("float32"))
        else:
            found.append(np.ones(shape, tensor.dtype))
    return tree.pack_sequence_as(expected, found)


def _describe(data: Any) -> str:
    described = [
        f"{getattr(leaf, 'dtype', type(leaf).__name__)}{tuple(leaf.shape) if hasattr(leaf, 'shape') else ''}"
        for leaf in itertools.islice(tree.flatten(data), 5)
    ]
    keys = f" with keys {sorted(map(str, data))}" if isinstance(data, dict) else ""
    return f"{type(data).__name__}{keys} of {', '.join(described) or 'nothing'}"
