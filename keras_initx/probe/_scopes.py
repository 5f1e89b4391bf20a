"""What a pass leaves as it was."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["no_gradients", "unchanged"]


@contextlib.contextmanager
def unchanged(variables: Sequence[Any]) -> Iterator[None]:
    """Puts variables back when the block ends."""
    before = [(variable, ops.copy(variable.value)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def no_gradients() -> contextlib.AbstractContextManager[None]:
    """Has torch record nothing for gradients; no other backend does so unasked."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
