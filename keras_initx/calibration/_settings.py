"""The settings of one call of `calibrate`."""

import contextlib
import dataclasses
import math
import numbers

import numpy as np

from keras_initx._types import Patterns
from keras_initx.state import seeded

__all__ = ["Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keyword arguments of `calibrate` that do not hold data, checked.

    Attributes:
        include: Patterns of the kernels to calibrate; None for all.
        exclude: Patterns of the kernels to leave as they are; None for none.
        samples: Rows of data to measure on.
        training: Whether the model runs as in training.
        frozen: Whether to calibrate kernels that are not trainable.
        redraw: Whether the law draws its kernels before it measures.
        tolerance: Largest relative error of a scale that passes have to find.
        max_iterations: Largest number of passes.
        seed: Seed of all draws; None for the seeds of the laws.

    Raises:
        ValueError: If an attribute has a value that is not allowed.
    """

    include: Patterns | None = None
    exclude: Patterns | None = None
    samples: int = 256
    training: bool = False
    frozen: bool = False
    redraw: bool = False
    tolerance: float = 0.1
    max_iterations: int = 10
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("training", "redraw", "frozen"):
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")
        seed, tolerance, most = self.seed, self.tolerance, self.max_iterations
        if seed is not None and (not isinstance(seed, numbers.Integral) or seed < 0):
            raise ValueError(f"`seed` must be None or an int of at least 0. Received: seed={seed!r}.")
        if not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
            raise ValueError(f"`tolerance` must be a positive number. Received: tolerance={tolerance!r}.")
        if not isinstance(most, numbers.Integral) or isinstance(most, bool) or most < 1:
            raise ValueError(
                f"`max_iterations` must be an int of at least 1. Received: max_iterations={most!r}."
            )

    def keep_generators(self) -> contextlib.AbstractContextManager[None]:
        """Returns a scope that leaves the global random generators as they were.

        Keras takes a number from Python's generator for each initializer without a seed. A call that must
        not depend on these numbers must not move the generator either. A redraw without a seed does depend
        on them: `keras.utils.set_random_seed` rules it.
        """
        if self.redraw and self.seed is None:
            return contextlib.nullcontext()
        return seeded((self.seed or 0) % 2**31)
