"""Recipes: published initializers with the layout of one kind of layer, for layers that only take a name."""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import keras

from keras_initx.fans import KernelAxes, Layout, split_kernel
from keras_initx.initializers._base import PACKAGE, AxisAware
from keras_initx.initializers._gates import count_gates
from keras_initx.initializers._orthogonal import OrthogonalScaled
from keras_initx.initializers._variance import GlorotScaled, HeScaled, LecunScaled


class Options(TypedDict, total=False):
    """What the recipes of the variance family pass on to the class that they are recipes of."""

    gain: float
    activation: Any
    mode: str
    distribution: str
    seed: Any
    input_axes: Sequence[int] | None
    output_axes: Sequence[int] | None


class _Recipe(AxisAware):
    """Writes into the config, instead of the layout, the option of it that the recipe takes."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        layout = {} if self.layout is None else self.layout.to_dict()
        return {n: v for n, v in (super().get_config() | layout).items() if n not in ("layout", "kind")}


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotDepthwise(_Recipe, GlorotScaled):
    """`GlorotScaled` for depthwise kernels: Var W = 2 / (field + field * multiplier).

    Law: an output of a depthwise convolution sums the field of one channel, and an input reaches the field of
    its own multiplier outputs; Keras' initializers count all channels and give (1 + m) / (C + m) of this
    variance. Choose it where `GlorotScaled` is right, in depthwise and separable layers.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=GlorotDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    1.0

    Args:
        **options: Arguments of `GlorotScaled` but `layout`, by name.

    Raises:
        ValueError: As in `GlorotScaled`.

    Reference:
        As in `GlorotScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(layout="depthwise", **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeDepthwise(_Recipe, HeScaled):
    """`HeScaled` for depthwise kernels: Var W = g^2 / field, g^2 = 2 for ReLU.

    Law: an output of a depthwise convolution sums the field of one channel; Keras' initializers count all C
    channels and give 1 / C of this variance. Choose it for depthwise layers that a ReLU feeds; the pointwise
    half of a separable layer, which no activation feeds, takes `LecunScaled`.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=HeDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    2.0

    Args:
        **options: Arguments of `HeScaled` but `layout`, by name.

    Raises:
        ValueError: As in `HeScaled`.

    Reference:
        As in `HeScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(layout="depthwise", **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunDepthwise(_Recipe, LecunScaled):
    """`LecunScaled` for depthwise kernels: Var W = 1 / field.

    Law: as in `HeDepthwise`, without an activation. Choose it for depthwise layers that no activation feeds.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=LecunDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    1.0

    Args:
        **options: Arguments of `LecunScaled` but `layout`, by name.

    Raises:
        ValueError: As in `LecunScaled`.

    Reference:
        As in `LecunScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(layout="depthwise", **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotTransposed(_Recipe, GlorotScaled):
    """`GlorotScaled` for transposed convolutions: Var W = 2 / (field * (inputs / stride + outputs)).

    Law: Keras lays these kernels out as (*field, outputs, inputs), and a stride s thins the inputs of an
    output by s along each axis. Choose it where `GlorotScaled` is right, in decoders and generators, with the
    layer's strides.

    >>> initializer = GlorotTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 640:.1f}")  # fans 256 and 1024
    1.0

    Args:
        strides: The layer's strides, one int or one for each axis of the field.
        **options: Arguments of `GlorotScaled` but `layout`, by name.

    Raises:
        ValueError: As in `GlorotScaled`; if `strides` are no positive ints or, on a call, not as many as the
            axes of the field.

    Reference:
        As in `GlorotScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[Options]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeTransposed(_Recipe, HeScaled):
    """`HeScaled` for transposed convolutions: Var W = g^2 * stride / (field * inputs), g^2 = 2 for ReLU.

    Law: an output sums field / stride taps of all inputs. Keras' initializers take the outputs for the inputs
    and do not know the stride: their variance is inputs / (outputs * stride) of this one. Choose it for
    decoders and generators without normalization, with the layer's strides.

    >>> initializer = HeTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 256:.1f}")
    2.0

    Args:
        strides: The layer's strides, one int or one for each axis of the field.
        **options: Arguments of `HeScaled` but `layout`, by name.

    Raises:
        ValueError: As in `HeScaled`; if `strides` are no positive ints or, on a call, not as many as the axes
            of the field.

    Reference:
        As in `HeScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[Options]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunTransposed(_Recipe, LecunScaled):
    """`LecunScaled` for transposed convolutions: Var W = stride / (field * inputs).

    Law: as in `HeTransposed`, without an activation. Choose it for decoders that no activation feeds.

    >>> initializer = LecunTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 256:.1f}")
    1.0

    Args:
        strides: The layer's strides, one int or one for each axis of the field.
        **options: Arguments of `LecunScaled` but `layout`, by name.

    Raises:
        ValueError: As in `LecunScaled`; if `strides` are no positive ints or, on a call, not as many as the
            axes of the field.

    Reference:
        As in `LecunScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[Options]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)


class _Gates(_Recipe):
    """Reads the number of gates off a shape that tells it, where it is not given."""

    recurrent = False  # whether the kernel is that of the state, (*field, units, gates * units)

    def __init__(self, gates: int | None = None, **options: Any) -> None:
        super().__init__(layout=Layout("gates", gates=gates), **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"gates": None} | super().get_config()

    def split(self, shape: Sequence[int]) -> KernelAxes:
        """Returns the part that each axis of a kernel of this shape plays."""
        if self.layout == Layout("gates") and self.input_axes is None and len(shape) > 1:
            layout = Layout("gates", gates=count_gates(shape, self.recurrent))
            return split_kernel(shape, layout=layout)
        return super().split(shape)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotGates(_Gates, GlorotScaled):
    """`GlorotScaled` for the fused kernels of LSTM, GRU and ConvLSTM: each gate with fans of its own.

    Law: Var W = 2 / (inputs + units), where Keras counts all gates as outputs and gives an LSTM of equal
    inputs and units 2/5 of it, a GRU 1/2. (He and LeCun laws divide by fan_in, which gates do not change.)
    Choose it as `kernel_initializer` of recurrent layers.

    >>> layer = keras.layers.LSTM(100, kernel_initializer="initx>GlorotGates")
    >>> layer.build((None, 7, 100))
    >>> print(f"{float(keras.ops.var(layer.cell.kernel)) * 100:.1f}")
    1.0

    Args:
        gates: 4 for LSTM and ConvLSTM, 3 for GRU; None to take the one that divides the kernel's last axis.
            Both do where the last axis is a multiple of 12, as in an LSTM of 48 units or a GRU of 64: give
            `gates` there. `keras_initx.initialize` reads them off the layer.
        **options: Arguments of `GlorotScaled` but `layout`, by name.

    Raises:
        ValueError: As in `GlorotScaled`; on a call, if the gates do not divide the kernel's last axis, or it
            does not tell them.

    Reference:
        As in `GlorotScaled`; the fans are those of `keras_initx.fans`.
    """

    def __init__(self, gates: int | None = None, **options: Unpack[Options]) -> None:
        super().__init__(gates, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GatewiseOrthogonal(_Gates, OrthogonalScaled):
    """`OrthogonalScaled` for the fused kernels of LSTM, GRU and ConvLSTM: an orthogonal matrix for each gate.

    Law: all singular values of each gate's matrix equal gain. Keras' default makes the rows of all gates
    together orthonormal, so that each gate's matrix has 1/4 (GRU: 1/3) of the variance and is no isometry.
    Choose it as `recurrent_initializer`.

    >>> kernel = GatewiseOrthogonal(seed=1)((8, 24))  # of a GRU: 24 is three times 8
    >>> gate = kernel[:, 8:16]
    >>> bool(keras.ops.max(keras.ops.abs(keras.ops.transpose(gate) @ gate - keras.ops.eye(8))) < 1e-5)
    True

    Args:
        gates: 4 for LSTM and ConvLSTM, 3 for GRU; None to read them off a recurrent kernel, whose last axis
            is gates * units and whose last but one is units. As a `kernel_initializer` give `gates`: another
            kernel than a recurrent one tells them only where its last axis is no multiple of 12.
            `keras_initx.initialize` reads them off the layer.
        **options: Arguments of `OrthogonalScaled` but `layout`, by name.

    Raises:
        ValueError: As in `OrthogonalScaled`; on a call, if the gates do not divide the kernel's last axis, or
            the shape does not tell them.

    Reference:
        As in `OrthogonalScaled`; Henaff, Szlam and LeCun, 2016, "Recurrent orthogonal networks and
        long-memory tasks" (https://arxiv.org/abs/1602.06662), for orthogonal recurrent matrices.
    """

    recurrent = True

    def __init__(self, gates: int | None = None, **options: Any) -> None:
        super().__init__(gates, **options)
