"""Recurrent layers: how long a unit remembers before any training."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_positive
from keras_initx.initializers._base import PACKAGE, Seed, Seeded, call_seed, draw
from keras_initx.initializers._gates import count_gates
from keras_initx.initializers._identity import IdentityScaled, split_matrix

_LSTM, _GRU = 4, 3
# Two frames lie between an initializer's `__call__` and Keras' closure. The rest is room for wrappers.
_FRAMES = 6


@keras.saving.register_keras_serializable(package=PACKAGE)
class ChronoBias(Seeded):
    """Chrono initialization of gate biases: units forget at time scales of 2 to `max_timescale` steps.

    Law: u is uniform on [1, max_timescale - 1], drawn for each unit. An LSTM has b_f = log u, b_i = -log u
    and 0 for the other gates, in Keras' order (i, f, c, o). A forget gate of sigmoid(log u) = u / (1 + u)
    keeps a memory for about 1 + u steps if the inputs are centred. So the time scales of the units are
    uniform on [2, max_timescale]. A GRU has b_z = log u, because in Keras its update gate z keeps the old
    state; the input gate 1 - z follows by itself.

    Choose it when dependencies span a known number of steps, with `max_timescale` near this number or the
    length of the sequence. If the span is unknown, choose `UniformGateBias`. Do not choose it for short
    memories, or for a layer that must keep `unit_forget_bias=True`.

    >>> bias = ChronoBias(max_timescale=50, seed=1)((4 * 32,))
    >>> forget = keras.ops.sigmoid(bias[32:64])
    >>> timescale = 1 / (1 - forget)
    >>> bool(keras.ops.all(timescale > 1.99)), bool(keras.ops.all(timescale < 50.01))
    (True, True)

    Args:
        max_timescale: Longest memory in time steps, above 2.
        gates: 4 for LSTM and ConvLSTM biases of shape (4 * units,). 3 for GRU biases of shape (2, 3 * units),
            where the second row, the recurrent bias, is 0, or (3 * units,), as in `GRU(reset_after=False)`.
            None reads the number off the shape. A multiple of 12 fits both, as in an LSTM of 48 units: give
            `gates` there. `keras_initx.initialize` reads it off the layer.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If `max_timescale` is not above 2, or `gates` or `seed` is not one of the above; on a
            call, if the shape is not a bias of that many gates or fits both numbers of gates, if `dtype` is
            not a float, or if the layer has `unit_forget_bias=True`. This is Keras' default for LSTM layers,
            with which Keras fills the forget gate itself.

    Reference:
        Tallec and Ollivier, 2018, "Can recurrent neural networks warp time?",
        https://arxiv.org/abs/1804.11188 (b_f = log U(1, T - 1), b_i = -b_f). Deviation: the paper gives the
        LSTM's biases; the GRU's bias follows from the same argument.
    """

    def __init__(self, max_timescale: float = 100, gates: int | None = None, seed: Seed = None) -> None:
        super().__init__(seed)
        self.max_timescale = check_positive("max_timescale", max_timescale)
        if self.max_timescale <= 2:
            raise ValueError(
                f"`max_timescale` must be above 2. Received: max_timescale={max_timescale!r}. Set it to the "
                "number of steps that the longest dependency spans."
            )
        self.gates = _check_gates(gates)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a bias and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        seed = call_seed(self.seed, shape)

        def sample(units: int, dtype: str) -> Tensor:
            return ops.log(keras.random.uniform((units,), 1.0, self.max_timescale - 1, dtype, seed))

        return _fill_gates(shape, self.gates, sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"max_timescale": self.max_timescale, "gates": self.gates}


@keras.saving.register_keras_serializable(package=PACKAGE)
class UniformGateBias(Seeded):
    """Uniform gate initialization: the openings of the gates are uniform, so time scales have a heavy tail.

    Law: p is uniform on [1/n, 1 - 1/n], drawn for each of n units. An LSTM has b_f = log(p / (1 - p)),
    b_i = -b_f and 0 for the other gates, in Keras' order (i, f, c, o). A GRU has b_z = log(p / (1 - p)). So
    sigmoid(b_f) = p, and P(time scale > t) is about 1/t, up to n steps. A layer of one unit gets p = 1/2.

    Choose it when the span of dependencies is unknown: unlike `ChronoBias` it has nothing to tune. If the
    span is known and long, choose `ChronoBias`, because few units of this law reach it.

    >>> bias = UniformGateBias(seed=1)((4 * 1000,))
    >>> forget = keras.ops.sigmoid(bias[1000:2000])
    >>> print(f"{float(keras.ops.mean(forget)):.1f} {float(keras.ops.std(forget)) * 12**0.5:.1f}")
    0.5 1.0

    Args:
        gates: 4 for LSTM and ConvLSTM biases of shape (4 * units,). 3 for GRU biases of shape (2, 3 * units),
            where the second row, the recurrent bias, is 0, or (3 * units,), as in `GRU(reset_after=False)`.
            None reads the number off the shape. A multiple of 12 fits both, as in an LSTM of 48 units: give
            `gates` there. `keras_initx.initialize` reads it off the layer.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If `gates` or `seed` is not one of the above; on a call, if the shape is not a bias of
            that many gates or fits both numbers of gates, if `dtype` is not a float, or if the layer has
            `unit_forget_bias=True`. This is Keras' default for LSTM layers, with which Keras fills the forget
            gate itself.

    Reference:
        Gu, Gulcehre, Paine, Hoffman and Pascanu, 2020, "Improving the gating mechanism of recurrent neural
        networks", https://arxiv.org/abs/1910.09890, uniform gate initialization (b_f = -log(1/p - 1)).
        Deviations: the GRU's bias is derived from it here. The paper ties the input gate to the forget gate;
        Keras' layers do not, so b_i = -b_f takes the place of the tie.
    """

    def __init__(self, gates: int | None = None, seed: Seed = None) -> None:
        super().__init__(seed)
        self.gates = _check_gates(gates)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a bias and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        seed = call_seed(self.seed, shape)

        def sample(units: int, dtype: str) -> Tensor:
            low = 1 / max(units, 2)  # with one unit the interval would be [1, 0]
            opening = keras.random.uniform((units,), low, 1 - low, dtype, seed)
            return ops.log(opening) - ops.log1p(-opening)

        return _fill_gates(shape, self.gates, sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"gates": self.gates}


@keras.saving.register_keras_serializable(package=PACKAGE)
class IRNN(IdentityScaled):
    """The recurrent kernel of an IRNN: the identity times a gain, in a SimpleRNN of ReLUs.

    Law: W = gain * I, a square matrix. With bias 0 and no input, the state stays as it is (times gain at each
    step), and errors flow back through time unchanged. A gain below 1 forgets.

    Choose it as the `recurrent_initializer` of `SimpleRNN(units, activation="relu")` for long dependencies,
    with small input weights such as `keras.initializers.RandomNormal(stddev=0.001)`. It trains only with
    clipped gradients and small steps. Do not choose it for LSTM and GRU. Their fused kernels take
    `IdentityScaled(layout={"kind": "gates", "gates": 4})`, with 3 gates for GRU.

    >>> layer = keras.layers.SimpleRNN(4, activation="relu", recurrent_initializer="initx>IRNN")
    >>> layer.build((None, 7, 3))
    >>> bool(ops.all(layer.cell.recurrent_kernel == ops.eye(4)))
    True

    Args:
        gain: Positive value on the diagonal.
        layout: Meaning of the axes where the shape does not tell it: a kind, a dict or a
            `keras_initx.fans.Layout`. A SimpleRNN needs none.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the kernel is not square
            or does not fit the layout, or `dtype` is not a float.

    Reference:
        Le, Jaitly and Hinton, 2015, "A simple way to initialize recurrent networks of rectified linear
        units" (https://arxiv.org/abs/1504.00941).
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Builds a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        if axes.size(axes.inputs) != axes.size(axes.outputs):
            raise ValueError(
                f"`shape` must be square for IRNN. Received: shape={tuple(shape)}. Use it as the "
                "`recurrent_initializer` of a SimpleRNN; an LSTM takes "
                "IdentityScaled(layout={'kind': 'gates', 'gates': 4}), a GRU 3 gates."
            )
        return super().__call__(shape, dtype)


