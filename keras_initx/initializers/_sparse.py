"""Kernels with few entries that count: sparse ones, and identities beneath little noise."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.fans import Layout
from keras_initx.initializers._base import PACKAGE, AxisAware, call_seed, check_count, draw, spread
from keras_initx.initializers._identity import fill_centre, join_blocks, split_matrix


@keras.saving.register_keras_serializable(package=PACKAGE)
class SparseNormal(AxisAware):
    """A fixed number of normal weights into each unit, all others zero.

    Law: each output has exactly min(nonzeros, rows) incoming weights N(0, gain^2), rows being the elements of
    field and inputs of its block, at places drawn without replacement; all others are 0. The variance of a
    pre-activation, nonzeros * gain^2 for unit-variance inputs, does not depend on the width, and the units
    differ from each other more than with dense weights. Choose it for saturating activations (sigmoid; tanh
    with gain 0.25) and second-order methods; do not choose it for ReLU nets of many layers: the default size
    lets the signal grow by a factor of sqrt(15 / 2) at each.

    >>> kernel = SparseNormal(nonzeros=5, seed=1)((100, 3))
    >>> [int(n) for n in ops.count_nonzero(kernel, axis=0)]
    [5, 5, 5]

    Args:
        nonzeros: Incoming weights of a unit that are not zero, at least 1.
        gain: Positive standard deviation of these.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the shape has fewer than two axes.

    Reference:
        Martens, 2010, "Deep learning via Hessian-free optimization"
        (https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf), as told by Sutskever
        et al., 2013, which has the 15 weights, their N(0, 1) and the 0.25 of tanh.
        `torch.nn.init.sparse_` instead zeros a fraction of the weights out of each input.
    """

    def __init__(
        self,
        nonzeros: int = 15,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.nonzeros = check_count("nonzeros", nonzeros)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
        blocks = (*(axes.shape[axis] for axis in axes.batch), rows, columns)
        places, values = (call_seed(self.seed, shape, label) for label in ("places", "values"))

        def sample(dtype: str) -> Any:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            kernel = keras.random.normal(blocks, 0.0, self.gain, dtype, values)
            if self.nonzeros < rows:
                order = ops.argsort(keras.random.uniform(blocks, dtype=dtype, seed=places), axis=-2)
                # The argsort of a permutation is its inverse: the rank of each element.
                kept = ops.argsort(order, axis=-2) < self.nonzeros
                kernel = ops.where(kept, kernel, ops.zeros_like(kernel))
            return join_blocks(kernel, axes, shape)

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"nonzeros": self.nonzeros}


@keras.saving.register_keras_serializable(package=PACKAGE)
class TanhFixedPoint(AxisAware):
    """The identity plus little noise, for deep tanh networks.

    Law: W = gain * D + Z, where Z has independent entries N(0, alpha^2 / fan_in) and D is the identity: ones
    on the main diagonal where the outputs are at least as many as the inputs, else D[j, j mod outputs] = 1,
    so that each input reaches one output. tanh(w x) has a fixed point other than 0 once w > 1, and W is drawn
    so that the effective w of each unit lies about there: activations neither die out nor saturate with
    depth. Choose it for plain tanh networks, deep or wide, and physics-informed ones; not for ReLU.

    >>> kernel = TanhFixedPoint(seed=1)((400, 400))
    >>> print(f"{float(keras.ops.std(kernel - keras.ops.eye(400))) * 400**0.5:.3f}")
    0.085

    Args:
        alpha: Size of the noise, at least 0.
        gain: Positive factor of D.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the shape has fewer than two axes.

    Reference:
        Lee et al., 2025, "Robust weight initialization for tanh neural networks with fixed point analysis"
        (https://arxiv.org/abs/2410.02242), as its authors' code has it; gain is 1 there. Convolutions are not
        treated there; here D stands at the centre of the field and Z everywhere.
    """

    def __init__(
        self,
        alpha: float = 0.085,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.alpha = _check_size("alpha", alpha)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        inputs, outputs = axes.size(axes.inputs), axes.size(axes.outputs)
        matrix = np.zeros((inputs, outputs))
        if outputs:
            reached = np.arange(inputs)
            matrix[reached, reached % outputs] = self.gain
        stddev = self.alpha / math.sqrt(axes.fans.fan_in or 1)
        seed = call_seed(self.seed, shape)

        def sample(dtype: str) -> Any:
            noise = keras.random.normal(tuple(shape), 0.0, stddev, dtype, seed)
            return fill_centre(matrix, axes, shape, dtype) + noise

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"alpha": self.alpha}


@keras.saving.register_keras_serializable(package=PACKAGE)
class IDInit(AxisAware):
    """Stacked identities with noise that sets their copies apart.

    Law: for output m and element j of the inputs W[m, j] = gain if m = j mod D_in, else 0, plus noise *
    N(0, 1) on every entry: more outputs than inputs repeat the identity, fewer cut it off. Convolutions are
    read as matrices of D_in = inputs * field columns, field fast (the paper's patch-maintain form), so that
    each tap of the field passes channels on. With `zero_preserving` the kernel instead has entries +-gain *
    noise, which cancel in pairs: it starts the last layer of a residual branch next to zero without making
    it zero. Choose it for residual networks; do not choose it for plain nets of changing widths.

    >>> kernel = IDInit(noise=0.0)((2, 6))
    >>> bool(ops.all(kernel == ops.concatenate([ops.eye(2)] * 3, axis=1)))
    True

    Args:
        gain: Positive value of the identities' entries; the paper's tau.
        noise: Standard deviation of the noise, at least 0; with `zero_preserving` the size of the entries,
            the paper's epsilon.
        zero_preserving: Whether to build the form that starts next to zero, which draws nothing.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the shape has fewer than two axes.

    Reference:
        Pan et al., 2025, "IDInit: a universal and stable initialization method for neural network training"
        (https://arxiv.org/abs/2503.04626), equation 3. The paper's text was not open to us: this follows
        public reviews that quote it and public code. They disagree on the noise (on the diagonal only, or on
        all entries); here it is on all, as in the code. With one input the zero-preserving form alternates
        its sign, also as there.
    """

    def __init__(
        self,
        gain: float = 1.0,
        noise: float = 1e-6,
        zero_preserving: bool = False,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.noise = _check_size("noise", noise)
        self.zero_preserving = bool(zero_preserving)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
        blocks = (*(axes.shape[axis] for axis in axes.batch), rows, columns)
        seed = call_seed(self.seed, shape)

        def sample(dtype: str) -> Any:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            if self.zero_preserving:
                matrix = ops.convert_to_tensor(self.gain * self.noise * _paired(rows, columns), dtype)
                return join_blocks(spread(matrix, blocks), axes, shape, inputs_first=True)
            matrix = ops.convert_to_tensor(self.gain * _stacked(rows, columns), dtype)
            noise = self.noise * keras.random.normal(blocks, dtype=dtype, seed=seed)
            return join_blocks(matrix + noise, axes, shape, inputs_first=True)

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"noise": self.noise, "zero_preserving": self.zero_preserving}


def _stacked(rows: int, columns: int) -> np.ndarray:
    """Returns identities side by side, as many as it takes for `columns` columns."""
    matrix = np.zeros((rows, columns))
    matrix[np.arange(columns) % rows, np.arange(columns)] = 1
    return matrix


def _paired(rows: int, columns: int) -> np.ndarray:
    """Returns identities of which each has one of the opposite sign beside it."""
    if columns < rows:
        return np.concatenate([np.eye(columns), -_stacked(rows - columns, columns)])
    if rows == 1:
        return (-1.0) ** np.arange(columns)[None]
    return _stacked(rows, columns) - np.roll(_stacked(rows, columns), 1, axis=0)


def _check_size(name: str, value: Any) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0. Received: {name}={value!r}.")
    return float(value)
