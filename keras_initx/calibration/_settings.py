"""The settings of one call of `calibrate`."""

import contextlib
import dataclasses

from keras_initx._types import Patterns
from keras_initx.checks import check_count, check_positive, check_seed, check_switch
from keras_initx.state import seeded

__all__ = ["Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keyword arguments of `calibrate` that do not hold data, checked.

    Attributes:
        include: Patterns of the kernels to calibrate; None for all.
        exclude: Patterns of the kernels to leave as they are; None for none.
        samples: Rows of data to measure on; None for 256, or for all rows if the laws make heads.
        training: Whether the model runs as in training.
        frozen: Whether to calibrate kernels that are not trainable.
        redraw: Whether the law draws its kernels before it measures.
        tolerance: Largest relative error of a scale that passes have to find.
        max_iterations: Largest number of passes, and of loops over a recurrent layer in each pass.
        seed: Seed of all draws; None for the seeds of the laws.

    Raises:
        ValueError: If an attribute has a value that is not allowed.
    """

    include: Patterns | None = None
    exclude: Patterns | None = None
    samples: int | None = None
    training: bool = False
    frozen: bool = False
    redraw: bool = False
    tolerance: float = 0.1
    max_iterations: int = 10
    seed: int | None = None

    def __post_init__(self) -> None:
        # `include`, `exclude` and `samples` are checked where the model and the data are at hand.
        for name in ("training", "frozen", "redraw"):
            check_switch(name, getattr(self, name))
        check_seed(self.seed)
        check_positive("tolerance", self.tolerance)
        check_count("max_iterations", self.max_iterations)

    def keep_generators(self) -> contextlib.AbstractContextManager[None]:
        """Returns a scope that leaves the global random generators as they were.

        Keras takes a number from Python's generator for each initializer without a seed. A call that must
        not depend on these numbers must not move the generator either. A redraw without a seed does depend
        on them: `keras.utils.set_random_seed` rules it.
        """
        if self.redraw and self.seed is None:
            return contextlib.nullcontext()
        return seeded((self.seed or 0) % 2**31)
