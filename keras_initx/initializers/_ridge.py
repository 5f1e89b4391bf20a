"""Ridge regression in closed form, for all penalties at once, with the answers to rows that are left out."""

import numpy as np

from keras_initx.initializers._head_rows import HeadRows, has_two_classes

__all__ = ["MOST_FEATURES", "Ridge", "add_up"]

# The decomposition of a matrix of this size takes minutes, and four times as long for twice the size.
MOST_FEATURES = 16_384
# Directions of less variance than this share of the largest are rounding of float32 features.
_NONE = 1e-12
# Variance of the rounding of float32, relative to the squared mean.
_ROUNDING = 1e-14
# Sums of weights of at most this share of all are rounding.
_NO_WEIGHT = 1e-9


def add_up(rows: HeadRows, origin: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the sums that ridge regression needs: they add up over parts of the rows.

    Args:
        rows: The rows.
        origin: The point to count features from. Near the mean, no digits cancel.

    Returns:
        The sum of the weights, the sum of the features, their second moments, their products with the
        targets, and the sum of the targets.
    """
    weights, features = rows.weights.reshape(-1, 1).astype("float64"), rows.flat - origin
    weighted = weights * features
    ones = np.ones_like(weights)
    return (
        weights.sum(),
        weighted.sum(axis=0),
        features.T @ weighted,
        rows.cross(features),
        rows.cross(ones)[:, 0],
    )


class Ridge:
    """The ridge regression of targets on features, for every penalty.

    With f the features and y the targets, both centred, w the weights and V, v the directions and variances
    of the features: kernel = V (v + penalty)^-1 V^T f^T w y.

    Args:
        rows: The rows.
        bias: Whether the head has a bias, which takes the means. Without one, features are not centred, and
            targets of classes are centred at 1 / classes, those of zeros and ones at 1/2.
    """

    def __init__(self, rows: HeadRows, bias: bool) -> None:
        self.rows, self.bias = rows, bias
        fan_in, weights = rows.features.shape[-1], rows.weights.reshape(-1, 1).astype("float64")
        few = rows.sums is None and weights.size < fan_in
        if rows.sums is not None and rows.origin is not None:
            origin, sums = rows.origin, rows.sums
        else:
            origin = (weights * rows.flat).sum(axis=0) / weights.sum() if bias else np.zeros(fan_in)
            sums = () if few else add_up(rows, origin)
        self.mean, self.total = origin, float(weights.sum())
        self.counts = rows.cross(np.ones_like(weights))[:, 0]
        if sums:
            total, shift, gram, cross, counts = sums
            self.total, self.counts = float(total), counts
            step = shift / total if bias else np.zeros(fan_in)
            self.mean = origin + step
            self.middle = self._middle()
            variances, directions = np.linalg.eigh(gram - total * np.outer(step, step))
            products = cross - np.outer(self.middle, shift)
        else:
            self.middle = self._middle()
            # With fewer rows than features, the small matrix is that of the products of the rows.
            roots = np.sqrt(weights)
            weighted = roots * (rows.flat - self.mean)
            variances, left = np.linalg.eigh(weighted @ weighted.T)
            directions = weighted.T @ left / np.sqrt(np.maximum(variances, 1e-300))
            products = rows.cross(rows.flat - self.mean)
            if not bias:
                products = products - np.outer(self.middle, (weights * rows.flat).sum(axis=0))
        rounding = _ROUNDING * self.total * float((self.mean**2).sum())
        kept = variances > max(_NONE * variances[-1], rounding, 1e-300)
        self.variances, self.directions = variances[kept], directions[:, kept]
        self.products = self.directions.T @ products.T

    def _middle(self) -> np.ndarray:
        """The targets that features at their mean get."""
        if self.bias:
            return np.asarray(self.counts / self.total)
        middle = {"binary": 0.5, "categorical": 1 / self.rows.units}.get(self.rows.form, 0.0)
        return np.full(self.rows.units, middle)

    def kernel(self, penalty: float) -> np.ndarray:
        """Returns the kernel, float64 of shape (fan_in, units)."""
        return np.asarray(self.directions @ (self.products / (self.variances + penalty)[:, None]))

    def penalties(self) -> np.ndarray:
        """Returns penalties to choose from: the largest variance times 10^-7 to 10, in half decades."""
        largest = self.variances[-1] if len(self.variances) else 1.0
        return np.asarray(largest * 10.0 ** np.arange(1, -7.5, -0.5))


class HeldOut:
    """Rows of a ridge regression; each example is left out in turn, in closed form.

    With Z the centred features of one example along the directions, H = Z (v + penalty)^-1 Z^T + 1 / total
    and e the errors of the regression on all rows, its errors without the example are (1 - H w)^-1 e.

    An example that is the only one of its class is not held out: its class could not be answered. Each
    sigmoid unit has two classes, its ones and its zeros.

    Args:
        ridge: The regression.
        rows: Some of its rows.
    """

    def __init__(self, ridge: Ridge, rows: HeadRows) -> None:
        self.ridge, self.targets = ridge, rows.dense
        self.weights = rows.weights.astype("float64")
        shape = (*rows.features.shape[:2], -1)
        self.along = ((rows.flat - ridge.mean) @ ridge.directions).reshape(shape)
        own = (self.weights[..., None] * self.targets).sum(axis=1, keepdims=True)
        rest = ridge.total - self.weights.sum(axis=1)[:, None, None]
        alone = rest <= _NO_WEIGHT * ridge.total
        self.middle = np.broadcast_to(ridge.middle, own.shape)
        if ridge.bias:
            self.middle = (ridge.counts - own) / np.where(alone, 1.0, rest)
        held = np.broadcast_to(~alone, (*self.weights.shape, 1))
        if rows.form == "categorical":
            others = np.take_along_axis(ridge.counts - own, rows.classes[:, :, None], axis=-1)
            held = held & (others > _NO_WEIGHT * ridge.total)
        elif rows.form == "binary":
            others = np.where(self.targets > 0.5, ridge.counts - own, rest - (ridge.counts - own))
            held = held & (others > _NO_WEIGHT * ridge.total)
        classes = self.targets > 0.5 if rows.form == "binary" else rows.classes[:, :, None]
        self.weights_held = self.weights[..., None] * held
        if rows.form != "numeric":
            self.weights_held = self.weights_held * has_two_classes(self.weights_held, classes)

    def errors(self, penalty: float) -> np.ndarray:
        """Returns the targets less the answers of the regression without the example, at a penalty."""
        shrunk = self.along / (self.ridge.variances + penalty)
        errors = self.targets - self.ridge.middle - shrunk @ self.ridge.products
        hat = shrunk @ self.along.swapaxes(1, 2) + (1 / self.ridge.total if self.ridge.bias else 0.0)
        system = np.eye(hat.shape[1]) - hat * self.weights[:, None, :]
        system[self.weights_held.sum(axis=(1, 2)) == 0] = np.eye(hat.shape[1])
        # Most heads have one position, where a division is faster than a solver for each example.
        return errors / system if len(system[0]) == 1 else np.linalg.solve(system, errors)

    def best(self) -> float:
        """Returns the penalty of the least squared error on rows that are left out.

        Without such rows, the largest variance.
        """
        penalties = self.ridge.penalties()
        if not self.weights_held.any():
            return float(penalties[2])
        costs = [float((self.weights_held * self.errors(one) ** 2).sum()) for one in penalties]
        return float(penalties[int(np.argmin(costs))])

    def scores(self, penalty: float) -> np.ndarray:
        """Returns the answers of the regression without the example, less the mean of its targets."""
        return self.targets - self.errors(penalty) - self.middle
