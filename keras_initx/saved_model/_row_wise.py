"""Whether a signature answers each row as it answers the row alone, whatever rows stand beside it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from _initx_saved_model import Proof
from keras_initx.saved_model._differences import apart, scale_of
from keras_initx.saved_model._endpoints import sentence
from keras_initx.saved_model._rows import Hints, Row, groups_of_rows

Answer = dict[str, np.ndarray]
Ask = Callable[[Sequence[tuple[str, dict[str, Any]]]], Sequence[tuple[Any, float]]]

_LONGEST = 1.0  # seconds for a row alone: a proof runs about a hundred batches
_SECONDS = 2.0  # for the larger batches of a signature, each
_ENTRIES = 2**25  # that an input of theirs may have
_LARGE = (33, 128)
# TensorFlow chooses kernels by the size of a batch, which round differently, oneDNN's convolutions by 1e-5.
# A size alone may change an answer as much as the same change of the inputs does, and by 1 % at most.
_ROUNDING = 1e-5
_OF_SIZE = 1e-2
_MARGIN = 10  # times the difference found: by how much answers must differ to be told apart


class _NotProvenError(Exception):
    """Why a signature is not proven, in words that follow its name."""


def prove(
    ask: Ask,
    signature: str,
    specs: Sequence[Any],
    rows: Sequence[np.ndarray],
    hints: Hints,
    tolerance: Callable[[np.dtype], float],
) -> Proof | str:
    """Tries a signature on rows alone and next to others; returns the proof, or why there is none.

    The others are rows of the same kind, and zeros, large and huge numbers, NaN and infinity, the ends of a
    vocabulary; before and behind, in batches of several sizes, and along open axes at several lengths.

    Args:
        ask: Runs requests one after another, as `_process.Ask` does.
        signature: Its name.
        specs: Its inputs, as named `tf.TensorSpec`s.
        rows: Rows that it takes.
        hints: As `hints_of` returns them.
        tolerance: By how much other rows may change an output of a dtype, as a part of its largest entry.
    """
    if any(spec.dtype.name == "string" for spec in specs):
        return "it takes strings"
    if any(spec.shape.rank is None or spec.shape.rank == 0 or spec.shape[0] is not None for spec in specs):
        return "its inputs do not have a free number of rows"
    names = [spec.name for spec in specs]

    def run(batches: Sequence[Sequence[Row]]) -> list[tuple[Any, float]]:
        feeds = [
            [np.concatenate(leaves) for leaves in zip(*(row.leaves for row in batch), strict=True)]
            for batch in batches
        ]
        return list(ask([(signature, dict(zip(names, leaves, strict=True))) for leaves in feeds]))

    tried = groups_of_rows(specs, rows, hints)
    *_, (_, seconds) = run([[tried[0][0]]] * 2)  # the first run of a program takes longer
    if seconds > _LONGEST:
        return (
            f"a row takes {seconds:.1f} s, too long to try it beside others: ask for batches by "
            "batching_params.pbtxt if its rows never meet"
        )
    try:
        groups = [_Group(run, group) for group in tried]
        answering = [group for group in groups if group.ordinary]
        if not answering:
            raise _NotProvenError(f"a row alone raised {sentence(groups[0].error)}")
        proofs = [group.prove(tolerance, number == 0) for number, group in enumerate(answering)]
    except _NotProvenError as error:
        return str(error)
    return Proof(
        tuple(sorted({size for proof in proofs for size in proof.batch_sizes})),
        max(proof.max_difference for proof in proofs),
        max(proof.tolerance for proof in proofs),
    )


class _Group:
    """Rows of one shape with their answers alone; those that fail alone are left out."""

    def __init__(self, run: Callable[..., list[tuple[Any, float]]], rows: Sequence[Row]) -> None:
        self._run = run
        found = [(row, *answered) for row, answered in zip(rows, run([[row] for row in rows]), strict=True)]
        self.error = next((answer for _, answer, _ in found if isinstance(answer, str)), "")
        self._alone = {row: answer for row, answer, _ in found if not isinstance(answer, str)}
        self.ordinary = [row for row in self._alone if row.ordinary]
        self._seconds = float(np.median([seconds for _, _, seconds in found]))

    def prove(self, tolerance: Callable[[np.dtype], float], large: bool) -> Proof:
        """Returns the proof, or raises why there is none."""
        first = self._alone[self.ordinary[0]]
        limits = {name: tolerance(value.dtype) for name, value in first.items()}
        scales = {name: scale_of(*(self._alone[row][name] for row in self.ordinary)) for name in first}
        self._check_alone(limits, scales)
        batches = list(self._batches(large))
        worst = dict.fromkeys(first, 0.0)
        noisy = []
        for batch, (answer, _) in zip(batches, self._run(batches), strict=True):
            if isinstance(answer, str):
                raise _NotProvenError(f"rows that it answers alone raise together {sentence(answer)}")
            far = {name: self._difference(batch, name, answer[name], scales[name]) for name in worst}
            worst = {name: max(worst[name], far[name]) for name in worst}
            if any(far[name] > limits[name] for name in far):
                noisy.append((batch, answer))
        leaks, of_size = self._causes(noisy, scales) if noisy else (worst, {})
        allowed = {name: max(limits[name], min(of_size.get(name, 0.0), _OF_SIZE)) for name in worst}
        for name, difference in worst.items():
            if leaks[name] > limits[name] or difference > allowed[name]:
                how = (
                    f"differs by {difference:.3g} of its largest entry"
                    if difference < np.inf
                    else "is another"
                )
                raise _NotProvenError(f"its output `{name}` of a row {how} when other rows are beside")
            # Rows of one answer would not show that they had been mixed up.
            if not _MARGIN * difference < self._spread(name, scales[name]):
                raise _NotProvenError(
                    f"its output `{name}` hardly depends on the rows that were tried: pass typical rows as "
                    "`warmup`"
                )
        return Proof(tuple(sorted({1, *map(len, batches)})), max(worst.values()), max(allowed.values()))

    def _causes(
        self, noisy: Sequence[tuple[Sequence[Row], Answer]], scales: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """For each output what the other rows of batches change, and what rounding the inputs changes."""
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
        """Answers of batches that repeat one row, by the row and the size; without those that raise."""
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
        """What the other rows of a batch change in its answer, beyond what its size alone does."""
        worst = 0.0
        for place, row in enumerate(batch):
            if row.ordinary:
                own = among_own.get((row, len(batch)))
                if own is None or own[name].shape[:1] != (len(batch),):
                    return np.inf
                worst = max(worst, apart(own[name][place], answer[name][place], scale))
        return worst

    def _spread(self, name: str, scale: float) -> float:
        first, *others = [answer[name] for answer in self._alone.values()]
        finite = [one for one in others if one.dtype.kind not in "fc" or np.isfinite(one).all()]
        return max((apart(first, one, scale) for one in finite), default=0.0)

    def _check_alone(self, limits: dict[str, float], scales: dict[str, float]) -> None:
        (again, _), *_ = self._run([[self.ordinary[0]]])
        for name, limit in limits.items():
            values = [answer[name] for answer in self._alone.values()]
            if any(value.shape[:1] != (1,) for value in values):
                raise _NotProvenError(f"its output `{name}` does not have one row for each row of input")
            if isinstance(again, str) or apart(values[0], again[name], scales[name]) > limit:
                raise _NotProvenError(
                    "it answers the same row otherwise a second time: it keeps a state or draws at random"
                )

    def _batches(self, large: bool) -> Iterator[list[Row]]:
        rng = np.random.default_rng(2)
        rows = list(self._alone)
        one, two = self.ordinary[0], self.ordinary[-1]
        for row in rows:
            yield [one, row]
            yield [row, one]
        # Equal rows compete for the same place: a router with a capacity sends them to one expert.
        for row in (one, two):
            yield [row] * 8
        others = [row for row in rows if not row.ordinary] or rows
        for row in others:
            yield [row, two, one]
        for size in (8, *(size for size in _LARGE if large and self._affords(size))):
            more = rng.integers(0, len(rows), max(0, size - len(self.ordinary)))
            mixed = [*self.ordinary, *(others if size == 8 else [rows[n] for n in more])]
            for _ in range(2 if size == 8 else 1):
                yield [mixed[n] for n in np.resize(rng.permutation(len(mixed)), size)]
            if size > 8:
                yield [one] * size

    def _affords(self, size: int) -> bool:
        entries = max(leaf.size for leaf in self.ordinary[0].leaves)
        return size * self._seconds <= _SECONDS and size * entries <= _ENTRIES

    def _difference(self, batch: Sequence[Row], name: str, value: np.ndarray, scale: float) -> float:
        if value.shape[:1] != (len(batch),):
            raise _NotProvenError(f"its output `{name}` does not have one row for each row of input")
        worst = 0.0
        for row, got in zip(batch, value, strict=True):
            want = self._alone[row][name][0]
            if np.shape(got) != np.shape(want):
                raise _NotProvenError(f"the shape of its output `{name}` depends on the rows beside")
            worst = max(worst, apart(want, got, scale) if row.ordinary else 0.0)
        return worst


def _rounded(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """Floats with a relative change of the size of rounding errors."""
    if leaf.dtype.kind != "f":
        return leaf
    return (leaf * (1 + _ROUNDING * rng.choice([-1, 1], leaf.shape))).astype(leaf.dtype)
