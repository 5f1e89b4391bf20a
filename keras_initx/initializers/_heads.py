"""Biases of heads whose first predictions are the frequencies of the classes."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_choice, check_finite
from keras_initx.initializers._base import PACKAGE, Shown, draw, spread
from keras_initx.initializers._labels import Labelled, check_numbers, is_one_hot


@keras.saving.register_keras_serializable(package=PACKAGE)
class PriorBias(Shown):
    """A bias for heads: the first predictions are the known frequencies of the classes.

    Law: b = log(p / (1 - p)) for sigmoid heads and b = log p for softmax heads, so that the activation of b
    is the prior p. With a small or zero kernel the first loss is the entropy of the prior. No constant
    prediction has a smaller loss, so that the first steps need not learn the frequencies. It does not draw
    random numbers.

    Choose it for imbalanced classes and detectors, where the loss of the negatives would hide the rare
    positives. Do not choose it if the loss or the sampling balances the classes: this changes the
    prior.

    >>> bias = PriorBias(prior=[0.7, 0.2, 0.1], activation="softmax")((3,))
    >>> print(" ".join(f"{float(p):.2f}" for p in keras.ops.softmax(bias)))
    0.70 0.20 0.10

    Args:
        prior: Probability in (0, 1) of the positive class: one number for all units, or a sequence with one
            number for each unit. For `"softmax"` a sequence of class probabilities. Their sum must be 1
            within 1e-3; they are divided by this sum.
        activation: The activation after the bias: `"sigmoid"` or `"softmax"`.

    Raises:
        ValueError: If a probability is not in (0, 1), softmax probabilities are a single number or do not sum
            to 1, or the activation is unknown; on a call, if the number of probabilities is not the shape's
            last axis or `dtype` is not a float.

    Reference:
        Lin, Goyal, Girshick, He and Dollar, 2017, "Focal loss for dense object detection",
        https://arxiv.org/abs/1708.02002 (b = -log((1 - p) / p) with p = 0.01). Additions: a probability for
        each unit, and the same rule for softmax.
    """

    weight = "bias"

    def __init__(self, prior: float | Sequence[float] = 0.01, activation: str = "sigmoid") -> None:
        self.activation = check_choice("activation", activation, ("sigmoid", "softmax"))
        self.prior = _check_prior(prior)
        if self.activation == "softmax":
            _check_classes(self.prior)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a bias as a tensor of this shape and float dtype (None: Keras' floatx)."""
        shape = tuple(shape)
        if isinstance(self.prior, list) and (not shape or shape[-1] != len(self.prior)):
            raise ValueError(
                "`prior` must have one probability for each unit. Received: "
                f"{len(self.prior)} probabilities (shape={shape}). Set the layer's units to "
                f"{len(self.prior)}, or give `prior` one number for each of its units."
            )
        logits = self._compute_logits()
        return draw(lambda dtype: spread(ops.convert_to_tensor(logits, dtype), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"prior": self.prior, "activation": self.activation}

    def _compute_logits(self) -> float | list[float]:
        if isinstance(self.prior, float):
            return _logit(self.prior)
        if self.activation == "sigmoid":
            return [_logit(rate) for rate in self.prior]
        total = math.fsum(self.prior)
        return [math.log(rate / total) for rate in self.prior]


def _logit(rate: float) -> float:
    return math.log(rate) - math.log1p(-rate)


def _check_prior(prior: Any) -> float | list[float]:
    """Returns the prior as a float or a list of floats; raises ValueError for values outside (0, 1)."""
    single = isinstance(prior, numbers.Real)
    if not single and (isinstance(prior, str) or not hasattr(prior, "__iter__") or not len(prior)):
        raise ValueError(f"`prior` must be a number or a sequence of numbers. Received: prior={prior!r}.")
    rates = [prior] if single else list(prior)
    for rate in rates:
        # NaN fails both comparisons.
        if not isinstance(rate, numbers.Real) or not 0 < float(rate) < 1:
            raise ValueError(
                f"`prior` must be in (0, 1), ends excluded. Received: prior={prior!r}. A class that never or "
                "always occurs has an infinite bias; give it a small count first."
            )
    return float(prior) if single else [float(rate) for rate in rates]


def _check_classes(prior: float | list[float]) -> None:
    if isinstance(prior, float):
        raise ValueError(
            '`prior` must be a sequence of class probabilities with activation="softmax". Received: '
            f"prior={prior!r}. Give one probability for each class."
        )
    if abs(math.fsum(prior) - 1) > 1e-3:
        raise ValueError(
            f'`prior` must sum to 1 with activation="softmax". Received: prior={prior!r} with sum '
            f'{math.fsum(prior):.6g}. Divide by the sum, or use activation="sigmoid" for independent labels.'
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class LabelPrior(Labelled):
    """A bias for heads: the first predictions are the frequencies of the labels, measured on data.

    Law: the bias is zero until `keras_initx.calibrate` runs. `calibrate` then moves the mean of each unit's
    pre-activation to the logit of its prior: log p_k of class k for `"categorical"`, log(p / (1 - p)) for
    `"binary"`, and the mean of the targets for `"numeric"`. The bias makes up for the mean that the kernel
    contributes. On average over the data the head starts at the best constant prediction, so that the first
    steps need not learn the frequencies. The smaller the kernel, the closer each single prediction is to the
    prior.

    Choose it for imbalanced classes and for targets far from zero. Do not choose it if the loss or the
    sampling balances the classes. If the prior is known without data, choose `PriorBias`.

    Use it as the `bias_initializer` of a head: the kernel then keeps its own initializer. Or use it as the
    `initializer` of `calibrate`: it then changes the heads of the model alone.

    >>> import numpy as np
    >>> means = LabelPrior(smoothing=0.0).means(np.array([0, 0, 0, 1]), units=2, activation="softmax")
    >>> bool(np.allclose(np.exp(means), [0.75, 0.25]))
    True

    Args:
        form: Form of the targets: `"categorical"` (one class of several, as a number or a one-hot row),
            `"binary"` (zeros and ones, for each unit by itself) or `"numeric"`. None decides by the
            activation after the head: softmax means categorical, sigmoid means binary. For another activation
            it decides by the targets: whole numbers and one-hot rows are categorical (binary for one unit),
            other zeros and ones are binary, and everything else is numeric.
        smoothing: Number of examples, at least 0, that is added to the count of each class. It keeps the
            logit of a class finite that does not occur.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float; in `means`, if
            the targets do not fit the form and the units, or a class does not occur and `smoothing` is 0.

    Reference:
        Cappelletti, 2024, keras-team/keras#20357, for categorical and binary labels; a request, not a paper.
        Additions: smoothing, numeric targets, and the allowance for the mean that the kernel contributes.
    """

    needs = frozenset({"inputs", "targets"})
    scope = "unit"
    weight = "bias"

    def __init__(self, form: str | None = None, smoothing: float = 1.0) -> None:
        super().__init__(form)
        if check_finite("smoothing", smoothing) < 0:
            raise ValueError(f"`smoothing` must be at least 0. Received: smoothing={smoothing!r}.")
        self.smoothing = float(smoothing)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns zeros as a tensor of this shape and float dtype (None: Keras' floatx)."""
        return draw(lambda dtype: ops.zeros(tuple(shape), dtype), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"form": self.form, "smoothing": self.smoothing}

    def means(
        self,
        targets: np.ndarray,
        units: int,
        activation: str | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the mean that the pre-activation of each unit should have.

        Args:
            targets: Class numbers of any shape, or an array whose last axis numbers the units. For one unit
                this axis may be missing.
            units: Units of the head.
            activation: Name of the activation after the head. Only `"softmax"` and `"sigmoid"` tell a form.
            weights: Sample weights: one for each row of the targets, or one for each position in a row. Only
                their ratios count. None gives all rows the same weight.

        Returns:
            float64 of shape (units,).
        """
        targets = check_numbers(np.asarray(targets))
        form = self.form_of(targets, units, activation)
        if form == "categorical":
            counts = _count(targets, units, weights) + self.smoothing
            return _log(counts / counts.sum())
        if targets.size % units or (units > 1 and targets.shape[-1] != units):
            raise _misfit(targets, f"hold {units} numbers in each row, one for each unit", form)
        rows = targets.reshape(-1, units).astype("float64")
        shares = _shares(weights, targets.shape, len(rows))[:, None]
        if form == "numeric":
            return (shares * rows).mean(axis=0)
        if ((rows != 0) & (rows != 1)).any():
            raise _misfit(targets, "be zeros and ones", form)
        ones = (shares * rows).sum(axis=0) + self.smoothing
        zeros = (shares * (1 - rows)).sum(axis=0) + self.smoothing
        return _log(ones / (ones + zeros)) - _log(zeros / (ones + zeros))


def _shares(weights: np.ndarray | None, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Returns the sample weight of each of `count` labels, scaled to a mean of 1."""
    if weights is None:
        return np.ones(count)
    weights = np.asarray(weights, "float64")
    if weights.shape != shape[: weights.ndim] or count % (weights.size or 1):
        raise ValueError(
            "`sample_weight` must hold a number for each row of the targets, or for each position in a row. "
            f"Received: sample weights of shape {weights.shape}, targets of shape {shape}."
        )
    if not (weights.min() >= 0 and weights.sum() > 0):
        raise ValueError(
            "`sample_weight` must be at least 0 everywhere and positive somewhere. Received: numbers from "
            f"{weights.min():g} to {weights.max():g}."
        )
    return np.repeat(weights.ravel() / weights.mean(), count // weights.size)


def _count(targets: np.ndarray, units: int, weights: np.ndarray | None) -> np.ndarray:
    """Returns how often each class occurs among class numbers, or among rows of probabilities."""
    if is_one_hot(targets, units) or (targets.dtype.kind == "f" and targets.shape[1:][-1:] == (units,)):
        rows = targets.reshape(-1, units)
        return (_shares(weights, targets.shape, len(rows))[:, None] * rows).sum(axis=0, dtype="float64")
    numbers = targets.ravel().astype("int64")
    if (numbers != targets.ravel()).any() or numbers.min() < 0 or numbers.max() >= units:
        raise _misfit(targets, f"be whole numbers from 0 to {units - 1}, or rows of {units}", "categorical")
    return np.bincount(numbers, _shares(weights, targets.shape, len(numbers)), minlength=units)


def _log(rates: np.ndarray) -> np.ndarray:
    if (rates <= 0).any():
        raise ValueError(
            f"`smoothing` must be positive where a class does not occur. Received: classes "
            f"{np.flatnonzero(rates <= 0).tolist()} without an example. The default of 1 keeps logits finite."
        )
    return np.log(rates)


def _misfit(targets: np.ndarray, rule: str, form: str) -> ValueError:
    return ValueError(
        f"`targets` must {rule} for form={form!r}. Received: targets of shape {targets.shape}, dtype "
        f"{targets.dtype}. Set `form` if they are of another kind."
    )
