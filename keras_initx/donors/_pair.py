"""`Pair`: a weight and its counterpart, and the properties that both share."""

import dataclasses
import re
from collections.abc import Hashable, Sequence
from typing import TypeAlias

from keras_initx.tables import listed
from keras_initx.walk import KernelSite, Weight

__all__ = ["Pair", "Place", "field_of", "fields_of", "is_head", "paths_of", "structure", "told"]

# A weight of either kind: a kernel or scale, or a bias, statistic or other vector.
Place: TypeAlias = KernelSite | Weight
_FIELDS = ("conv", "depthwise", "transposed")  # kernels whose first axes are a receptive field


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A weight of the model, and its counterpart in the donor.

    Attributes:
        own: The weight of the model.
        donor: The weight of the donor; None if there is none.
        reason: Why there is none.
        added: Whether the donor has none, and the user did not ask for it.
        deeper: Whether it is in a block that the donor does not have, of blocks that repeat.
    """

    own: Place
    donor: Place | None
    reason: str = ""
    added: bool = False
    deeper: bool = False


def structure(w: Place) -> tuple[Hashable, ...]:
    """Returns the properties that a weight shares with its counterpart of another width or field."""
    # Tables that also make the logits are tables.
    flat = "Embedding" if w.role == "embedding" else re.sub(r"\dD", "", type(w.layer).__name__)
    return w.role, flat, "" if field_of(w) else len(w.kernel.shape)


def fields_of(w: Place) -> int:
    """Returns the number of axes of a kernel that are a receptive field."""
    held = w.layout is not None and w.layout.kind in _FIELDS and w.role != "bias"
    return len(w.kernel.shape) - 2 if held else 0


def field_of(w: Place) -> tuple[int, ...]:
    """Returns the receptive field of a kernel, over its last two axes at most."""
    return tuple(w.kernel.shape[: fields_of(w)])[-2:]


def is_head(w: Place) -> bool:
    """Returns whether a kernel makes the model's output, and not as the end of a block."""
    return isinstance(w, KernelSite) and w.is_output and w.branch is None


def told(w: Place) -> str:
    """Returns a weight's path, role and shape, for a message."""
    return f"`{w.path}` ({w.role}, shape {tuple(w.kernel.shape)})"


def paths_of(weights: Sequence[Place]) -> str:
    """Returns the first paths of some weights, for a message."""
    return listed([f"`{w.path}`" for w in weights], 6)
