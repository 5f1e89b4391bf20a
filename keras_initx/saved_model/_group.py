"""Rows of one shape, run alone and next to each other: the experiment that `_row_wise` explains."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from _initx_saved_model import Proof
from keras_initx.saved_model._differences import apart, scale_of
from keras_initx.saved_model._endpoints import sentence
from keras_initx.saved_model._rows import Row, batches_of_rows

# The outputs of a signature, by name.
Answer: TypeAlias = dict[str, np.ndarray]
# Runs batches of rows, one after another. Returns for each the answer, or the error as a string, and the
# seconds that it took.
Run: TypeAlias = Callable[[Sequence[Sequence[Row]]], list[tuple[Any, float]]]

# Limits of the large batches, so that an export stays a matter of seconds.
_SECONDS = 2.0  # for one batch
_ENTRIES = 2**25  # of an input
_LARGE = (33, 128)  # rows
# Kernels for other sizes round in another way: oneDNN's convolutions differ by 1e-5. The size alone may
# change an answer as much as such a change of the inputs does, and by 1 % at most.
_ROUNDING = 1e-5
_OF_SIZE = 1e-2
# Two answers are told apart if they differ by this many times the largest difference that was found.
_MARGIN = 10


class NotProvenError(Exception):
    """The reason why a signature is not proven, in words that follow the signature's name."""


