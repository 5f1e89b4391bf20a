"""The scale of logits that answers rows best which it was not fitted on, and how well it answers them.

A score of the squared loss, or a cosine, has the right order and the wrong size: a softmax takes logits. With
logits = scale * scores + prior, the cross-entropy is convex in the scale, and its slope is a sum over rows
that changes sign once.
"""

import numpy as np

__all__ = ["Answers", "chance_of", "fit_scale", "hits_of"]

# Smallest std of the logits. A scale of 0 would lose the order of the scores, on which the accuracy rests.
_LEAST_STD = 0.1


class Answers:
    """Scores of held-out rows, flattened.

    Args:
        scores: Scores of shape (..., units).
        targets: Targets between 0 and 1, of the same shape.
        weights: Weight of each row, of shape (..., 1); or of each unit in each row, of the shape of `scores`.
        prior: Logits without features, of shape (units,).
        form: `"categorical"` for a softmax over the units, `"binary"` for a sigmoid of each.
    """

    def __init__(
        self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray, prior: np.ndarray, form: str
    ) -> None:
        units = scores.shape[-1]
        self.scores, self.targets = scores.reshape(-1, units), targets.reshape(-1, units)
        self.weights, self.prior, self.form = weights.reshape(len(self.scores), -1), prior, form

    def logits(self, scale: float) -> np.ndarray:
        """Returns the logits at a scale."""
        return scale * self.scores + self.prior

    def slope(self, scale: float) -> float:
        """Returns the derivative of the cross-entropy by the scale; it grows with the scale.

        One more example, of which the prior is the label, keeps the best scale finite where all rows are
        answered right.
        """
        from scipy.special import expit, softmax

        function = expit if self.form == "binary" else lambda values: softmax(values, axis=-1)
        count = self.weights.sum(axis=0)
        smoothed = (count * self.targets + function(self.prior)) / (count + 1)
        wrong = function(self.logits(scale)) - smoothed
        return float((self.weights * wrong * self.scores).sum())


def fit_scale(answers: Answers, std: float) -> float:
    """Returns the scale of the least cross-entropy on held-out rows.

    Args:
        answers: The scores of these rows.
        std: Standard deviation of the scores of the head, over all rows. The logits' is at least 0.1.
    """
    from scipy.optimize import brentq

    if not std > 0:
        return 1.0
    low, high = _LEAST_STD / std, 1 / std
    if not answers.weights.any() or answers.slope(low) >= 0:
        return low if answers.weights.any() else high
    while answers.slope(high) < 0 and high < 1e6 / std:
        high *= 4
    return float(brentq(answers.slope, low, high, xtol=1e-9 / std)) if answers.slope(high) > 0 else high


def hits_of(answers: Answers, scale: float) -> float:
    """Returns the accuracy on held-out rows: of classes, or of each unit's zeros and ones."""
    logits = answers.logits(scale)
    if answers.form == "binary":
        right = (logits > 0) == (answers.targets > 0.5)
    else:
        right = logits.argmax(-1, keepdims=True) == answers.targets.argmax(-1, keepdims=True)
    return float(np.average(right, weights=np.broadcast_to(answers.weights, right.shape)))


def chance_of(answers: Answers) -> float:
    """Returns the accuracy of the best constant answer on the same rows."""
    sums, totals = (answers.weights * answers.targets).sum(axis=0), answers.weights.sum(axis=0)
    if answers.form == "binary":
        return float(np.maximum(sums, totals - sums).sum() / np.broadcast_to(totals, sums.shape).sum())
    return float(sums.max() / totals[0])
