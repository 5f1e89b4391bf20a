"""Kernels with few large entries: sparse kernels, and identities with a little noise."""

import math
import numbers
from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_count
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed, draw, spread
from keras_initx.initializers._identity import fill_centre, join_blocks, split_matrix


@keras.saving.register_keras_serializable(package=PACKAGE)
class SparseNormal(AxisAware):
    """A fixed number of normal weights into each unit, all others zero.

    Law: each output has exactly min(nonzeros, rows) incoming weights drawn from N(0, gain^2), and all its
    other weights are 0. The rows are the elements of the field and the inputs of a block. The places are
    drawn without replacement. For unit-variance inputs, the variance of a pre-activation is
    nonzeros * gain^2, at any width. The units differ from each other more than with dense weights.

    Choose it for saturating activations (sigmoid; tanh with gain 0.25) and second-order methods. Do not
    choose it for ReLU nets of many layers: with the default gain the signal grows by a factor of sqrt(15 / 2)
    at each layer.

    >>> kernel = SparseNormal(nonzeros=5, seed=1)((100, 3))
    >>> [int(n) for n in ops.count_nonzero(kernel, axis=0)]
    [5, 5, 5]

    Args:
        nonzeros: Number of incoming weights of a unit that are not zero, at least 1.
        gain: Positive standard deviation of these weights.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the layout is unknown; on a call, if the shape has
            fewer than two axes or does not fit the layout, or `dtype` is not a float.

    Reference:
        Martens, 2010, "Deep learning via Hessian-free optimization"
        (https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf), as told by Sutskever
        et al., 2013, which gives the 15 weights, their N(0, 1) and the factor 0.25 for tanh.
        `torch.nn.init.sparse_` differs: it zeros a fraction of the weights of each input.
    """

    def __init__(
        self,
        nonzeros: int = 15,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.nonzeros = check_count("nonzeros", nonzeros)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
        blocks = (*(axes.shape[axis] for axis in axes.batch), rows, columns)
        places, values = (call_seed(self.seed, shape, label) for label in ("places", "values"))

        def sample(dtype: str) -> Tensor:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            kernel = keras.random.normal(blocks, 0.0, self.gain, dtype, values)
            if self.nonzeros < rows:
                order = ops.argsort(keras.random.uniform(blocks, dtype=dtype, seed=places), axis=-2)
                # The places of the smallest random numbers are a sample without replacement. The argsort of a
                # permutation is its inverse, so the second argsort gives the rank of each element.
                kept = ops.argsort(order, axis=-2) < self.nonzeros
                kernel = ops.where(kept, kernel, ops.zeros_like(kernel))
            return join_blocks(kernel, axes, shape)

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"nonzeros": self.nonzeros}


@keras.saving.register_keras_serializable(package=PACKAGE)
class TanhFixedPoint(AxisAware):
    """The identity plus a little noise, for deep tanh networks.

    Law: W = gain * D + Z. Z has independent entries N(0, alpha^2 / fan_in). D is the identity with ones on
    the main diagonal if there are at least as many outputs as inputs, else D[j, j mod outputs] = 1, so that
    each input reaches one output. x = tanh(w x) has a solution other than 0 if w > 1. W is drawn so that the
    effective w of each unit lies near 1: activations neither die out nor saturate with depth.

    Choose it for plain tanh networks, deep or wide, and for physics-informed networks. Do not choose it for
    ReLU.

    >>> kernel = TanhFixedPoint(seed=1)((400, 400))
    >>> print(f"{float(keras.ops.std(kernel - keras.ops.eye(400))) * 400**0.5:.3f}")
    0.085

    Args:
        alpha: Factor of the noise's standard deviation alpha / sqrt(fan_in), at least 0.
        gain: Positive factor of D.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the layout is unknown; on a call, if the shape has
            fewer than two axes or does not fit the layout, or `dtype` is not a float.

    Reference:
        Lee et al., 2025, "Robust weight initialization for tanh neural networks with fixed point analysis"
        (https://arxiv.org/abs/2410.02242), as in the authors' code, where gain is 1. The paper does not treat
        convolutions; here D stands at the centre of the field and Z everywhere.
    """

    def __init__(
        self,
        alpha: float = 0.085,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.alpha = _check_size("alpha", alpha)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        inputs, outputs = axes.size(axes.inputs), axes.size(axes.outputs)
        matrix = np.zeros((inputs, outputs))
        if outputs:
            reached = np.arange(inputs)
            # With as many outputs as inputs or more, the modulo changes nothing.
            matrix[reached, reached % outputs] = self.gain
        stddev = self.alpha / math.sqrt(axes.fans.fan_in or 1)
        seed = call_seed(self.seed, shape)

        def sample(dtype: str) -> Tensor:
            noise = keras.random.normal(tuple(shape), 0.0, stddev, dtype, seed)
            return fill_centre(matrix, axes, shape, dtype) + noise

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"alpha": self.alpha}


