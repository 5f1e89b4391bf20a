"""The rows that a law of heads is shown: the features that reach a head, with targets and weights."""

import dataclasses

import numpy as np

from keras_initx.initializers._labels import check_numbers

__all__ = ["HeadRows", "has_two_classes", "read_targets", "read_weights"]


@dataclasses.dataclass(frozen=True)
class HeadRows:
    """The rows of a head, in blocks of one example each.

    The rows of an example, such as the positions of a sequence, are alike. So an example is held out as a
    whole.

    Attributes:
        features: The values that the kernel multiplies, of shape (examples, positions, fan_in).
        targets: Numbers of classes, int of shape (examples, positions); or floats of shape (examples,
            positions, units).
        weights: Sample weights, of mean 1 without those that are 0, of shape (examples, positions).
        units: Units of the head.
        form: Form of the targets: `"binary"`, `"categorical"` or `"numeric"`.
        origin: The point that `sums` count features from, of shape (fan_in,); None without sums.
        sums: The sums of the law's `add_up` over all rows, if these are a sample of more rows; else None.
        given: The number of rows of each class, drawn or not; None if that is not known.
    """

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    units: int
    form: str
    origin: np.ndarray | None = None
    sums: tuple[np.ndarray, ...] | None = None
    given: np.ndarray | None = None

    @property
    def flat(self) -> np.ndarray:
        """The features as float64 of shape (rows, fan_in)."""
        return self.features.reshape(-1, self.features.shape[-1]).astype("float64")

    @property
    def classes(self) -> np.ndarray:
        """The number of the class of each row, int of shape (examples, positions)."""
        return self.targets if self.targets.ndim == 2 else self.targets.argmax(-1)

    @property
    def dense(self) -> np.ndarray:
        """The targets as float64 of shape (examples, positions, units), class numbers as one-hot rows."""
        if self.targets.ndim == 3:
            return self.targets.astype("float64")
        return (self.targets[..., None] == np.arange(self.units)).astype("float64")

    def cross(self, values: np.ndarray) -> np.ndarray:
        """Returns the weighted sum of the products of targets and values.

        Args:
            values: One row of numbers for each row, of shape (rows, columns).

        Returns:
            float64 of shape (units, columns).
        """
        weights = self.weights.ravel().astype("float64")
        if self.targets.ndim == 3:
            return np.asarray((self.dense.reshape(-1, self.units) * weights[:, None]).T @ values)
        import scipy.sparse

        places = self.targets.ravel(), np.arange(weights.size)
        table = scipy.sparse.csr_matrix((weights, places), (self.units, weights.size))
        return np.asarray(table @ values)

    def spread(self, most: int) -> "HeadRows":
        """Returns at most this many examples, evenly spaced."""
        if len(self.features) <= most:
            return self
        chosen = np.linspace(0, len(self.features) - 1, most).astype(int)
        parts = (self.features[chosen], self.targets[chosen], self.weights[chosen])
        return dataclasses.replace(self, features=parts[0], targets=parts[1], weights=parts[2])


def has_two_classes(weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns for each column whether rows with a weight have two classes: one class alone tells nothing.

    Args:
        weights: Weights of rows, of shape (examples, positions, columns).
        classes: The classes of the same rows.

    Returns:
        bool of shape (columns,).
    """
    held = weights > 0
    if not held.size:
        return np.zeros(weights.shape[-1], bool)
    low = np.where(held, classes, np.iinfo(int).max).min(axis=(0, 1))
    high = np.where(held, classes, -1).max(axis=(0, 1))
    return np.asarray(low < high)


def read_targets(targets: np.ndarray, examples: int, positions: int, units: int, form: str) -> np.ndarray:
    """Returns targets as `HeadRows` holds them.

    Args:
        targets: The targets of some examples, as a user gave them.
        examples: Number of examples.
        positions: Number of positions in each.
        units: Units of the head.
        form: Form of the targets.

    Raises:
        ValueError: If the targets do not fit the form and the head.
    """
    targets, shape = np.asarray(targets), (examples, positions)
    check_numbers(targets)
    wide = targets.shape[-1:] == (units,) and targets.size == examples * positions * units
    if form == "categorical" and not (wide and targets.ndim > 1 and units > 1):
        if targets.size != examples * positions:
            raise _misfit(targets, f"hold a class for each of {shape[0]} x {shape[1]} outputs", form)
        numbers = targets.reshape(shape).astype("int64")
        if (numbers != targets.reshape(shape)).any() or numbers.min() < 0 or numbers.max() >= units:
            raise _misfit(targets, f"be whole numbers from 0 to {units - 1}, or rows of {units}", form)
        return numbers
    if targets.size != examples * positions * units:
        raise _misfit(targets, f"hold {units} numbers for each of {shape[0]} x {shape[1]} outputs", form)
    rows = targets.reshape(*shape, units).astype("float32" if form != "numeric" else "float64")
    if form == "binary" and not ((rows >= 0) & (rows <= 1)).all():
        raise _misfit(targets, "be zeros and ones", form)
    if form == "categorical":
        if (rows < 0).any() or not np.allclose(rows.sum(-1), 1, atol=1e-3):
            raise _misfit(targets, "be rows that are at least 0 and sum to 1", form)
        # Class numbers need less memory than rows. Soft rows, as of smoothed labels, stay rows.
        return rows.argmax(-1) if ((rows == 0) | (rows == 1)).all() else rows
    return rows


def read_weights(weights: np.ndarray | None, examples: int, positions: int) -> np.ndarray:
    """Returns sample weights as an array (examples, positions).

    Args:
        weights: One number for each example, or for each position; None for ones.
        examples: Number of examples.
        positions: Number of positions in each.

    Raises:
        ValueError: If they have another number, or one is negative.
    """
    if weights is None:
        return np.ones((examples, positions))
    found = np.asarray(weights, "float64")
    if found.size not in (examples, examples * positions) or not (found >= 0).all():
        raise ValueError(
            "`sample_weight` must hold a number of at least 0 for each row of the targets, or for each "
            f"position in a row. Received: sample weights of shape {found.shape}, at least "
            f"{found.min(initial=0):g}, for {examples} rows of {positions} positions."
        )
    return np.broadcast_to(found.reshape(examples, -1), (examples, positions))


def _misfit(targets: np.ndarray, rule: str, form: str) -> ValueError:
    low, high = (targets.min(), targets.max()) if targets.size else ("-", "-")
    return ValueError(
        f"`targets` must {rule} for form={form!r}. Received: targets of shape {targets.shape}, dtype "
        f"{targets.dtype}, from {low} to {high}. Set `form` of the law if they are of another kind."
    )
