"""Initializers for the fused kernels of LSTM, GRU and ConvLSTM, which hold one matrix for each gate."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras

from keras_initx.fans import KernelAxes, Layout, split_kernel
from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._gates import count_gates
from keras_initx.initializers._orthogonal import OrthogonalScaled
from keras_initx.initializers._recipes import OrthogonalOptions, Recipe, VarianceOptions
from keras_initx.initializers._variance import GlorotScaled


class _Gates(Recipe):
    """Reads the number of gates off the shape of a kernel, if it is not given and the shape tells it."""

    recurrent = False  # whether the kernel is that of the state, (*field, units, gates * units)

    def __init__(self, gates: int | None = None, **options: Any) -> None:
        super().__init__(layout=Layout("gates", gates=gates), **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        # A layout leaves out an option that has its default, and a config must hold all arguments.
        return {"gates": None} | super().get_config()

    def split(self, shape: Sequence[int]) -> KernelAxes:
        """Returns the role of each axis of a kernel of this shape."""
        if self.layout == Layout("gates") and self.input_axes is None and len(shape) > 1:
            layout = Layout("gates", gates=count_gates(shape, self.recurrent))
            return split_kernel(shape, layout=layout)
        return super().split(shape)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotGates(_Gates, GlorotScaled):
    """`GlorotScaled` for the fused kernels of LSTM, GRU and ConvLSTM: each gate has its own fans.

    Law: Var W = (gain * g)^2 * 2 / (inputs + units), g the gain of `activation`, 1 by default. Keras counts
    the units of all gates as outputs. With equal inputs and units it gives an LSTM 2/5 of this variance, and
    a GRU 1/2.

    Choose it as the `kernel_initializer` of recurrent layers. The laws of He and LeCun need no such class:
    they divide by fan_in, which gates do not change.

    >>> layer = keras.layers.LSTM(100, kernel_initializer="initx>GlorotGates")
    >>> layer.build((None, 7, 100))
    >>> print(f"{float(keras.ops.var(layer.cell.kernel)) * 100:.1f}")
    1.0

    Args:
        gates: 4 for LSTM and ConvLSTM, 3 for GRU. None takes the number that divides the kernel's last axis.
            A multiple of 12 fits both, as in an LSTM of 48 units or a GRU of 64: give `gates` there.
            `keras_initx.initialize` reads it off the layer.
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. The default None has
            gain 1.
        mode: The count that divides: `"fan_avg"` (default), `"fan_in"`, `"fan_out"` or `"fan_geom"`.
        distribution: `"uniform"` (default), `"normal"` or `"truncated_normal"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no fused kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the gates
            do not divide the kernel's last axis, if both numbers of gates fit, or if `dtype` is not a float;
            in `get_config`, if the activation is a function that Keras cannot save.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        equation 16 (https://proceedings.mlr.press/v9/glorot10a.html). Deviation: the paper has dense layers;
        the fans of each gate are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, gates: int | None = None, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(gates, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GatewiseOrthogonal(_Gates, OrthogonalScaled):
    """`OrthogonalScaled` for the fused kernels of LSTM, GRU and ConvLSTM: an orthogonal matrix for each gate.

    Law: all singular values of each gate's matrix are equal to gain; the matrices are Haar distributed and
    independent. Keras' default makes the rows of all gates together orthonormal. A gate's matrix then has 1/4
    (GRU: 1/3) of this variance and is not an isometry.

    Choose it as the `recurrent_initializer` of LSTM, GRU and ConvLSTM layers. For a SimpleRNN, whose kernel
    is one matrix, take `OrthogonalScaled` or `IRNN`.

    >>> kernel = GatewiseOrthogonal(seed=1)((8, 24))  # of a GRU: 24 is three times 8
    >>> gate = kernel[:, 8:16]
    >>> bool(keras.ops.max(keras.ops.abs(keras.ops.transpose(gate) @ gate - keras.ops.eye(8))) < 1e-5)
    True

    Args:
        gates: 4 for LSTM and ConvLSTM, 3 for GRU. None reads the number off a recurrent kernel, which has
            gates * units on its last axis and units on the axis before. Give `gates` if you use it as a
            `kernel_initializer`: such a kernel tells the number only if its last axis is not a multiple of
            12. `keras_initx.initialize` reads it off the layer.
        gain: Positive value of all singular values. Default 1.
        preserve_norm: Whether outputs keep variance gain^2 in a kernel with more units than inputs. Default
            False.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no fused kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the gates do not divide the kernel's
            last axis, if both numbers of gates fit, if the shape has fewer than two axes, or if `dtype` is
            not a float.

    Reference:
        Henaff, Szlam and LeCun, 2016, "Recurrent orthogonal networks and long-memory tasks"
        (https://arxiv.org/abs/1602.06662), for orthogonal recurrent matrices; Saxe, McClelland and Ganguli,
        2014 (https://arxiv.org/abs/1312.6120); Mezzadri, 2007, section 5, for the signs that make the QR
        factor Haar distributed (https://arxiv.org/abs/math-ph/0609050).
    """

    recurrent = True

    def __init__(self, gates: int | None = None, **options: Unpack[OrthogonalOptions]) -> None:
        super().__init__(gates, **options)
