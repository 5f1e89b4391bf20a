"""Variance laws that divide by the width of the net, by its depth, or by what training will do to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_initx.fans import Layout
from keras_initx.initializers._base import PACKAGE, AxisAware, call_seed, check_choice, check_count
from keras_initx.initializers._variance import draw_entries


@keras.saving.register_keras_serializable(package=PACKAGE)
class SmallInit(AxisAware):
    """Small normal weights for Transformers: Var W = 2 / (5 d).

    Law: W ~ N(0, 2 gain^2 / (5 d)), d the model's width, for all matrices of the model; it is Glorot's law
    for the feed-forward pair d -> 4 d -> d and about half of it for the square ones. Choose it for
    Transformers with normalization before each sublayer, whose embeddings and residual stream it keeps small;
    take `WangInit` for the last matrix of each sublayer. Not for nets without normalization: the signal
    shrinks at each layer.

    >>> kernel = SmallInit(seed=1)((500, 2000))
    >>> print(f"{float(keras.ops.var(kernel)) * 500:.1f}")
    0.4

    Args:
        width: The model's width d. None takes it from the model under `keras_initx.initialize`. On a layer by
            itself None reads it off the kernel: the end of an attention kernel that is not heads, else the
            smaller of inputs and outputs, which is d in the feed-forward pair. Give it in a head of fewer
            than d outputs and in an embedding of fewer than d rows.
        gain: Positive factor of the standard deviation.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

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
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.width = None if width is None else check_count("width", width)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        stddev = self.gain * math.sqrt(2 / (5 * _model_width(self, shape, self.width)))
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable(package=PACKAGE)
class WangInit(AxisAware):
    """Depth-scaled normal weights for the last matrix of a Transformer's sublayers: std 2 / (L sqrt(d)).

    Law: W ~ N(0, (2 gain / (L sqrt(d)))^2), L the number of layers, d the model's width: what the L layers
    add to the residual stream stays bounded, whatever the depth. Choose it for attention output and second
    feed-forward kernels, with `SmallInit` for all others; not for matrices outside residual branches.

    >>> kernel = WangInit(layers=10, seed=1)((500, 500))
    >>> print(f"{float(keras.ops.std(kernel)) * 500**0.5:.1f}")
    0.2

    Args:
        layers: Number of Transformer layers L, at least 1.
        width: The model's width d; None as in `SmallInit`.
        gain: Positive factor of the standard deviation.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

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
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.layers = check_count("layers", layers)
        self.width = None if width is None else check_count("width", width)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        stddev = 2 * self.gain / (self.layers * math.sqrt(_model_width(self, shape, self.width)))
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"layers": self.layers, "width": self.width}


@keras.saving.register_keras_serializable(package=PACKAGE)
class SpectralScaled(AxisAware):
    """Normal weights whose spectral norm is that of feature learning at any width: about sqrt(n_out / n_in).

    Law: std W = gain / sqrt(n_in) * min(1, sqrt(n_out / n_in)). The spectral norm is then of the order of
    sqrt(n_out / n_in), so that unit-size entries stay of unit size where the outputs are no fewer than the
    inputs, and a contracting layer (a head) starts small, as in the maximal update parametrization. Choose it
    when hyperparameters are to be carried over from narrow to wide nets, with learning rates that scale as
    n_out / n_in. For hidden layers of equal width it is `LecunScaled` with a normal.

    >>> kernel = SpectralScaled(seed=1)((900, 100))
    >>> print(f"{float(keras.ops.std(kernel)) * 90:.1f}")
    1.0

    Args:
        gain: Positive factor.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the layout does not fit the shape or `dtype` is
        not a
            float.

    Reference:
        Yang, Simon and Bernstein, 2023, "A spectral condition for feature learning"
        (https://arxiv.org/abs/2310.17813), the condition; the std is what it asks of a Gaussian matrix, whose
        norm is about std (sqrt(n_in) + sqrt(n_out)). Convolutions, not in the statement, count their field in
        both fans.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        fans = self.split(shape).fans
        inputs = fans.fan_in or 1
        stddev = self.gain * math.sqrt(min(1, fans.fan_out / inputs) / inputs)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class RandomWalk(AxisAware):
    """Normal weights whose gain keeps the *logarithm* of the gradient's norm from drifting with depth.

    Law: W ~ N(0, (gain * g)^2 / N), N = fan_in, with g = exp(1 / (2 N)) for linear and g = sqrt(2) exp(1.2 /
    (max(N, 6) - 2.4)) for ReLU layers. Backward the log norm of the gradient is a random walk; the laws of He
    and Glorot keep the mean of the norm's square, this one the mean of its logarithm, which is what a typical
    deep net of narrow layers has. Choose it for very deep plain nets of constant, small width (above some
    hundred units it is `HeScaled`).

    >>> initializer = RandomWalk(seed=1)
    >>> print(f"{float(keras.ops.std(initializer((500, 500)))) * 250**0.5:.2f}")
    1.00

    Args:
        activation: `"relu"` or `"linear"`.
        gain: Positive factor of the standard deviation.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the layout does not fit the shape or
            `dtype` is not a float.

    Reference:
        Sussillo and Abbott, 2014, "Random walk initialization for training very deep feedforward networks"
        (https://arxiv.org/abs/1412.6558). The ReLU gain is the authors' fit to simulations.
    """

    def __init__(
        self,
        activation: str = "relu",
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.activation = check_choice("activation", activation, ("linear", "relu"))

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        width = self.split(shape).fans.fan_in or 1
        if self.activation == "relu":
            gain = math.sqrt(2) * math.exp(1.2 / (max(width, 6) - 2.4))
        else:
            gain = math.exp(1 / (2 * width))
        stddev = self.gain * gain / math.sqrt(width)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"activation": self.activation}


def _model_width(initializer: AxisAware, shape: Sequence[int], width: int | None) -> int:
    if width is not None:
        return width
    axes, kind = initializer.split(shape), initializer.layout and initializer.layout.kind
    if kind == "embedding" or not axes.outputs:
        return axes.size(axes.outputs or axes.field or axes.inputs) or 1
    if not axes.field and sorted(map(len, (axes.inputs, axes.outputs))) == [1, 2]:
        # Heads have two axes, the states one; grouped keys and values have fewer outputs than that.
        return axes.size(axes.inputs if len(axes.inputs) == 1 else axes.outputs) or 1
    blocks = axes.size(axes.batch) if kind in ("conv", "depthwise") else 1  # groups and channels side by side
    return min(axes.size(axes.inputs), axes.size(axes.outputs)) * blocks or 1
