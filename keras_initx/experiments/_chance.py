"""What a model reaches that learned nothing of its inputs: the best prediction that all rows share."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import mask_of
from keras_initx.data import take_pair
from keras_initx.experiments._batches import is_arrays, rows_of
from keras_initx.experiments._metrics import fact_of

__all__ = ["best_constant"]

_NUMBERS = 1 << 22  # of predictions at once
_MOST = 1 << 27  # of predictions in all: beyond it, it takes too long
_SMALL = 1e-7  # a probability, for its logarithm


def best_constant(model: Any, logged: Any, data: Any, batch_size: int, minimize: bool) -> float | None:
    """Returns the metric of the best of some predictions that are the same for all rows.

    They are the mean and the median of the targets, and the logits of the mean: the optima of Keras' own
    errors, crossentropies and accuracies. Of another metric the best one may be better still, so that a model
    that is not better than this value is not better than a constant in any case.

    Args:
        model: A compiled model.
        logged: What computes the metric, as `logged_by` tells.
        data: The data that the metric is reported on.
        batch_size: Rows of a batch, where the model was built for one size.
        minimize: Whether less of the metric is better.

    Returns:
        The value; None where constants are no measure (recall, say, is 1 for one of them, and with one class
        so is accuracy), and where it cannot be told: of data that are not arrays or have sample weights, of
        masks, of several outputs, and of losses and metrics that are not Keras' own.
    """
    fact = fact_of(logged)
    if not fact.constant or not is_arrays(data) or len(data) != 2:
        return None
    try:
        x, _ = take_pair(model, data, batch_size)
        output = model(x, training=False)
        targets = data[1]
        if len(tree.flatten([output, targets])) != 2 or mask_of(output) is not None:
            return None
        shape = tuple(output.shape[1:])
        if rows_of(targets) * math.prod(shape) > _MOST:
            return None
        measure = _measure(model, logged)
        values = [measure(targets, constant) for constant in _constants(targets, shape)]
    except Exception:  # A user's model, and a number that the comparison can do without.
        return None
    found = [value for value in values if math.isfinite(value)]
    best = (min if minimize else max)(found, default=None)
    return None if best in (fact.lower, fact.upper) else best


def _constants(targets: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Predictions of one row to try."""
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


def _measure(model: Any, logged: Any) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns a function that measures one prediction for all rows, as `evaluate` would."""

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
