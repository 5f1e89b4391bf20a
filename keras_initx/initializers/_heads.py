"""Biases of classification heads that predict known class frequencies from the first step."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.initializers._base import PACKAGE, check_choice, draw, spread


@keras.saving.register_keras_serializable(package=PACKAGE)
class PriorBias(keras.initializers.Initializer):
    """A head's bias that makes its first predictions the classes' known frequencies.

    Law: b = log(p / (1 - p)) for sigmoid heads, b = log p for softmax heads, so that the activation of b is
    the prior p. With a small or zero kernel the first loss is the entropy of the prior, the least that a
    constant prediction reaches, and the first steps are not spent on learning the frequencies. Choose it for
    imbalanced classes and detectors, where rare positives would drown in the loss of the negatives. Do not
    choose it if the loss or the sampling balances the classes, which changes the prior. It draws nothing.

    >>> bias = PriorBias(prior=[0.7, 0.2, 0.1], activation="softmax")((3,))
    >>> print(" ".join(f"{float(p):.2f}" for p in keras.ops.softmax(bias)))
    0.70 0.20 0.10

    Args:
        prior: Probability in (0, 1) of the positive class, the same for all units, or a sequence of one for
            each unit; for `"softmax"` a sequence of class probabilities whose sum is 1 to within 1e-3, which
            are divided by it.
        activation: What follows the bias: `"sigmoid"` or `"softmax"`.

    Raises:
        ValueError: If a probability is not in (0, 1), softmax probabilities are a single number or do not sum
            to 1, or the activation is unknown; on a call, if the number of probabilities is not the shape's
            last axis or `dtype` is not a float.

    Reference:
        Lin, Goyal, Girshick, He and Dollar, 2017, "Focal loss for dense object detection",
        https://arxiv.org/abs/1708.02002 (b = -log((1 - p) / p) with p = 0.01). A probability
        for each unit and softmax are the same rule, not in the paper.
    """

    def __init__(self, prior: float | Sequence[float] = 0.01, activation: str = "sigmoid") -> None:
        self.activation = check_choice("activation", activation, ("sigmoid", "softmax"))
        self.prior = _check_prior(prior)
        if self.activation == "softmax":
            _check_classes(self.prior)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a bias of the given shape and float dtype (Keras' floatx when None)."""
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
    """Returns the prior as a float or a list of floats, or raises if they are no probabilities in (0, 1)."""
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
