"""Scopes that undo side effects of a pass."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
from keras import ops

from keras_initx._types import Variable

__all__ = ["no_gradients", "unchanged"]


@contextlib.contextmanager
def unchanged(variables: Sequence[Variable]) -> Iterator[None]:
    """Puts the values of variables back when the block ends."""
    before = [(variable, ops.copy(variable.value)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def no_gradients() -> contextlib.AbstractContextManager[None]:
    """Returns a scope in which torch records nothing for gradients; other backends do not record unasked."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