def _check_gates(gates: int | None) -> int | None:
    if gates is not None and gates not in (_GRU, _LSTM):
        raise ValueError(f"`gates` must be one of [3, 4] or None. Received: gates={gates!r}.")
    return None if gates is None else int(gates)


def _fill_gates(
    shape: Sequence[int], gates: int | None, sample: Callable[[int, str], Tensor], dtype: str | None
) -> Tensor:
    """Returns a bias with the values of `sample(units, dtype)` in its forget (LSTM) or update (GRU) gate."""
    shape = tuple(shape)
    _refuse_unit_forget_bias(shape)
    # Two axes hold the two biases of a GRU. Any other number of axes is checked, and refused, as an LSTM's.
    gates = gates or (count_gates(shape) if len(shape) == 1 else _GRU if len(shape) == 2 else _LSTM)
    _check_shape(shape, gates)
    if not math.prod(shape):
        return draw(lambda dtype: ops.zeros(shape, dtype), dtype)

    def fill(dtype: str) -> Tensor:
        keep = sample(shape[-1] // gates, dtype)
        rest = ops.zeros_like(keep)
        row = ops.concatenate([keep, rest, rest] if gates == _GRU else [-keep, keep, rest, rest])
        # Both rows of a GRU's bias are added to the update gate: its values must not be there twice.
        return row if len(shape) == 1 else ops.stack([row, ops.zeros_like(row)])

    return draw(fill, dtype)


def _check_shape(shape: tuple[int, ...], gates: int) -> None:
    rows = (2,) if len(shape) == 2 and gates == _GRU else ()
    if len(shape) != len(rows) + 1 or shape[-1] % gates or (rows and shape[0] not in (0, 2)):
        allowed = "(3 * units,) or (2, 3 * units)" if gates == _GRU else "(4 * units,)"
        raise ValueError(
            f"`shape` must be {allowed}, a bias of {gates} gates. Received: shape={shape}. Use it as "
            "the `bias_initializer` of a recurrent layer, with `gates=4` for LSTM and `gates=3` for GRU."
        )


def _refuse_unit_forget_bias(shape: tuple[int, ...]) -> None:
    """Raises if Keras asks for the gates of an LSTM one by one, and fills the forget gate itself."""
    # With `unit_forget_bias=True` Keras calls the initializer with the shapes (units,) and (2 * units,). If 4
    # divides them, they look like whole biases of a smaller layer, and the law would land in the wrong gates.
    # Only the caller shows the difference: it is a function `bias_initializer` within the cell's `build`.
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            return
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "bias_initializer" and module.startswith("keras."):
            raise ValueError(
                "`unit_forget_bias` must be False in a layer whose forget gate this initializer fills. "
                f"Received: unit_forget_bias=True, Keras' default (shape={shape}). "
                "Set `unit_forget_bias=False` in the LSTM or ConvLSTM layer."
            )
        frame = frame.f_back  # type: ignore[assignment]
