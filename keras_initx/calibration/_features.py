"""Collects the rows of a head over the batches of a pass, in bounded memory.

Up to 20,000 rows are kept. With more, a law's sums take all rows in, and a random sample of them stays, to be
held out. Ridge regression needs no more than that: its solution from the sums is exact.
"""

import numpy as np

from keras_initx.initializers import HeadLaw, HeadRows, read_targets, read_weights

__all__ = ["Features"]

_ROWS = 20_000
_NUMBERS = 2**27  # of features and targets that are kept: half a gigabyte
# Neighboring positions of an example are alike. Each example is held out in closed form, which costs the cube
# of its positions.
_POSITIONS = 64


class Features:
    """The features, targets and weights of one head.

    Args:
        law: The law that adds up rows.
        form: Form of the targets.
        units: Units of the head.
        bias: Whether it has a bias, so that features are counted from near their mean.
    """

    def __init__(self, law: HeadLaw, form: str, units: int, bias: bool) -> None:
        self.law, self.form, self.units, self.bias = law, form, units, bias
        self.fresh: list[HeadRows] = []  # not yet in the sums
        self.kept: list[HeadRows] = []  # the sample, once there are sums
        self.keys = np.empty(0)
        self.origin: np.ndarray | None = None
        self.sums: tuple[np.ndarray, ...] | None = None
        self.rows, self.weight = 0, 0.0  # of weights that are not 0
        self.given = np.zeros(units)
        self._random = np.random.default_rng(0)

    def add(self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> None:
        """Adds the rows of a batch.

        Args:
            features: The values that the kernel multiplies, of shape (examples, positions, fan_in).
            targets: The targets of these examples, as a user gave them.
            weights: Their sample weights, or None.
        """
        examples, positions, _ = features.shape
        own = read_targets(targets, examples, positions, self.units, self.form)
        shares = read_weights(weights, examples, positions)
        self._count(own, shares > 0)
        if positions > _POSITIONS:
            # Positions of weight 0 come last in the order in which positions are drawn.
            order = np.argsort(self._random.uniform(size=shares.shape) + (shares <= 0), axis=1)
            places = np.arange(examples)[:, None], np.sort(order[:, :_POSITIONS])
            features, own, shares = features[places], own[places], shares[places]
        used = (shares > 0).any(axis=1)
        if not used.any():
            return
        features, own, shares = features[used], own[used], shares[used]
        self.fresh.append(HeadRows(features, own, shares, self.units, self.form))
        self.rows, self.weight = self.rows + int((shares > 0).sum()), self.weight + float(shares.sum())
        most = max(1, min(_ROWS, _NUMBERS // (features.shape[-1] + own[0, 0].size)) // features.shape[1])
        if sum(len(part.features) for part in self.fresh) > most:
            self._fold(most)

    def _count(self, targets: np.ndarray, used: np.ndarray) -> None:
        """Counts the rows of each class, whether they are drawn or not."""
        if self.form == "categorical" and targets.ndim == 2:
            self.given += np.bincount(targets[used], minlength=self.units)
        elif self.form == "categorical":
            self.given += targets[used].sum(axis=0)

    def _fold(self, most: int) -> None:
        """Adds the fresh rows to the sums, and keeps a random sample of all rows."""
        new = _joined(self.fresh)
        if self.origin is None:
            flat, weights = new.flat, new.weights.ravel()
            self.origin = weights @ flat / weights.sum() if self.bias else np.zeros(flat.shape[1])
        sums = self.law.add_up(new, self.origin)
        self.sums = sums if self.sums is None else tuple(a + b for a, b in zip(self.sums, sums, strict=True))
        every = _joined([*self.kept, new])
        self.keys = np.concatenate([self.keys, self._random.uniform(size=len(new.features))])
        sample = np.sort(np.argsort(self.keys)[:most])
        self.kept, self.fresh, self.keys = [_picked(every, sample)], [], self.keys[sample]

    def collected(self) -> HeadRows:
        """Returns the rows for `solve`, with weights of mean 1 without those that are 0.

        Raises:
            ValueError: If all weights are zero.
        """
        if not self.weight > 0:
            raise ValueError("`sample_weight` must be positive somewhere. Received: zeros alone.")
        if self.sums is not None and self.fresh:
            self._fold(len(self.kept[0].features))
        mean = self.weight / self.rows
        joined = _joined(self.kept or self.fresh)
        sums = None if self.sums is None else tuple(part / mean for part in self.sums)
        given = self.given if self.form == "categorical" else None
        return HeadRows(
            *(joined.features, joined.targets, joined.weights / mean, self.units, self.form),
            *(self.origin, sums, given),
        )


def _joined(parts: list[HeadRows]) -> HeadRows:
    if len({part.targets.ndim for part in parts}) > 1:  # rows of probabilities, and one-hot rows among them
        parts = [HeadRows(p.features, p.dense, p.weights, p.units, p.form) for p in parts]
    features, targets, weights = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "targets", "weights")
    )
    return HeadRows(features, targets, weights, parts[0].units, parts[0].form)


def _picked(rows: HeadRows, chosen: np.ndarray) -> HeadRows:
    return HeadRows(rows.features[chosen], rows.targets[chosen], rows.weights[chosen], rows.units, rows.form)
