"""A head whose columns are the mean directions of the features of each class."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_initx.checks import check_switch
from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._head_law import ALIKE, Head, HeadLaw, log_prior, unseen_classes
from keras_initx.initializers._head_rows import HeadRows, has_two_classes
from keras_initx.initializers._linear_probe import accuracy_of, held_rows, spread_of
from keras_initx.initializers._temperature import Answers, fit_scale

__all__ = ["ClassMeans"]

_ALIKE = 1e-6  # the rounding of float32, relative to the scores


@keras.saving.register_keras_serializable(package=PACKAGE)
class ClassMeans(HeadLaw):
    """A head by weight imprinting: the column of a class is the mean direction of its features.

    Law: w_c is the mean of the unit vectors f / |f| over the examples of class c, brought to norm 1 again.
    The kernel has the columns s w_c and the bias is zero, so that the logits are s w_c f. The scale s has the
    least cross-entropy on held-out rows. The accuracy of these rows is in the report. One sigmoid unit gets
    the difference of the columns of its ones and of its zeros.

    Each example is held out in turn: its unit vectors are taken off the sum of its class. An example that is
    the only one of its class is not held out. If fewer than two classes have two examples, nothing is: the
    logits then have standard deviation 1, and the report holds no accuracy. A class without an example has a
    column of zeros and, with a bias, the smallest logit. If all rows have the same features, the kernel is
    zero and the bias holds the frequencies of the classes.

    The zeros that it draws stay until `keras_initx.calibrate` runs with data and targets. The body stays as
    it is.

    Choose it for one or two examples of each class, and for more classes than features. With five examples
    or more, `LinearProbe` is more accurate: it knows which directions vary within a class. It is for classes,
    not for numbers or several labels at once.

    >>> from keras_initx.initializers import HeadRows
    >>> features = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 5.0]])[:, None]
    >>> rows = HeadRows(features, np.array([[0], [1], [1]]), np.ones((3, 1)), 2, "categorical")
    >>> kernel = ClassMeans().solve(rows).kernel
    >>> print(kernel / kernel.max())
    [[1. 0.]
     [0. 1.]]

    Args:
        center: Whether to count features from their mean, which the bias then takes. After a ReLU all
            features are positive and their directions alike; centred directions differ more.
        form: Form of the targets: `"categorical"` (one class of several, as a number or a one-hot row) or
            `"binary"` (zeros and ones, for a head of one unit). None decides by the activation after the
            head, then by the loss, then by the targets.

    Raises:
        ValueError: If `center` is not a bool or the form is unknown; in `solve`, if the targets are numbers
            or several labels at once; on a call, if `dtype` is not a float.

    Reference:
        Qi, Brown and Lowe, 2018, "Low-shot learning with imprinted weights"
        (https://arxiv.org/abs/1712.07136), in the form of public code (YU1ut/imprinted-weights); of the paper
        the abstract was read. Deviations: the paper's classifier divides the features by their norm and
        learns s. A dense layer takes the features as they are, so its logits also grow with their norm, and s
        is fitted. `center` is an addition.
    """

    def __init__(self, center: bool = False, form: str | None = None) -> None:
        super().__init__(form)
        self.center = check_switch("center", center)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"center": self.center, "form": self.form}

    def add_up(self, rows: HeadRows, origin: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the sums of the unit vectors and of the weights of each class."""
        rows = _as_classes(rows)
        units = _unit(rows.flat - (origin if self.center else 0.0))
        return rows.cross(units), rows.cross(np.ones((len(units), 1)))[:, 0]

    def solve(self, rows: HeadRows, bias: bool = True) -> Head:
        """Returns the mean directions of the classes, with logits of the right temperature.

        Args:
            rows: The features and their targets.
            bias: Whether the head has a bias.
        """
        classes = _as_classes(rows)
        weights = rows.weights.reshape(-1, 1).astype("float64")
        law = self if bias else ClassMeans()
        center = np.zeros(rows.features.shape[-1])
        if law.center:
            center = (weights * rows.flat).sum(axis=0) / weights.sum() if rows.origin is None else rows.origin
        sums, counts = rows.sums or law.add_up(rows, center)
        columns = _unit(sums).T
        prior = np.where(counts > 0, 0.0, -np.log(counts.sum() + 1)) if bias else np.zeros(len(counts))
        few = held_rows(classes)
        scores, held = _left_out(few, center, sums, counts)
        answers = Answers(scores, few.dense, held, prior, "categorical")
        own = (few.flat - center) @ columns
        spread = spread_of(own, few.weights)
        note = unseen_classes(counts, "categorical", rows.given)
        if spread <= _ALIKE * np.abs(own).max(initial=0.0):  # features that differ by rounding alone
            columns, note = np.zeros_like(columns), "; ".join(filter(None, (note, ALIKE)))
            prior, spread = log_prior(counts, counts.sum(), "categorical") if bias else prior, 0.0
            answers = Answers(np.zeros_like(scores), few.dense, held, prior, "categorical")
        scale = fit_scale(answers, spread)
        kernel, shift = scale * columns, prior - scale * (center @ columns)
        if classes is not rows:  # one sigmoid unit is the second logit less the first
            kernel, shift = kernel[:, 1:] - kernel[:, :1], shift[1:] - shift[:1]
        found, told = accuracy_of(answers, scale)
        return Head(kernel, shift, found, f"{told}, temperature {1 / scale:.2g}", note)


def _as_classes(rows: HeadRows) -> HeadRows:
    """Returns rows of classes: those of one sigmoid unit have the classes 0 and 1."""
    if rows.form == "categorical":
        return rows
    if rows.form == "binary" and rows.units == 1:
        numbers = (rows.targets[..., 0] > 0.5).astype(int)
        return dataclasses.replace(rows, targets=numbers, units=2, form="categorical")
    raise ValueError(
        f"`initializer` ClassMeans needs classes. Received: targets of form {rows.form!r} for {rows.units} "
        "units. Take `initx>LinearProbe`, or set `form` of the law."
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    """Returns each row at norm 1; rows of zeros stay zeros."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _left_out(
    rows: HeadRows, center: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the products of each row with the columns that lack its example, and the weights of these rows.

    Args:
        rows: The rows.
        center: The point that features are counted from.
        sums: The sum of the unit vectors of each class.
        counts: The weight of each class.
    """
    shape = (*rows.weights.shape, -1)
    features = (rows.flat - center).reshape(shape)
    units, own = _unit(features), rows.weights[..., None] * rows.dense
    products = features @ sums.T - (features @ units.swapaxes(1, 2)) @ own
    # The squared norm of the sum without the example: |s|^2 - 2 s t + |t|^2, with t the example's part.
    crossed = (own * (units @ sums.T)).sum(axis=1)
    part = (own * ((units @ units.swapaxes(1, 2)) @ own)).sum(axis=1)
    squares = (sums**2).sum(axis=1) - 2 * crossed + part
    rest = counts - own.sum(axis=1)
    left = rest > 1e-9 * counts.sum()
    norms = np.sqrt(np.where(left & (squares > 0), squares, 1.0))
    scores = np.where(left[:, None], products / norms[:, None], 0.0)
    held = (rows.weights * np.take_along_axis(left, rows.classes, axis=1))[..., None]
    return scores, held * has_two_classes(held, rows.classes[..., None])
