"""The level of chance: the metric of the best prediction that is the same for all rows."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import mask_of
from keras_initx._types import Data, Model
from keras_initx.data import take_pair
from keras_initx.experiments._batches import is_arrays, rows_of
from keras_initx.experiments._metrics import Logged, fact_of

__all__ = ["best_constant"]

_NUMBERS = 1 << 22  # numbers of predictions in one chunk
_MOST = 1 << 27  # numbers of predictions in all; more would take too long
_SMALL = 1e-7  # the least probability that a logarithm is taken of


def best_constant(model: Model, logged: Logged, data: Data, batch_size: int, minimize: bool) -> float | None:
    """Returns the metric of the best of a few predictions that are the same for all rows.

    The predictions are the mean and the median of the targets, and the logits of the mean. They are the best
    constants for Keras' own errors, crossentropies and accuracies. For another metric a better constant may
    exist. A model that is not better than this value is then still not better than a constant.

    Args:
        model: A compiled model.
        logged: The metric or the loss, as `logged_by` returns it.
        data: The data that the metric is reported on.
        batch_size: Rows of a batch, in case the model was built for one size.
        minimize: Whether less of the metric is better.

    Returns:
        The value. None if a constant says nothing about learning: the recall of one constant is 1, and so is
        the accuracy with a single class. None also if the value cannot be measured: for data that are not
        arrays or have sample weights, for masks, for several outputs, and for losses and metrics that are not
        Keras' own.
    """
    fact = fact_of(logged)
    if not fact.constant or not is_arrays(data) or len(data) != 2:
        return None
    try:
        x, _ = take_pair(model, data, batch_size)
        output = model(x, training=False)
        targets: Any = data[1]
        if len(tree.flatten([output, targets])) != 2 or mask_of(output) is not None:
            return None
        shape = tuple(output.shape[1:])
        if rows_of(targets) * math.prod(shape) > _MOST:
            return None
        measure = _measure(model, logged)
        values = [measure(targets, constant) for constant in _constants(targets, shape)]
    except Exception:  # the model is the user's, and the comparison can do without this number
        return None
    found = [value for value in values if math.isfinite(value)]
    best = (min if minimize else max)(found, default=None)
    return None if best in (fact.lower, fact.upper) else best


def _constants(targets: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yields the predictions to try, each for one row."""
    if targets.dtype.kind not in "biuf":
        return
    if targets.shape[1:] == shape or (targets.shape[1:] == shape[:-1] == () and shape == (1,)):
        flat = targets.reshape(-1, *shape)
        mean = flat.mean(axis=0, dtype="float64")
        yield mean
        yield np.median(flat, axis=0)
    elif shape and shape[-1] > 1 and targets.shape[1:] in (shape[:-1], (*shape[:-1], 1)):
        classes = targets.reshape(-1, *shape[:-1]).astype("int64")
        mean = np.stack([(classes == number).mean(axis=0) for number in range(shape[-1])], axis=-1)
        yield mean
    else:
        return
    if (mean >= 0).all() and (mean <= 1).all():
        share = np.clip(mean, _SMALL, 1 - _SMALL)
        yield np.log(share) if shape[-1:] != (1,) else np.log(share / (1 - share))
        yield np.log(share / (1 - share))


def _measure(model: Model, logged: Logged) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns a function that measures one prediction for all rows, as `evaluate` would.

    It goes in chunks, so that a large vocabulary times many rows does not fill the memory.
    """

    def measure(targets: np.ndarray, constant: np.ndarray) -> float:
        rows = max(1, _NUMBERS // max(1, constant.size))
        total = 0.0
        if isinstance(logged, keras.Metric):
            logged.reset_state()
        for start in range(0, len(targets), rows):
            chunk = targets[start : start + rows]
            predicted = np.broadcast_to(constant, (len(chunk), *constant.shape)).astype(keras.config.floatx())
            given = keras.ops.convert_to_tensor(chunk), keras.ops.convert_to_tensor(predicted)
            if isinstance(logged, keras.Metric):
                logged.update_state(*given)
            else:
                loss = model.compute_loss(y=given[0], y_pred=given[1], training=False)
                total += float(loss) * len(chunk) / len(targets)
        return float(logged.result()) if isinstance(logged, keras.Metric) else total

    return measure
