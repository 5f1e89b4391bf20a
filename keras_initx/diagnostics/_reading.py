"""`Reading`: the statistics of one kernel in one pass."""

import dataclasses

import numpy as np

__all__ = ["Reading", "reading_of"]


@dataclasses.dataclass(frozen=True)
class Reading:
    """The statistics of one kernel in one pass: means over the calls of its layer, None if they do not apply.

    Attributes:
        input_square: Second moment of the kernel's input. None for integers.
        input_agreement: Mean cosine between two rows of the input, for the first kernels only.
        signal: Mean, second moment and non-finite fraction of the pre-activation.
        own: The same three for a head's pre-activation without its bias, which may be a prior. None for other
            kernels.
        agreement: Mean cosine between the pre-activations of two rows. A head's bias is left out.
        activation: Mean, second moment and non-finite fraction of the activation.
        dead: Fraction of units with an activation of 0 on all rows.
        saturated: Fraction of the activation near a bound.
        input_gradient: Length of the gradient of the loss with respect to the input.
        gradient: Length of the gradient of the loss with respect to the pre-activation.
    """

    input_square: float | None = None
    input_agreement: float | None = None
    signal: tuple[float, ...] | None = None
    own: tuple[float, ...] | None = None
    agreement: float | None = None
    activation: tuple[float, ...] | None = None
    dead: float | None = None
    saturated: float | None = None
    input_gradient: float | None = None
    gradient: float | None = None


def reading_of(
    found: dict[str, list[np.ndarray]], input_gradient: float | None, gradient: float | None
) -> Reading:
    """Returns the means over the calls of a layer. The taps have summed the gradients over the calls."""
    mean = {name: np.mean(values, axis=0, dtype="float64") for name, values in found.items()}

    def number(name: str) -> float | None:
        return float(mean[name]) if name in mean else None

    def moments(name: str) -> tuple[float, ...] | None:
        return tuple(map(float, mean[name])) if name in mean else None

    return Reading(
        input_square=number("inputs"),
        input_agreement=number("input_agreement"),
        signal=moments("signal"),
        own=moments("own"),
        agreement=number("agreement"),
        activation=moments("activation"),
        dead=number("dead"),
        saturated=number("saturated"),
        input_gradient=input_gradient if "inputs" in mean else None,
        gradient=gradient if "signal" in mean else None,
    )
