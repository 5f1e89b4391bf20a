"""How fast states fade and turn: eigenvalues of linear recurrent units, time steps of state-space layers."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_choice, check_positive
from keras_initx.initializers._base import PACKAGE, Seed, Seeded, call_seed, draw

# Distance of a uniform draw from 0 and 1, because the logarithms must be finite. It is exact in float32.
_MARGIN = 2.0**-23


@keras.saving.register_keras_serializable(package=PACKAGE)
class LRURing(Seeded):
    """Eigenvalues of a linear recurrent unit, uniform on a ring or a sector of the unit disk.

    Law: lambda = exp(-exp(nu_log) + i exp(theta_log)). |lambda|^2 is uniform on [r_min^2, r_max^2], the phase
    is uniform on (0, max_phase), and all are independent. So lambda is uniform by area on the ring. The two
    parameters of a layer take one initializer each.

    Choose `r_min` near 1 for long memories: a state fades in about 1 / (1 - |lambda|) steps. Choose a small
    `max_phase` for long sequences, where fast oscillations hurt. Do not choose it for layers in continuous
    time: they take `S4DReal` or `S4DLin`.

    >>> nu_log = LRURing(r_min=0.9, r_max=0.99, seed=1)((1000,))
    >>> radius = keras.ops.exp(-keras.ops.exp(nu_log))
    >>> print(f"{float(keras.ops.min(radius)):.2f} {float(keras.ops.max(radius)):.2f}")
    0.90 0.99

    Args:
        r_min: Inner radius, at least 0 and below `r_max`.
        r_max: Outer radius, at most 1.
        max_phase: Largest phase in radians, positive; 2 pi for the whole ring.
        part: The parameter to draw: `"nu_log"` for the radius, `"theta_log"` for the phase.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call. The two parts may
            share one int: their draws are independent.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De, 2023, "Resurrecting recurrent neural networks
        for long sequences", https://arxiv.org/abs/2303.06349
        (nu_log = log(-log(u (r_max^2 - r_min^2) + r_min^2) / 2), theta_log = log(max_phase u')). Deviation:
        draws keep 2^-23 away from 0 and 1, where the logarithms are infinite.
    """

    def __init__(
        self,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        part: str = "nu_log",
        seed: Seed = None,
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

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws the parameter as a tensor of this shape and float dtype (None: Keras' floatx)."""
        # The label keeps the parts independent if they share an int seed.
        seed = call_seed(self.seed, shape, self.part)

        def sample(dtype: str) -> Tensor:
            uniform = keras.random.uniform(tuple(shape), _MARGIN, 1 - _MARGIN, dtype, seed)
            if self.part == "theta_log":
                return math.log(self.max_phase) + ops.log(uniform)
            return ops.log(-0.5 * self._log_square(uniform))

        return draw(sample, dtype)

    def _log_square(self, uniform: Tensor) -> Tensor:
        """Returns log |lambda|^2 for draws from (0, 1)."""
        inner = (self.r_min / self.r_max) ** 2
        square = inner + (1 - inner) * uniform
        # In a narrow ring at radius 1 a square may round to 1. Its logarithm is 0, and the logarithm of that
        # is infinite. log1p of the distance from 1 stays exact there.
        near_one = ops.log1p(-(1 - inner) * (1 - uniform))
        return 2 * math.log(self.r_max) + ops.where(square < 0.5, ops.log(square), near_one)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"r_min": self.r_min, "r_max": self.r_max, "max_phase": self.max_phase, "part": self.part}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package=PACKAGE)
class TimeStepBias(Seeded):
    """Time steps of state-space layers, log-uniform between two bounds, as the parameter that gives them.

    Law: log dt is uniform on [log dt_min, log dt_max]. The parameter is log dt, or log(exp(dt) - 1) for
    layers with the step softplus(projection + bias): this is the inverse of softplus. A feature with step dt
    remembers about 1 / dt samples, so all time scales between the bounds are equally common.

    Choose `"inverse_softplus"` for Mamba's projection and `"log"` for S4 and S4D. Do not choose it for
    discrete recurrences (`LRURing`), which have no time step. Mamba's floor of 1e-4 lies below the default
    `dt_min`, so it has no effect.

    >>> bias = TimeStepBias(seed=1)((1000,))
    >>> step = keras.ops.softplus(bias)
    >>> bool(keras.ops.all(step > 0.999e-3)), bool(keras.ops.all(step < 0.1001))
    (True, True)

    Args:
        dt_min: Smallest step, positive, in the layer's units of time.
        dt_max: Largest step, above `dt_min`.
        transform: The parameter to return: `"inverse_softplus"` or `"log"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Gu, Goel and Re, 2022, "Efficiently modeling long sequences with structured state spaces",
        https://arxiv.org/abs/2111.00396 (log dt); Gu and Dao, 2023, "Mamba",
        https://arxiv.org/abs/2312.00752 (inverse softplus, dt + log(-expm1(-dt))).
    """

    def __init__(
        self,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        transform: str = "inverse_softplus",
        seed: Seed = None,
    ) -> None:
        super().__init__(seed)
        self.dt_min, self.dt_max = check_positive("dt_min", dt_min), check_positive("dt_max", dt_max)
        if self.dt_min >= self.dt_max:
            raise ValueError(
                f"`dt_min` must be below `dt_max`. Received: dt_min={dt_min}, dt_max={dt_max}. "
                "Lower `dt_min`, or raise `dt_max`."
            )
        self.transform = check_choice("transform", transform, ("inverse_softplus", "log"))

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws the parameter as a tensor of this shape and float dtype (None: Keras' floatx)."""
        seed, low, high = call_seed(self.seed, shape), math.log(self.dt_min), math.log(self.dt_max)

        def sample(dtype: str) -> Tensor:
            log_step = keras.random.uniform(tuple(shape), low, high, dtype, seed)
            if self.transform == "log":
                return log_step
            step = ops.exp(log_step)
            # log(exp(dt) - 1), in the form that loses no digits where dt is small.
            return step + ops.log(-ops.expm1(-step))

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"dt_min": self.dt_min, "dt_max": self.dt_max, "transform": self.transform}
        return super().get_config() | own
