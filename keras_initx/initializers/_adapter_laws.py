"""Laws that start adapters on data: `EVA`, from what each layer gets, and `LoRAGA`, from the gradient."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

import keras
import numpy as np

from keras_initx._types import Tensor
from keras_initx.checks import check_positive, check_switch
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed
from keras_initx.initializers._directions import fix_signs
from keras_initx.initializers._law import Law, Need, Scope
from keras_initx.initializers._variance import draw_entries

__all__ = ["EVA", "AdapterLaw", "LoRAGA", "explained"]


class AdapterLaw(Law, AxisAware):
    """Base of the laws that start low-rank adapters (LoRA) on data.

    Such a law draws the factor A as the strategy `LoRA` does, and has a method `start`.
    `keras_initx.calibrate` calls `start` for each adapter with a matrix: the second moments of what the layer
    gets, or the gradient of its kernel. Derive a law of your own from this class and register it with Keras.

    >>> class Strongest(AdapterLaw):
    ...     takes = "moments"
    ...     def start(self, matrix, rank):
    ...         return np.eye(len(matrix))[:, np.argsort(-np.diag(matrix))[:rank]], None
    >>> Strongest().start(np.diag([1.0, 3.0, 2.0]), 1)[0].ravel()
    array([0., 1., 0.])

    Args:
        gain: Positive factor of the factor A, or of both factors.
        layout: Meaning of the axes of A where the shape does not tell it. `calibrate` reads it off the layer.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Attributes:
        takes: The matrix that `start` gets: `"moments"`, X' X / rows of the rows X that the layer gets; or
            `"gradient"`, of the loss with respect to the kernel.
    """

    scope: ClassVar[Scope] = "adapter"
    takes: ClassVar[Literal["gradient", "moments"]] = "moments"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a factor A of variance 2 gain^2 / fan_in, uniform, which stays until `calibrate` runs.

        Args:
            shape: Shape of the factor.
            dtype: A float dtype; None for Keras' floatx.

        Returns:
            A factor of this shape and dtype.
        """
        stddev = self.gain * (2 / (self.split(shape).fans.fan_in or 1)) ** 0.5
        return draw_entries(tuple(shape), stddev, "uniform", call_seed(self.seed, shape), dtype)

    def start(self, matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the factors of an adapter.

        Args:
            matrix: float64. Moments have the shape (fan_in, fan_in); a gradient has the shape that Keras
                adapts a kernel in, all axes but the last by the last.
            rank: Columns of A.

        Returns:
            A of shape (len(matrix), rank); and B of shape (rank, columns), which the base loses, or None for
            a B of zeros and a base that stays.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `start(self, matrix, rank)`, which returns A and B."
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class EVA(AdapterLaw):
    """Adapters that start along the leading directions of what their layers get.

    Law: with the rows X that reach the layer on the data, A has the r right singular vectors of X of the
    largest singular values as columns, times gain; B = 0. Each head of a query, key or value gets the same A.
    The model computes what it computed before, and its base stays. The first updates go to the directions
    in which the layer's inputs are large.

    Choose it for fine-tuning on data that is at hand: it costs one pass. Do not choose it for embeddings,
    whose inputs are numbers of words; their adapters stay as they are, and their rows say so.

    `report.ranks` tells how many columns each adapter would have if the same number of columns went to the
    directions that explain the largest shares of their inputs. Keras cannot change a rank: build the model
    anew, and pass `report.ranks` to `keras_initx.adapters.enable_lora`.

    >>> rows = np.random.default_rng(0).normal(size=(500, 4)) * [1, 5, 2, 9]
    >>> a, b = EVA().start(rows.T @ rows / 500, rank=2)
    >>> np.abs(a).round().tolist(), b is None
    ([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], True)

    Args:
        whiten: Whether to divide each column by the root mean square of the inputs along it, so that all
            columns pass signals of size gain.
        gain: Positive norm of the columns; with `whiten`, the size of what they pass.
        layout: As in `AdapterLaw`.
        seed: Seed of the draw before `calibrate` runs, as in `AdapterLaw`.
        input_axes: Axes that an output sums over.
        output_axes: Axes that number the outputs.

    Raises:
        ValueError: If `gain` is not positive or `whiten` is not a bool; on a call, if `dtype` is not a float.

    Reference:
        Paischer et al., 2024, "One initialization to rule them all: fine-tuning via explained variance
        adaptation", section 3 (https://arxiv.org/abs/2410.07170), in the form of PEFT's `eva.py`. Deviations:
        the inputs are not centred, since A multiplies them as they are; all rows count at once, in place of
        an incremental decomposition until it has converged; `whiten` divides by the root mean square, PEFT by
        the root of the singular value.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"inputs"})

    def __init__(self, whiten: bool = False, gain: float = 1.0, **kernel: Unpack[KernelOptions]) -> None:
        super().__init__(gain, **kernel)
        self.whiten = check_switch("whiten", whiten)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"whiten": self.whiten}

    def start(self, matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the leading eigenvectors of second moments as A, and None for B.

        Args:
            matrix: float64 of shape (fan_in, fan_in).
            rank: Columns of A.
        """
        values, vectors = _leading(matrix)
        columns = fix_signs(vectors[:, :rank])
        if self.whiten:
            sizes = np.sqrt(values[:rank])
            # A direction in which the inputs do not vary keeps its length: other data may have it.
            columns = columns / np.where(sizes > 1e-6 * sizes[0], sizes, 1.0)
        return self.gain * columns, None


@keras.saving.register_keras_serializable(package=PACKAGE)
class LoRAGA(AdapterLaw):
    """Adapters whose first step goes where a step of the whole kernel would go.

    Law: with the gradient G = U S V' of the loss with respect to the kernel, of n columns, A is the r leading
    columns of U and B the next r rows of V', both times (n^(1/4) / root(gamma)) gain. The base loses
    scale A B, so that the model computes what it computed before. The first change of A B then lies along
    the leading 2 r directions of G.

    Choose it for fast first steps, with a batch that is large enough for a gradient. Do not choose it if the
    base must stay as it is: `report.as_lora(model)` makes plain LoRA of twice the rank at the end. It needs
    ranks of at most half of the kernel's.

    >>> gradient = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> a, b = LoRAGA(gamma=2).start(gradient, rank=2)
    >>> np.abs(a).argmax(axis=0).tolist(), np.abs(b).argmax(axis=1).tolist(), float(np.abs(a).max())
    ([0, 1], [2, 3], 1.0)

    Args:
        gamma: Positive divisor of A B: larger values start nearer to zero.
        gain: Positive factor of both factors.
        layout: As in `AdapterLaw`.
        seed: Seed of the draw before `calibrate` runs, as in `AdapterLaw`.
        input_axes: Axes that an output sums over.
        output_axes: Axes that number the outputs.

    Raises:
        ValueError: If `gamma` or `gain` is not positive; in `start`, if the rank is more than half of the
            smaller side; on a call, if `dtype` is not a float.

    Reference:
        Wang, Yu and Li, 2024, "LoRA-GA: low-rank adaptation with gradient approximation"
        (https://arxiv.org/abs/2407.05000), in the form of the authors' code (direction ArB2r, scale stable).
        The paper was not read. Deviation: the gradient is of one batch.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"inputs", "targets", "loss", "gradients"})
    takes = "gradient"

    def __init__(self, gamma: float = 16.0, gain: float = 1.0, **kernel: Unpack[KernelOptions]) -> None:
        super().__init__(gain, **kernel)
        self.gamma = check_positive("gamma", gamma)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"gamma": self.gamma}

    def start(self, matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns A and B from the leading singular vectors of a gradient.

        Args:
            matrix: float64 of shape (rows, columns).
            rank: Columns of A.
        """
        if 2 * rank > min(matrix.shape):
            raise ValueError(
                "`rank` must be at most half of the smaller side of the kernel for LoRAGA. Received: "
                f"rank={rank} for {matrix.shape[0]} x {matrix.shape[1]}."
            )
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        size = self.gain * matrix.shape[1] ** 0.25 / self.gamma**0.5
        return size * left[:, :rank], size * right[rank : 2 * rank]


def explained(matrix: np.ndarray) -> np.ndarray:
    """Returns the share of the inputs that each direction explains, from the largest on.

    >>> explained(np.diag([1.0, 3.0])).tolist()
    [0.75, 0.25]

    Args:
        matrix: Second moments, float64 of shape (fan_in, fan_in).
    """
    values, _ = _leading(matrix)
    return np.asarray(values / max(values.sum(), np.finfo(float).tiny))


def _leading(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns eigenvalues of at least 0 from the largest on, and their vectors as columns."""
    return _decomposed(np.ascontiguousarray(matrix, "float64").tobytes(), len(matrix))


# Queries and values have one matrix, and its shares are asked for beside its directions.
@functools.lru_cache(maxsize=2)
def _decomposed(matrix: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(np.frombuffer(matrix).reshape(size, size))
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]
