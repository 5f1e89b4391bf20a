"""A head by ridge regression on the features that reach it."""

import math
from typing import Any

import keras
import numpy as np

from keras_initx.checks import check_positive
from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._head_law import ALIKE, Head, HeadLaw, log_prior, unseen_classes
from keras_initx.initializers._head_rows import HeadRows
from keras_initx.initializers._ridge import MOST_FEATURES, HeldOut, Ridge, add_up
from keras_initx.initializers._temperature import Answers, chance_of, fit_scale, hits_of

__all__ = ["LinearProbe", "accuracy_of", "held_rows", "spread_of"]

_FEW = "fewer than two classes have two examples"
_HELD_ROWS = 20_000  # largest number of rows that are held out
_HELD_SCORES = 2**21  # largest number of their scores, but at least 500 rows


@keras.saving.register_keras_serializable(package=PACKAGE)
class LinearProbe(HeadLaw):
    """A head by ridge regression: the best linear answer from the features of a trained body.

    Law: kernel = s (F^T F + regularization I)^(-1) F^T Y, where F holds the centred features and Y the
    centred targets: one-hot rows, zeros and ones, or numbers. The bias takes the means. For numbers s is 1,
    and the head starts at the ridge regression. For classes the logits are s times the scores plus the
    logits of the classes' frequencies, and s has the least cross-entropy on held-out rows: it is the inverse
    temperature. The accuracy of these rows is in the report.

    Each example is held out in turn: the answer of the regression without it follows from the regression on
    all, in closed form. The rows of one example, such as the positions of a sequence, are held out together.
    An example that is the only one of its class is not held out; a sigmoid unit has two classes, its ones and
    its zeros. One class alone tells nothing. So if fewer than two classes have two examples, nothing is held
    out: the penalty is then the largest variance of the features, the logits have standard deviation 1, and
    the report holds no accuracy. Scores and accuracy are of a head from one example less, so with two
    examples of a class they are too small.

    The zeros that it draws stay until `keras_initx.calibrate` runs with data and targets. The body stays as
    it is.

    Choose it for a new head on a trained body, before fine-tuning: from a random head, the first steps
    change the features more than the head needs. Do not choose it for a body that is not trained. With more
    classes than features the squared loss cannot tell a class between others from these: take `ClassMeans`.
    If the loss balances the classes, pass sample weights that balance them, too.

    >>> from keras_initx.initializers import HeadRows
    >>> generator = np.random.default_rng(0)
    >>> labels = np.arange(200)[:, None] % 2
    >>> features = generator.normal(size=(200, 1, 5)) + 2.0 * labels[:, :, None]
    >>> head = LinearProbe().solve(HeadRows(features, labels, np.ones((200, 1)), 2, "categorical"))
    >>> print(head.told.split(",")[0])
    held-out accuracy 0.98 (chance 0.50)

    Args:
        regularization: The penalty of the squared kernel, as `alpha` of scikit-learn's `Ridge`. Only the
            ratios of sample weights count: they are brought to mean 1 over the rows whose weight is not 0.
            None takes the penalty of 17, the largest variance of the features times 10^-7 to 10, that has the
            least squared error on held-out rows.
        form: Form of the targets: `"categorical"` (one class of several, as a number, a one-hot row or a row
            of probabilities), `"binary"` (zeros and ones, for each unit by itself) or `"numeric"`. None
            decides by the activation after the head, then by the loss, then by the targets.

    Raises:
        ValueError: If `regularization` is not positive or the form is unknown; on a call, if `dtype` is not
            a float.

    Reference:
        Kumar, Raghunathan, Jones, Ma and Liang, 2022, "Fine-tuning can distort pretrained features and
        underperform out-of-distribution" (https://arxiv.org/abs/2202.10054), for a linear probe before
        fine-tuning; the abstract was read. The paper's probes are not ridge regressions. Chosen here: the
        squared loss, whose left-out answers have a closed form (PRESS: Allen, 1974, from memory), the
        frequencies in the bias, and the temperature.
    """

    def __init__(self, regularization: float | None = None, form: str | None = None) -> None:
        super().__init__(form)
        self.regularization = (
            None if regularization is None else check_positive("regularization", regularization)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"regularization": self.regularization, "form": self.form}

    def add_up(self, rows: HeadRows, origin: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the second moments of features and targets, which add up over rows."""
        _check_size(rows.features.shape[-1])
        return add_up(rows, origin)

    def solve(self, rows: HeadRows, bias: bool = True) -> Head:
        """Returns the ridge regression, with logits of the right temperature.

        Args:
            rows: The features and their targets.
            bias: Whether the head has a bias. Without one, features are not centred, targets are centred at
                the same value for all classes, and the logits hold no frequencies.
        """
        if rows.sums is None:
            _check_size(min(rows.weights.size, rows.features.shape[-1]))
        ridge = Ridge(rows, bias)
        held = HeldOut(ridge, held_rows(rows))
        penalty = held.best() if self.regularization is None else self.regularization
        kernel = ridge.kernel(penalty)
        unseen = unseen_classes(ridge.counts, rows.form, rows.given)
        note = "; ".join(filter(None, (unseen, "" if len(ridge.variances) else ALIKE)))
        if rows.form == "numeric":
            found, told = _explained(held, penalty)
            return Head(
                kernel,
                ridge.middle - ridge.mean @ kernel,
                found,
                f"{told}, regularization {penalty:.2g}",
                note,
            )
        prior = log_prior(ridge.counts, ridge.total, rows.form) if bias else np.zeros(rows.units)
        answers = Answers(held.scores(penalty), held.targets, held.weights_held, prior, rows.form)
        scale = fit_scale(answers, spread_of(held.along @ (ridge.directions.T @ kernel), held.weights))
        found, told = accuracy_of(answers, scale)
        return Head(
            scale * kernel,
            prior - scale * (ridge.mean @ kernel),
            found,
            f"{told}, temperature {1 / scale:.2g}, regularization {penalty:.2g}",
            note,
        )


def held_rows(rows: HeadRows) -> HeadRows:
    """Returns the rows that are held out: all, or as many as time and memory allow, evenly spaced."""
    most = min(_HELD_ROWS, max(500, _HELD_SCORES // rows.units))
    return rows.spread(max(1, most // rows.features.shape[1]))


def spread_of(scores: np.ndarray, weights: np.ndarray) -> float:
    """Returns the standard deviation of scores (..., units) within their units, with weights of rows."""
    flat, shares = scores.reshape(-1, scores.shape[-1]), weights.ravel() / weights.sum()
    return float(np.sqrt((shares @ (flat - shares @ flat) ** 2).mean()))


def accuracy_of(answers: Answers, scale: float) -> tuple[float | None, str]:
    """Returns the accuracy on held-out rows, and a sentence with it; None if there are no such rows."""
    if not answers.weights.any():
        few = "no unit has two ones and two zeros" if answers.form == "binary" else _FEW
        return None, f"no held-out accuracy: {few}"
    accuracy, chance = hits_of(answers, scale), chance_of(answers)
    return accuracy, f"held-out accuracy {accuracy:.2f} (chance {chance:.2f})"


def _explained(held: HeldOut, penalty: float) -> tuple[float | None, str]:
    """Returns R2 on held-out rows: the share of the squared distance to the mean of the others that goes."""
    if not held.weights_held.any():
        return None, "no held-out R2: one example"
    weights = held.weights_held[..., 0]
    left = float((weights * (held.errors(penalty) ** 2).mean(-1)).sum())
    whole = float((weights * ((held.targets - held.middle) ** 2).mean(-1)).sum())
    if whole <= 1e-12 * float((weights * (held.targets**2).mean(-1)).sum()):
        return None, "no held-out R2: the targets of all rows are the same"
    share = 1 - left / whole
    return share, f"held-out R2 {share:.2f} (root mean square error {math.sqrt(left / weights.sum()):.3g})"


def _check_size(features: int) -> None:
    if features > MOST_FEATURES:
        raise ValueError(
            f"`samples` must be at most {MOST_FEATURES} for a head with more features than this. Received: "
            f"{features} features and as many rows, whose decomposition would take hours. Pass "
            f"samples={MOST_FEATURES} or less, or pool the features before the head."
        )
