"""The proof that a signature is row-wise: that the answer to a row does not depend on the rows beside it.

Idea: a server is faster if it runs the rows of several requests as one batch. It may do so only if no row
changes the answer to another row. The graph does not tell this, because most operations can mix rows and few
of them do. So the proof is an experiment: it runs the same rows alone and next to others, and compares the
answers. Like every experiment, it finds only a dependence that shows in the rows that were tried.

Method: the answer to a row alone is the reference. Then the row runs in batches, before and behind its
neighbours: other ordinary rows, copies of itself, and extreme rows (zeros, 1e4, 1e30, NaN, infinity), which
show in every answer that they reach. Only the answers to ordinary rows are compared. Two checks keep the
experiment honest. A row that runs alone twice must get the same answer; otherwise the signature keeps a state
or draws at random. And different rows must get different answers; otherwise it would not show that a batch
mixes them up.

Size and CPU: the answer to a row can change although no rows meet. TensorFlow chooses the kernel of an
operation by the shape of the batch and by the instructions that the CPU has, such as AVX2 or AVX-512. Each
kernel adds in another order and so rounds in another way, and a steep model turns this into a larger
difference. One tolerance for all differences would fail: a wide one hides leaks, a narrow one refuses models
that only round. So a third run separates the two causes. It has the same size, and repeats the row:

    alone   [a]        kernels for 1 row
    mixed   [b a n]    kernels for 3 rows, with the neighbours b and n
    own     [a a a]    kernels for 3 rows, without other rows

    mixed - own      the effect of the neighbours. Limit: the tolerance of the dtype.
    mixed - alone    the effect of the neighbours and of the size. Limit: the tolerance of the dtype, or the
                     response of the model to a rounding error of its inputs (1e-5 of each entry) if this is
                     larger, but at most 1 % of the output's largest entry.

A server with another CPU has other kernels. Its answers can differ by other rounding errors than the proof
has measured. But that rows do not meet is a property of the program, which holds there too.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from _initx_saved_model import Proof
from keras_initx.saved_model._endpoints import sentence
from keras_initx.saved_model._group import Group, NotProvenError
from keras_initx.saved_model._rows import Hints, Row, groups_of_rows

if TYPE_CHECKING:
    import tensorflow as tf

# Runs requests (the name of a signature, and its inputs by name) one after another. Returns for each the
# answer, or the error as a string, and the seconds that it took.
Ask: TypeAlias = Callable[[Sequence[tuple[str, dict[str, Any]]]], Sequence[tuple[Any, float]]]

_LONGEST = 1.0  # seconds for a row alone: a proof runs about a hundred batches


def prove(
    ask: Ask,
    signature: str,
    specs: Sequence["tf.TensorSpec"],
    rows: Sequence[np.ndarray],
    hints: Hints,
    tolerance: Callable[[np.dtype], float],
) -> Proof | str:
    """Runs a signature on rows alone and next to others, and returns the proof, or why there is none.

    The neighbours are rows of the same kind, zeros, large and huge numbers, NaN and infinity, and the ends of
    a vocabulary. They stand before and behind the row, in batches of several sizes. Inputs with open axes are
    tried at several lengths.

    Args:
        ask: Runs requests one after another, as `_process.Ask` does.
        signature: The name of the signature.
        specs: The inputs of the signature, as named `tf.TensorSpec`s.
        rows: Rows that the signature takes.
        hints: The hints, from `hints_of`.
        tolerance: A function from the dtype of an output to the largest change that neighbours may make, as a
            part of the output's largest entry.
    """
    # A string may be of any length and meaning, so no drawn strings stand for the strings of all users.
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
    # The first run of a program builds its kernels, so the second run tells the time.
    *_, (_, seconds) = run([[tried[0][0]]] * 2)
    if seconds > _LONGEST:
        return (
            f"a row takes {seconds:.1f} s, too long to try it beside others: if its rows never meet, turn on "
            "batches with batching_params.pbtxt"
        )
    try:
        groups = [Group(run, group) for group in tried]
        answering = [group for group in groups if group.ordinary]
        if not answering:
            raise NotProvenError(f"a row alone raised {sentence(groups[0].error)}")
        proofs = [group.prove(tolerance, number == 0) for number, group in enumerate(answering)]
    except NotProvenError as error:
        return str(error)
    return Proof(
        tuple(sorted({size for proof in proofs for size in proof.batch_sizes})),
        max(proof.max_difference for proof in proofs),
        max(proof.tolerance for proof in proofs),
    )
