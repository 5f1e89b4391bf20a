"""Variance laws that divide by the width or the depth of the net, and laws for the training of wide nets."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras

from keras_initx._types import Tensor
from keras_initx.checks import check_choice, check_count
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed
from keras_initx.initializers._variance import draw_entries


@keras.saving.register_keras_serializable(package=PACKAGE)
class SmallInit(AxisAware):
    """Small normal weights for Transformers: Var W = 2 / (5 d).

    Law: W ~ N(0, 2 gain^2 / (5 d)) for all matrices of the model, d the model's width. This is Glorot's law
    for the feed-forward pair d -> 4 d -> d, and about half of Glorot's variance for square matrices.

    Choose it for Transformers with normalization before each sublayer: it keeps their embeddings and residual
    stream small. Take `WangInit` for the last matrix of each sublayer. Do not choose it for nets without
    normalization: the signal shrinks at each layer.

    >>> kernel = SmallInit(seed=1)((500, 2000))
    >>> print(f"{float(keras.ops.var(kernel)) * 500:.1f}")
    0.4

    Args:
        width: The model's width d, at least 1. With None, `keras_initx.initialize` takes it from the model. A
            layer by itself reads it off the kernel: in an attention kernel, the side that is not heads; else
            the smaller of inputs and outputs, which is d in the feed-forward pair. Give the width for a head
            of fewer than d outputs and for an embedding of fewer than d rows.
        gain: Positive factor of the standard deviation.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the layout does not fit the shape or
            `dtype` is not a float.

    Reference:
        Nguyen and Salazar, 2019, "Transformers without tears: improving the normalization of self-attention"
        (https://arxiv.org/abs/1910.05895): SmallInit, N(0, 2 / (d + 4 d)).
    """

    def __init__(
        self,
        width: int | None = None,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.width = None if width is None else check_count("width", width)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        stddev = self.gain * math.sqrt(2 / (5 * _model_width(self, shape, self.width)))
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable(package=PACKAGE)
class WangInit(AxisAware):
    """Depth-scaled normal weights for the last matrix of a Transformer's sublayers: std 2 / (L sqrt(d)).

    Law: W ~ N(0, (2 gain / (L sqrt(d)))^2), L the number of layers, d the model's width. The sum that the L
    layers add to the residual stream then stays bounded at any depth.

    Choose it for attention output kernels and second feed-forward kernels, with `SmallInit` for all other
    kernels. Do not choose it for matrices outside residual branches.

    >>> kernel = WangInit(layers=10, seed=1)((500, 500))
    >>> print(f"{float(keras.ops.std(kernel)) * 500**0.5:.1f}")
    0.2

    Args:
        layers: Number of Transformer layers L, at least 1.
        width: The model's width d, at least 1. With None, `keras_initx.initialize` takes it from the model. A
            layer by itself reads it off the kernel: in an attention kernel, the side that is not heads; else
            the smaller of inputs and outputs, which is d in the feed-forward pair.
        gain: Positive factor of the standard deviation.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the layout does not fit the shape or
            `dtype` is not a float.

    Reference:
        `wang_init_method` of Wang and Komatsuzaki's mesh-transformer-jax (2021,
        https://github.com/kingoflolz/mesh-transformer-jax) and of GPT-NeoX; there is no paper.
    """

    def __init__(
        self,
        layers: int = 12,
        width: int | None = None,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.layers = check_count("layers", layers)
        self.width = None if width is None else check_count("width", width)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        stddev = 2 * self.gain / (self.layers * math.sqrt(_model_width(self, shape, self.width)))
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"layers": self.layers, "width": self.width}


@keras.saving.register_keras_serializable(package=PACKAGE)
class SpectralScaled(AxisAware):
    """Normal weights with a spectral norm of about sqrt(n_out / n_in), for feature learning at any width.

    Law: std W = gain / sqrt(n_in) * min(1, sqrt(n_out / n_in)). The spectral norm is then of the order of
    sqrt(n_out / n_in). With at least as many outputs as inputs, entries of unit size stay of unit size. A
    contracting layer (a head) starts small, as in the maximal update parametrization.

    Choose it to carry hyperparameters over from narrow to wide nets, with learning rates that scale as
    n_out / n_in. Do not expect a difference in hidden layers of equal width: there it is `LecunScaled` with
    `distribution="normal"`.

    >>> kernel = SpectralScaled(seed=1)((900, 100))
    >>> print(f"{float(keras.ops.std(kernel)) * 90:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the layout does not fit
            the shape or `dtype` is not a float.

    Reference:
        Yang, Simon and Bernstein, 2023, "A spectral condition for feature learning"
        (https://arxiv.org/abs/2310.17813). The std follows from the paper's condition on the norm, because
        the norm of a Gaussian matrix is about std (sqrt(n_in) + sqrt(n_out)). Deviation: convolutions, which
        the condition does not cover, count their field in both fans.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        fans = self.split(shape).fans
        inputs = fans.fan_in or 1
        stddev = self.gain * math.sqrt(min(1, fans.fan_out / inputs) / inputs)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class RandomWalk(AxisAware):
    """Normal weights whose gain keeps the *logarithm* of the gradient's norm from drifting with depth.

    Law: W ~ N(0, (gain * g)^2 / N), N = fan_in, with g = exp(1 / (2 N)) for linear layers and
    g = sqrt(2) exp(1.2 / (max(N, 6) - 2.4)) for ReLU layers. On the way back, the log norm of the gradient is
    a random walk. The laws of He and Glorot keep the mean of the squared norm. This law keeps the mean of the
    log norm, which describes a typical draw of a deep, narrow net.

    Choose it for very deep plain nets of constant, small width. Above some hundred units it is `HeScaled`.
    Do not choose it for activations other than ReLU and linear.

    >>> initializer = RandomWalk(seed=1)
    >>> print(f"{float(keras.ops.std(initializer((500, 500)))) * 250**0.5:.2f}")
    1.00

    Args:
        activation: The net's activation: `"relu"` or `"linear"`.
        gain: Positive factor of the standard deviation.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the layout does not fit the shape or
            `dtype` is not a float.

    Reference:
        Sussillo and Abbott, 2014, "Random walk initialization for training very deep feedforward networks"
        (https://arxiv.org/abs/1412.6558). The gain for ReLU is the authors' fit to simulations.
    """

    def __init__(
        self,
        activation: str = "relu",
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.activation = check_choice("activation", activation, ("linear", "relu"))

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        width = self.split(shape).fans.fan_in or 1
        if self.activation == "relu":
            # The fit has a pole at 2.4 and was made for wider layers: below 6 units it stays as it is at 6.
            gain = math.sqrt(2) * math.exp(1.2 / (max(width, 6) - 2.4))
        else:
            gain = math.exp(1 / (2 * width))
        stddev = self.gain * gain / math.sqrt(width)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"activation": self.activation}


def _model_width(initializer: AxisAware, shape: Sequence[int], width: int | None) -> int:
    """Returns `width`, or the model's width as far as one kernel tells it."""
    if width is not None:
        return width
    axes, kind = initializer.split(shape), initializer.layout and initializer.layout.kind
    # An embedding maps rows to the width. A vector (bias, scale) has one axis, whatever its role is.
    if kind == "embedding" or not axes.outputs:
        return axes.size(axes.outputs or axes.field or axes.inputs) or 1
    if not axes.field and sorted(map(len, (axes.inputs, axes.outputs))) == [1, 2]:
        # An attention kernel: one side has two axes (heads, units of a head), the other is the model's width.
        # The smaller side would be wrong, because grouped keys and values have fewer outputs than the width.
        return axes.size(axes.inputs if len(axes.inputs) == 1 else axes.outputs) or 1
    # Groups and depthwise channels stand side by side, so the width is the sum over them.
    blocks = axes.size(axes.batch) if kind in ("conv", "depthwise") else 1
    return min(axes.size(axes.inputs), axes.size(axes.outputs)) * blocks or 1
