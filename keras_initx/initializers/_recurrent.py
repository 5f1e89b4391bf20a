"""Recurrent layers: how long a unit remembers before it has learned anything."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.initializers._base import PACKAGE, Seeded, call_seed, check_positive, draw
from keras_initx.initializers._gates import count_gates
from keras_initx.initializers._identity import IdentityScaled, split_matrix

_LSTM, _GRU = 4, 3
# From an initializer's `__call__` to Keras' closure are two frames; the rest is room for wrappers.
_FRAMES = 6


@keras.saving.register_keras_serializable(package=PACKAGE)
class ChronoBias(Seeded):
    """Chrono initialization of gate biases: units forget at time scales from 1 to `max_timescale` steps.

    Law: with u uniform on [1, max_timescale - 1], drawn per unit, an LSTM has b_f = log u, b_i = -log u and
    0 for the other gates, in Keras' order (i, f, c, o). A forget gate sigmoid(log u) = u / (1 + u) keeps a
    memory for about 1 + u steps when the inputs are centred, so that the units' time scales are uniform on
    [2, max_timescale]. In a GRU, whose update gate keeps the old state in Keras, b_z = log u, which ties the
    input gate 1 - z by itself. Choose it when dependencies span a known number of steps, with
    `max_timescale` near that number or the sequence's length. Do not choose it for short memories, or where
    `unit_forget_bias` has to stay on.

    >>> bias = ChronoBias(max_timescale=50, seed=1)((4 * 32,))
    >>> forget = keras.ops.sigmoid(bias[32:64])
    >>> timescale = 1 / (1 - forget)
    >>> bool(keras.ops.all(timescale > 1.99)), bool(keras.ops.all(timescale < 50.01))
    (True, True)

    Args:
        max_timescale: Longest memory in steps, above 2.
        gates: 4 for LSTM and ConvLSTM biases of shape (4 * units,), 3 for GRU biases of shape (2, 3 * units),
            whose second row, the recurrent bias, is 0, or (3 * units,), as `GRU(reset_after=False)` has them;
            None to read them off the shape. A multiple of 12 does not tell, as in an LSTM of 48 units: give
            `gates` there. `keras_initx.initialize` reads them off the layer.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: If `max_timescale` is not above 2, or `gates` or `seed` not one of the above; on a call,
            if the shape is no bias of that many gates or does not tell them, or the layer has
            `unit_forget_bias=True`, Keras' default for LSTM layers, which fills the forget gate itself.

    Reference:
        Tallec and Ollivier, 2018, "Can recurrent neural networks warp time?",
        https://arxiv.org/abs/1804.11188 (b_f = log U(1, T - 1), b_i = -b_f). The paper states it
        for the LSTM; the GRU's bias follows from the same argument.
    """

    def __init__(self, max_timescale: float = 100, gates: int | None = None, seed: Any = None) -> None:
        super().__init__(seed)
        self.max_timescale = check_positive("max_timescale", max_timescale)
        if self.max_timescale <= 2:
            raise ValueError(
                f"`max_timescale` must be above 2. Received: max_timescale={max_timescale!r}. Set it to the "
                "number of steps that the longest dependency spans."
            )
        self.gates = _check_gates(gates)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a bias of the given shape and float dtype (Keras' floatx when None)."""
        seed = call_seed(self.seed, shape)

        def sample(units: int, dtype: str) -> Any:
            return ops.log(keras.random.uniform((units,), 1.0, self.max_timescale - 1, dtype, seed))

        return _fill_gates(shape, self.gates, sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"max_timescale": self.max_timescale, "gates": self.gates}