@keras.saving.register_keras_serializable(package=PACKAGE)
class IDInit(AxisAware):
    """Stacked identities with noise that sets their copies apart.

    Law: W[m, j] = gain if m = j mod D_in, else 0, for output m and element j of the inputs; noise * N(0, 1)
    is added to every entry. With more outputs than inputs the identity is repeated, with fewer it is cut off.
    A convolution is read as a matrix of D_in = inputs * field columns, where the field index is fast (the
    paper's patch-maintain form), so each tap of the field passes channels on. With `zero_preserving` the
    kernel instead has entries +-gain * noise, which cancel in pairs. The last layer of a residual branch then
    starts next to zero, but not at zero.

    Choose it for residual networks. Do not choose it for plain nets of changing widths.

    >>> kernel = IDInit(noise=0.0)((2, 6))
    >>> bool(ops.all(kernel == ops.concatenate([ops.eye(2)] * 3, axis=1)))
    True

    Args:
        gain: Positive value of the identities' entries, the paper's tau.
        noise: Standard deviation of the noise, at least 0. With `zero_preserving`: the size of the entries,
            the paper's epsilon.
        zero_preserving: Whether to build the form that starts next to zero. This form draws nothing.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the layout is unknown; on a call, if the shape has
            fewer than two axes or does not fit the layout, or `dtype` is not a float.

    Reference:
        Pan et al., 2025, "IDInit: a universal and stable initialization method for neural network training"
        (https://arxiv.org/abs/2503.04626), equation 3. This follows public code, and public reviews that
        quote the paper; the paper itself was not available. The two disagree on the noise (on the diagonal
        only, or on all entries); here it is on all entries, as in the code. With one input the
        zero-preserving form alternates its sign, also as in the code.
    """

    def __init__(
        self,
        gain: float = 1.0,
        noise: float = 1e-6,
        zero_preserving: bool = False,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.noise = _check_size("noise", noise)
        self.zero_preserving = bool(zero_preserving)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
        blocks = (*(axes.shape[axis] for axis in axes.batch), rows, columns)
        seed = call_seed(self.seed, shape)

        def sample(dtype: str) -> Tensor:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            if self.zero_preserving:
                # `inputs_first` is the paper's order of a convolution: the field index is fast.
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
    """Returns identities side by side, the last one cut off after `columns` columns."""
    matrix = np.zeros((rows, columns))
    matrix[np.arange(columns) % rows, np.arange(columns)] = 1
    return matrix


def _paired(rows: int, columns: int) -> np.ndarray:
    """Returns identities, each with a negative identity beside it, so that equal inputs cancel."""
    if columns < rows:
        # One identity of all outputs; the inputs that are left over count negatively.
        return np.concatenate([np.eye(columns), -_stacked(rows - columns, columns)])
    if rows == 1:
        return (-1.0) ** np.arange(columns)[None]  # there is no second input to subtract
    return _stacked(rows, columns) - np.roll(_stacked(rows, columns), 1, axis=0)


def _check_size(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0. Received: {name}={value!r}.")
    return float(value)
