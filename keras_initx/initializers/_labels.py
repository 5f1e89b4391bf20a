"""What targets are: classes, zeros and ones, or numbers."""

import numpy as np

from keras_initx.checks import check_choice
from keras_initx.initializers._law import Law

__all__ = ["FORMS", "Labelled", "check_numbers", "is_one_hot", "tell_form"]

FORMS = ("binary", "categorical", "numeric")


class Labelled(Law):
    """Base of the laws that read targets: as classes, as zeros and ones, or as numbers.

    Args:
        form: Form of the targets, one of `FORMS`. None decides by the activation, then by the targets.
    """

    def __init__(self, form: str | None = None) -> None:
        self.form = None if form is None else check_choice("form", form, FORMS)

    def form_of(self, targets: np.ndarray, units: int, activation: str | None = None) -> str:
        """Returns the form in which targets are read: `"binary"`, `"categorical"` or `"numeric"`.

        Args:
            targets: The targets of one head.
            units: Units of the head.
            activation: Name of the activation after the head, or None.
        """
        return self.form or tell_form(np.asarray(targets), units, activation)


def check_numbers(targets: np.ndarray) -> np.ndarray:
    """Returns targets; raises ValueError unless they are numbers or bools."""
    if targets.dtype.kind not in "biuf":
        raise ValueError(
            f"`targets` must be numbers. Received: targets of shape {targets.shape}, dtype {targets.dtype}. "
            "Number the classes: names, targets = numpy.unique(targets, return_inverse=True)."
        )
    return targets


def tell_form(targets: np.ndarray, units: int, activation: str | None) -> str:
    """Returns what labels are: `categorical`, `binary` or `numeric`.

    Args:
        targets: The labels.
        units: Number of the head's units.
        activation: The activation of the head, which decides if it is softmax or sigmoid.
    """
    if activation in ("softmax", "sigmoid"):
        return {"softmax": "categorical", "sigmoid": "binary"}[activation]
    numbers = targets.dtype.kind in "iuf" and targets.shape[-1:] != (units,)
    numbers = numbers and bool((targets == np.floor(targets)).all())
    if units > 1 and (numbers or is_one_hot(targets, units)):
        return "categorical"
    return "binary" if np.isin(targets, (0, 1)).all() else "numeric"


def is_one_hot(targets: np.ndarray, units: int) -> bool:
    """Whether the last axis of targets has a one for one of the units, and zeros else."""
    rows = targets.ndim > 1 and targets.shape[-1] == units
    return rows and bool(np.isin(targets, (0, 1)).all() and (targets.sum(axis=-1) == 1).all())