class Group:
    """Rows of one shape with their answers alone. A row that fails alone is left out.

    Args:
        run: Runs batches of rows.
        rows: The rows to try.
    """

    def __init__(self, run: Run, rows: Sequence[Row]) -> None:
        self._run = run
        found = [(row, *answered) for row, answered in zip(rows, run([[row] for row in rows]), strict=True)]
        self.error = next((answer for _, answer, _ in found if isinstance(answer, str)), "")
        self._alone = {row: answer for row, answer, _ in found if not isinstance(answer, str)}
        self.ordinary = [row for row in self._alone if row.ordinary]
        self._seconds = float(np.median([seconds for _, _, seconds in found]))

    def prove(self, tolerance: Callable[[np.dtype], float], large: bool) -> Proof:
        """Returns the proof.

        Args:
            tolerance: A function from the dtype of an output to the largest change that neighbours may make,
                as a part of the output's largest entry.
            large: Whether to try the large batches too.

        Raises:
            NotProvenError: If rows meet, or if the rows that were tried do not tell.
        """
        first = self._alone[self.ordinary[0]]
        limits = {name: tolerance(value.dtype) for name, value in first.items()}
        scales = {name: scale_of(*(self._alone[row][name] for row in self.ordinary)) for name in first}
        self._check_alone(limits, scales)
        sizes = [size for size in _LARGE if large and self._affords(size)]
        batches = list(batches_of_rows(list(self._alone), sizes))
        worst = dict.fromkeys(first, 0.0)
        noisy = []  # batches that differ by more than the tolerance, from whichever cause
        for batch, (answer, _) in zip(batches, self._run(batches), strict=True):
            if isinstance(answer, str):
                raise NotProvenError(f"rows that it answers alone raise together {sentence(answer)}")
            far = {name: self._difference(batch, name, answer[name], scales[name]) for name in worst}
            worst = {name: max(worst[name], far[name]) for name in worst}
            if any(far[name] > limits[name] for name in far):
                noisy.append((batch, answer))
        leaks, of_size = self._causes(noisy, scales) if noisy else (worst, {})
        allowed = {name: max(limits[name], min(of_size.get(name, 0.0), _OF_SIZE)) for name in worst}
        for name, difference in worst.items():
            if leaks[name] > limits[name] or difference > allowed[name]:
                how = (
                    f"differs by {difference:.3g} of its largest entry" if difference < np.inf else "changes"
                )
                raise NotProvenError(f"its output `{name}` of a row {how} when other rows stand beside it")
            # If all rows had one answer, it would not show that a batch had mixed them up.
            if not _MARGIN * difference < self._spread(name, scales[name]):
                raise NotProvenError(
                    f"its output `{name}` hardly depends on the rows that were tried: pass typical rows as "
                    "`warmup`"
                )
        return Proof(tuple(sorted({1, *map(len, batches)})), max(worst.values()), max(allowed.values()))

    def _causes(
        self, noisy: Sequence[tuple[Sequence[Row], Answer]], scales: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Measures the effect of the neighbours and the effect of a rounding error of the inputs.

        Args:
            noisy: The batches that differ from the answers alone by more than the tolerance.
            scales: The scale of each output.

        Returns:
            The two effects, each by the name of the output.
        """
        # One batch serves all places of a row, because it holds the row at every place.
        own = self._among_own({(row, len(batch)) for batch, _ in noisy for row in batch if row.ordinary})
        leaks = {
            name: max(self._leak(batch, answer, name, own, scale) for batch, answer in noisy)
            for name, scale in scales.items()
        }
        rng = np.random.default_rng(3)
        rounded = [Row([_rounded(rng, leaf) for leaf in row.leaves], ordinary=True) for row in self.ordinary]
        answers = [
            (self._alone[row], answer)
            for row, (answer, _) in zip(self.ordinary, self._run([[row] for row in rounded]), strict=True)
            if not isinstance(answer, str)
        ]
        responses = {
            name: max((apart(want[name], got[name], scale) for want, got in answers), default=0.0)
            for name, scale in scales.items()
        }
        return leaks, responses

    def _among_own(self, wanted: Collection[tuple[Row, int]]) -> dict[tuple[Row, int], Answer]:
        """Runs batches that repeat one row; returns their answers by row and size, without errors."""
        keys = list(wanted)
        answers = self._run([[row] * size for row, size in keys])
        return {
            key: answer for key, (answer, _) in zip(keys, answers, strict=True) if not isinstance(answer, str)
        }

    def _leak(
        self,
        batch: Sequence[Row],
        answer: Answer,
        name: str,
        among_own: Mapping[tuple[Row, int], Answer],
        scale: float,
    ) -> float:
        """Returns the largest change of the answer to a row by the other rows of its batch.

        The change is measured from the batch of the same size that repeats the row, at the same place: a
        kernel may treat the last rows of a batch, behind the last full vector, in another way.
        """
        worst = 0.0
        for place, row in enumerate(batch):
            if row.ordinary:
                own = among_own.get((row, len(batch)))
                if own is None or own[name].shape[:1] != (len(batch),):
                    return np.inf
                worst = max(worst, apart(own[name][place], answer[name][place], scale))
        return worst

    def _spread(self, name: str, scale: float) -> float:
        """Returns the largest difference between the answer to one row alone and to other rows alone."""
        first, *others = [answer[name] for answer in self._alone.values()]
        # An answer of NaN differs from every number, and so would tell the rows of any output apart.
        finite = [one for one in others if one.dtype.kind not in "fc" or np.isfinite(one).all()]
        return max((apart(first, one, scale) for one in finite), default=0.0)

    def _check_alone(self, limits: dict[str, float], scales: dict[str, float]) -> None:
        """Raises if answers of rows alone have no row axis, or change from one run to the next."""
        (again, _), *_ = self._run([[self.ordinary[0]]])
        for name, limit in limits.items():
            values = [answer[name] for answer in self._alone.values()]
            if any(value.shape[:1] != (1,) for value in values):
                raise NotProvenError(f"its output `{name}` does not have one row for each row of input")
            if isinstance(again, str) or apart(values[0], again[name], scales[name]) > limit:
                raise NotProvenError(
                    "it answers the same row differently the second time: it keeps a state or draws at random"
                )

    def _affords(self, size: int) -> bool:
        """Tells whether a batch of this size takes little enough time and memory."""
        entries = max(leaf.size for leaf in self.ordinary[0].leaves)
        return size * self._seconds <= _SECONDS and size * entries <= _ENTRIES

    def _difference(self, batch: Sequence[Row], name: str, value: np.ndarray, scale: float) -> float:
        """Returns the largest difference between the answers in a batch and the answers alone."""
        if value.shape[:1] != (len(batch),):
            raise NotProvenError(f"its output `{name}` does not have one row for each row of input")
        worst = 0.0
        for row, got in zip(batch, value, strict=True):
            want = self._alone[row][name][0]
            if np.shape(got) != np.shape(want):
                raise NotProvenError(f"the shape of its output `{name}` depends on the rows beside it")
            worst = max(worst, apart(want, got, scale) if row.ordinary else 0.0)
        return worst


def _rounded(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """Changes each float by 1e-5 of its size, up or down; integers stay as they are."""
    if leaf.dtype.kind != "f":
        return leaf
    return (leaf * (1 + _ROUNDING * rng.choice([-1, 1], leaf.shape))).astype(leaf.dtype)