@keras.saving.register_keras_serializable(package=PACKAGE)
class UniformGateBias(Seeded):
    """Uniform gate initialization: the gates' openings are uniform, so that time scales have a heavy tail.

    Law: with p uniform on [1/n, 1 - 1/n], n the number of units and p drawn per unit, an LSTM has
    b_f = log(p / (1 - p)), b_i = -b_f and 0 for the other gates, in Keras' order (i, f, c, o); a GRU has
    b_z = log(p / (1 - p)). So sigmoid(b_f) = p, and P(time scale > t) is about 1/t, up to n steps. Choose it
    when the span of dependencies is unknown: unlike `ChronoBias` it has nothing to tune. Where the span is
    known and long, few of its units reach it. Layers of one unit get p = 1/2.

    >>> bias = UniformGateBias(seed=1)((4 * 1000,))
    >>> forget = keras.ops.sigmoid(bias[1000:2000])
    >>> print(f"{float(keras.ops.mean(forget)):.1f} {float(keras.ops.std(forget)) * 12**0.5:.1f}")
    0.5 1.0

    Args:
        gates: 4 for LSTM and ConvLSTM biases of shape (4 * units,), 3 for GRU biases of shape (2, 3 * units),
            whose second row, the recurrent bias, is 0, or (3 * units,), as `GRU(reset_after=False)` has them;
            None to read them off the shape. A multiple of 12 does not tell, as in an LSTM of 48 units: give
            `gates` there. `keras_initx.initialize` reads them off the layer.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: If `gates` or `seed` is not one of the above; on a call, if the shape is no bias of that
            many gates or does not tell them, or the layer has `unit_forget_bias=True`, Keras' default for
            LSTM layers, which fills the forget gate itself.

    Reference:
        Gu, Gulcehre, Paine, Hoffman and Pascanu, 2020, "Improving the gating mechanism of recurrent neural
        networks", https://arxiv.org/abs/1910.09890, uniform gate initialization (b_f = -log(1/p - 1)); the
        GRU's bias is derived from it here. The paper ties the input gate to the forget gate; Keras' layers do
        not, so that b_i = -b_f stands in for the tie.
    """

    def __init__(self, gates: int | None = None, seed: Any = None) -> None:
        super().__init__(seed)
        self.gates = _check_gates(gates)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a bias of the given shape and float dtype (Keras' floatx when None)."""
        seed = call_seed(self.seed, shape)

        def sample(units: int, dtype: str) -> Any:
            low = 1 / max(units, 2)
            opening = keras.random.uniform((units,), low, 1 - low, dtype, seed)
            return ops.log(opening) - ops.log1p(-opening)

        return _fill_gates(shape, self.gates, sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"gates": self.gates}


@keras.saving.register_keras_serializable(package=PACKAGE)
class IRNN(IdentityScaled):
    """The recurrent kernel of an IRNN: the identity times a gain, in a SimpleRNN of ReLUs.

    Law: W = gain * I, a square matrix. With bias 0 and no input the state stays as it is (times gain at each
    step), and errors flow back through time unchanged. Choose it as `recurrent_initializer` of
    `SimpleRNN(units, activation="relu")` for long dependencies, with small input weights, such as
    `keras.initializers.RandomNormal(stddev=0.001)`; gains below 1 forget. It trains only with clipped
    gradients and small steps. The fused kernel of an LSTM takes
    `IdentityScaled(layout={"kind": "gates", "gates": 4})`, that of a GRU 3 gates.

    >>> layer = keras.layers.SimpleRNN(4, activation="relu", recurrent_initializer="initx>IRNN")
    >>> layer.build((None, 7, 3))
    >>> bool(ops.all(layer.cell.recurrent_kernel == ops.eye(4)))
    True

    Args:
        gain: Positive value on the diagonal.
        layout: As in `IdentityScaled`.
        input_axes: As in `IdentityScaled`.
        output_axes: As in `IdentityScaled`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the kernel is not square.

    Reference:
        Le, Jaitly and Hinton, 2015, "A simple way to initialize recurrent networks of rectified linear
        units" (https://arxiv.org/abs/1504.00941).
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Builds a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        if axes.size(axes.inputs) != axes.size(axes.outputs):
            raise ValueError(
                f"`shape` must be square for IRNN. Received: shape={tuple(shape)}. Use it as the "
                "`recurrent_initializer` of a SimpleRNN; an LSTM takes "
                "IdentityScaled(layout={'kind': 'gates', 'gates': 4}), a GRU 3 gates."
            )
        return super().__call__(shape, dtype)


def _check_gates(gates: Any) -> int | None:
    if gates is not None and gates not in (_GRU, _LSTM):
        raise ValueError(f"`gates` must be one of [3, 4] or None. Received: gates={gates!r}.")
    return None if gates is None else int(gates)


def _fill_gates(
    shape: Sequence[int], gates: int | None, sample: Callable[[int, str], Any], dtype: Any
) -> Any:
    """Returns a bias whose forget (LSTM) or update (GRU) gate has the values of `sample(units, dtype)`."""
    shape = tuple(shape)
    _refuse_unit_forget_bias(shape)
    gates = gates or (count_gates(shape) if len(shape) == 1 else _GRU if len(shape) == 2 else _LSTM)
    _check_shape(shape, gates)
    if not math.prod(shape):
        return draw(lambda dtype: ops.zeros(shape, dtype), dtype)

    def fill(dtype: str) -> Any:
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
            f"`shape` must be that of a bias of {gates} gates, {allowed}. Received: shape={shape}. Use it as "
            "the `bias_initializer` of a recurrent layer, with `gates=4` for LSTM and `gates=3` for GRU."
        )


def _refuse_unit_forget_bias(shape: tuple[int, ...]) -> None:
    """Raises if Keras asks for the gates of an LSTM apart, with ones of its own for the forget gate."""
    # With `unit_forget_bias=True` Keras calls for shapes (units,) and (2 * units,), which look like whole
    # biases of a smaller layer when 4 divides them. Only the caller, a closure in the cell's `build`, tells.
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
