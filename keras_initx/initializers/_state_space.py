"""Structural parameters of state-space layers: state matrices, eigenvalues and time steps."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.initializers._base import (
    PACKAGE,
    Seeded,
    Shown,
    call_seed,
    check_choice,
    check_positive,
    draw,
    spread,
)

# Distance of a uniform draw from 0 and 1, whose logarithms must be finite; exact in float32.
_MARGIN = 2.0**-23


@keras.saving.register_keras_serializable(package=PACKAGE)
class HiPPO(Shown):
    """The HiPPO-LegS state matrix, whose state holds the Legendre coefficients of the input's history.

    Law: A[n, k] = -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on it and 0 above, with n and k from
    0: the stable form, whose eigenvalues are -1, ..., -N. With `HiPPOInput` for B, x' = (A x + B u) / t
    projects all of the input on Legendre polynomials. Choose it for dense state-space layers that must
    remember long inputs. For diagonal ones choose `S4DReal`, `S4DLin` or `LRURing`; in float16 its entries
    are only as exact as numbers of size 2N are. It draws nothing.

    >>> matrix = HiPPO()((4, 4))
    >>> print([float(entry) for entry in keras.ops.diagonal(matrix)])
    [-1.0, -2.0, -3.0, -4.0]

    Raises:
        ValueError: On a call, if the last two axes of the shape differ or `dtype` is not a float.

    Reference:
        Gu, Dao, Ermon, Rudra and Re, 2020, "HiPPO: Recurrent memory with optimal polynomial projections",
        https://arxiv.org/abs/2008.07669 (LegS). The paper writes the matrix with the opposite sign.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a matrix, the same in all leading axes, of the given shape and float dtype."""
        shape = tuple(shape)
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(
                f"`shape` must end with two equal axes (states, states). Received: shape={shape}. For the "
                "input vector B use `HiPPOInput`."
            )

        def fill(dtype: str) -> Any:
            order = ops.arange(shape[-1], dtype=dtype)
            root = ops.sqrt(2 * order + 1)
            below = ops.tril(root[:, None] * root[None, :], k=-1)
            matrix = -(below + ops.eye(shape[-1], dtype=dtype) * (order + 1))
            return spread(matrix, shape)

        return draw(fill, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class HiPPOInput(Shown):
    """The HiPPO-LegS input vector, the B that belongs to the matrix of `HiPPO`.

    Law: B[n] = sqrt(2n + 1) along the last axis, n from 0. Choose it together with `HiPPO`; with another
    state matrix it has no meaning. It draws nothing.

    >>> print([round(float(entry) ** 2) for entry in HiPPOInput()((4,))])
    [1, 3, 5, 7]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Dao, Ermon, Rudra and Re, 2020, "HiPPO: Recurrent memory with optimal polynomial projections",
        https://arxiv.org/abs/2008.07669 (LegS).
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a vector, the same in all leading axes, of the given shape and float dtype."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(ops.sqrt(2 * ops.arange(shape[-1], dtype=dtype) + 1), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class S4DReal(Shown):
    """The real diagonal state matrix of S4D-Real and Mamba, as the logarithm of its negative.

    Law: A_log[n] = log(n + 1) along the last axis, n from 0, for layers that use A = -exp(A_log): the
    eigenvalues are -1, ..., -N, those of `HiPPO`. Choose it for Mamba and other selective layers, with
    `TimeStepBias` for the time step. For layers with complex states, which can oscillate, choose `S4DLin`.
    It draws nothing.

    >>> print([round(-float(entry)) for entry in keras.ops.exp(S4DReal()((2, 4))[0])])
    [-1, -2, -3, -4]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Gupta, Goel and Re, 2022, "On the parameterization and initialization of diagonal state space
        models", https://arxiv.org/abs/2206.11893 (S4D-Real: A_n = -(n + 1)); as `A_log` in Gu and Dao, 2023,
        "Mamba", https://arxiv.org/abs/2312.00752.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a vector, the same in all leading axes, of the given shape and float dtype."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(ops.log(ops.arange(1, shape[-1] + 1, dtype=dtype)), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class S4DLin(Shown):
    """The imaginary parts of the diagonal state matrix of S4D-Lin.

    Law: Im A[n] = pi * n along the last axis, n from 0: one of each conjugate pair, at evenly spaced
    frequencies. The real parts are -1/2, which a layer that stores log(-Re A) gets from
    `ConstantFill(math.log(0.5))`. Choose it for diagonal state-space layers with complex states. For real
    states choose `S4DReal`. It draws nothing.

    >>> print([round(float(entry) / 3.14159, 3) for entry in S4DLin()((4,))])
    [0.0, 1.0, 2.0, 3.0]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Gupta, Goel and Re, 2022, "On the parameterization and initialization of diagonal state space
        models", https://arxiv.org/abs/2206.11893 (S4D-Lin: A_n = -1/2 + i pi n).
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a vector, the same in all leading axes, of the given shape and float dtype."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(math.pi * ops.arange(shape[-1], dtype=dtype), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class LRURing(Seeded):
    """Eigenvalues of a linear recurrent unit, uniform on a ring or a sector of the unit disk.

    Law: with lambda = exp(-exp(nu_log) + i exp(theta_log)), |lambda|^2 is uniform on [r_min^2, r_max^2] and
    the phase on (0, max_phase), all independent; so lambda is uniform by area on the ring. The two
    parameters of a layer take one initializer each. Choose `r_min` near 1 for long memories (a state fades in
    about 1 / (1 - |lambda|) steps) and a small `max_phase` for long sequences, where fast oscillations hurt.
    It is not for layers in continuous time; those take `S4DReal` or `S4DLin`.

    >>> nu_log = LRURing(r_min=0.9, r_max=0.99, seed=1)((1000,))
    >>> radius = keras.ops.exp(-keras.ops.exp(nu_log))
    >>> print(f"{float(keras.ops.min(radius)):.2f} {float(keras.ops.max(radius)):.2f}")
    0.90 0.99

    Args:
        r_min: Inner radius, at least 0 and below `r_max`.
        r_max: Outer radius, at most 1.
        max_phase: Largest phase in radians; 2 pi for the whole ring.
        part: `"nu_log"` for the radius' parameter, `"theta_log"` for the phase's.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`. The two parts may share one int: their draws are independent.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De, 2023, "Resurrecting recurrent neural networks
        for long sequences", https://arxiv.org/abs/2303.06349
        (nu_log = log(-log(u (r_max^2 - r_min^2) + r_min^2) / 2), theta_log = log(max_phase u')). Draws keep
        2^-23 away from 0 and 1, where the logarithms are infinite.
    """

    def __init__(
        self,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        part: str = "nu_log",
        seed: Any = None,
    ) -> None:
        super().__init__(seed)
        numeric = all(isinstance(r, numbers.Real) and not isinstance(r, bool) for r in (r_min, r_max))
        if not numeric or not 0 <= float(r_min) < float(r_max) <= 1:
            raise ValueError(
                "`r_min` and `r_max` must be numbers with 0 <= r_min < r_max <= 1. Received: "
                f"r_min={r_min!r}, r_max={r_max!r}. Radii above 1 would make the state grow without bound."
            )
        self.r_min, self.r_max = float(r_min), float(r_max)
        self.max_phase = check_positive("max_phase", max_phase)
        self.part = check_choice("part", part, ("nu_log", "theta_log"))

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws the parameter of the given shape and float dtype (Keras' floatx when None)."""
        seed = call_seed(self.seed, shape, self.part)

        def sample(dtype: str) -> Any:
            uniform = keras.random.uniform(tuple(shape), _MARGIN, 1 - _MARGIN, dtype, seed)
            if self.part == "theta_log":
                return math.log(self.max_phase) + ops.log(uniform)
            return ops.log(-0.5 * self._log_square(uniform))

        return draw(sample, dtype)

    def _log_square(self, uniform: Any) -> Any:
        """Returns log |lambda|^2 for draws from (0, 1)."""
        inner = (self.r_min / self.r_max) ** 2
        square = inner + (1 - inner) * uniform
        # A narrow ring at radius 1 has squares that round to 1, whose logarithm 0 has no logarithm itself.
        near_one = ops.log1p(-(1 - inner) * (1 - uniform))
        return 2 * math.log(self.r_max) + ops.where(square < 0.5, ops.log(square), near_one)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"r_min": self.r_min, "r_max": self.r_max, "max_phase": self.max_phase, "part": self.part}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package=PACKAGE)
class TimeStepBias(Seeded):
    """Time steps of state-space layers, log-uniform between two bounds, as the parameter that gives them.

    Law: log dt is uniform on [log dt_min, log dt_max]; the parameter is log dt, or log(exp(dt) - 1), the
    inverse of softplus, for layers whose step is softplus(projection + bias). A feature with step dt
    remembers about 1 / dt samples, so that all time scales between the bounds are equally common. Choose
    `"inverse_softplus"` for Mamba's projection and `"log"` for S4 and S4D. Discrete recurrences (`LRURing`)
    have no time step. Mamba's floor of 1e-4 is below the default `dt_min` and so never acts.

    >>> bias = TimeStepBias(seed=1)((1000,))
    >>> step = keras.ops.softplus(bias)
    >>> bool(keras.ops.all(step > 0.999e-3)), bool(keras.ops.all(step < 0.1001))
    (True, True)

    Args:
        dt_min: Smallest step, positive.
        dt_max: Largest step, above `dt_min`.
        transform: `"inverse_softplus"` or `"log"`.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Gu, Goel and Re, 2022, "Efficiently modeling long sequences with structured state spaces",
        https://arxiv.org/abs/2111.00396 (log dt); Gu and Dao, 2023, "Mamba",
        https://arxiv.org/abs/2312.00752 (inverse softplus, dt + log(-expm1(-dt))).
    """

    def __init__(
        self, dt_min: float = 1e-3, dt_max: float = 0.1, transform: str = "inverse_softplus", seed: Any = None
    ) -> None:
        super().__init__(seed)
        self.dt_min, self.dt_max = check_positive("dt_min", dt_min), check_positive("dt_max", dt_max)
        if self.dt_min >= self.dt_max:
            raise ValueError(f"`dt_min` must be below `dt_max`. Received: dt_min={dt_min}, dt_max={dt_max}.")
        self.transform = check_choice("transform", transform, ("inverse_softplus", "log"))

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws the parameter of the given shape and float dtype (Keras' floatx when None)."""
        seed, low, high = call_seed(self.seed, shape), math.log(self.dt_min), math.log(self.dt_max)

        def sample(dtype: str) -> Any:
            log_step = keras.random.uniform(tuple(shape), low, high, dtype, seed)
            if self.transform == "log":
                return log_step
            step = ops.exp(log_step)
            return step + ops.log(-ops.expm1(-step))

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"dt_min": self.dt_min, "dt_max": self.dt_max, "transform": self.transform}
        return super().get_config() | own


def _check_states(shape: Sequence[int]) -> tuple[int, ...]:
    if not shape:
        raise ValueError("`shape` must end with an axis of states. Received: shape=(). Give it one axis.")
    return tuple(shape)
