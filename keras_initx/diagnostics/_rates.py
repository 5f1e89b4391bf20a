"""The search for a learning rate: the cure of a step that is too long."""

import math
from collections.abc import Sequence

from keras_initx.diagnostics._exam import Exam, Examined
from keras_initx.diagnostics._updates import Step, current_rate

__all__ = ["find_rate", "set_rate"]

# Share of the promised fall that a step of the named rate keeps. A verdict is raised below a fifth, so the
# named rate has some distance from the next verdict.
_KEPT = 0.5
_ROUNDS = 12  # four powers of ten


def set_rate(rate: float) -> str:
    """Returns the code that sets a learning rate.

    >>> set_rate(0.002)
    'model.optimizer.learning_rate = 0.002'
    """
    return f"model.optimizer.learning_rate = {rate:g}"


def find_rate(exam: Exam, found: Examined, search: bool = True) -> float | None:
    """Finds a smaller learning rate with a step that is not too long, among 1, 2 and 5 times powers of ten.

    The first guess comes from the update ratios alone, which are about linear in the rate. A round number of
    that size or below is tried, then the next smaller, and so on. Each try takes one step on copies and
    measures the loss after it.

    Args:
        exam: The model with everything that an examination needs.
        found: Its last examination.
        search: Whether to try rates. If False, the first guess is returned.

    Returns:
        The rate; None if there is no step, or no rate that was tried is short enough.
    """
    step = found.step
    rate, _ = current_rate(exam.model)
    if step is None or not 0 < rate < math.inf:
        return None
    kernels = {id(site.kernel) for site in exam.sites}
    largest = max(_ratios(step, kernels), default=0.0)
    # A step of a tenth of the kernel is the guess where ratios are above 1. Below, they tell no more.
    rate = _below(rate / (10 * largest) if 1 < largest < math.inf else rate)
    if not search:
        return rate
    for _ in range(_ROUNDS):
        tried = exam.step(found.loss, found.gradients, rate)
        short = tried is not None and max(_ratios(tried, kernels), default=0.0) <= 1
        if tried is not None and short and (tried.kept is None or tried.kept >= _KEPT):
            return rate
        rate = _below(rate)
    return None


def _ratios(step: Step, kernels: set[int]) -> Sequence[float]:
    """The update ratios of kernels. A bias near zero changes by many times its size, and does no harm."""
    return [ratio for key, ratio in step.ratios.items() if key in kernels]


def _below(rate: float) -> float:
    """Returns the next smaller number among 1, 2 and 5 times the powers of ten.

    >>> [_below(rate) for rate in (1.0, 0.5, 0.03)]
    [0.5, 0.2, 0.02]
    """
    power = math.floor(math.log10(rate)) - 1
    # Written as text and read again: 2 * 10**-3 is not always the float that prints as 0.002.
    steps = [float(f"{digit}e{power + more}") for more in (0, 1) for digit in (1, 2, 5)]
    return max(step for step in steps if step < rate * (1 - 1e-6))
