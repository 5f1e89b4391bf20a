"""State matrices and input vectors of state-space layers. They are fixed: nothing is drawn."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.initializers._base import PACKAGE, Shown, draw, spread

# A state-space layer keeps a state x of N numbers for each feature and follows x' = A x + B u, driven by the
# input u. Random A and B forget their input within a few steps or explode, so A and B have structure:
#
# - HiPPO: the coefficients of the input's history in Legendre polynomials obey such an equation. Its A is a
#   full lower triangle. The state remembers all of the history, the recent past most exactly.
# - S4D: a diagonal A costs N instead of N^2 operations. Real entries only decay: S4D-Real has the eigenvalues
#   of HiPPO. Complex entries oscillate as well: S4D-Lin.
#
# A layer does not store A itself, but a parameter that cannot make the state explode: log(-A), log(-Re A).
# These classes return the parameter, so each docstring says how the layer must use it. Layers with discrete
# steps (LRU), and the time steps that turn x' into steps, are in `_time_scales.py`.


@keras.saving.register_keras_serializable(package=PACKAGE)
class HiPPO(Shown):
    """The HiPPO-LegS state matrix; its state holds the Legendre coefficients of the input's history.

    Law: A[n, k] = -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on the diagonal and 0 above, with n
    and k from 0. This is the stable form, with eigenvalues -1, ..., -N. With `HiPPOInput` for B,
    x' = (A x + B u) / t projects the whole input on Legendre polynomials. It draws nothing.

    Choose it for dense state-space layers that must remember long inputs. For diagonal layers choose
    `S4DReal`, `S4DLin` or `LRURing`. In float16 its entries are only as exact as numbers of size 2N are.

    >>> matrix = HiPPO()((4, 4))
    >>> print([float(entry) for entry in keras.ops.diagonal(matrix)])
    [-1.0, -2.0, -3.0, -4.0]

    Raises:
        ValueError: On a call, if the last two axes of the shape differ or `dtype` is not a float.

    Reference:
        Gu, Dao, Ermon, Rudra and Re, 2020, "HiPPO: Recurrent memory with optimal polynomial projections",
        https://arxiv.org/abs/2008.07669 (LegS). Deviation: the paper writes the matrix with the opposite
        sign.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a tensor of this shape and float dtype (None: Keras' floatx).

        The last two axes hold the matrix, which is the same in all leading axes.
        """
        shape = tuple(shape)
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(
                f"`shape` must end with two equal axes (states, states). Received: shape={shape}. For the "
                "input vector B use `HiPPOInput`."
            )

        def fill(dtype: str) -> Tensor:
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

    Law: B[n] = sqrt(2n + 1) along the last axis, n from 0. It draws nothing.

    Choose it together with `HiPPO`. With another state matrix it has no meaning.

    >>> print([round(float(entry) ** 2) for entry in HiPPOInput()((4,))])
    [1, 3, 5, 7]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Dao, Ermon, Rudra and Re, 2020, "HiPPO: Recurrent memory with optimal polynomial projections",
        https://arxiv.org/abs/2008.07669 (LegS).
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a tensor of this shape and float dtype (None: Keras' floatx), B along its last axis."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(ops.sqrt(2 * ops.arange(shape[-1], dtype=dtype) + 1), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class S4DReal(Shown):
    """The real diagonal state matrix of S4D-Real and Mamba, as the logarithm of its negative.

    Law: A_log[n] = log(n + 1) along the last axis, n from 0, for layers that use A = -exp(A_log). The
    eigenvalues are -1, ..., -N, as in `HiPPO`. It draws nothing.

    Choose it for Mamba and other selective layers, with `TimeStepBias` for the time step. For layers with
    complex states, which can oscillate, choose `S4DLin`.

    >>> print([round(-float(entry)) for entry in keras.ops.exp(S4DReal()((2, 4))[0])])
    [-1, -2, -3, -4]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Gupta, Goel and Re, 2022, "On the parameterization and initialization of diagonal state space
        models", https://arxiv.org/abs/2206.11893 (S4D-Real: A_n = -(n + 1)); as `A_log` in Gu and Dao, 2023,
        "Mamba", https://arxiv.org/abs/2312.00752.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a tensor of this shape and float dtype (None: Keras' floatx), A_log along its last axis."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(ops.log(ops.arange(1, shape[-1] + 1, dtype=dtype)), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


@keras.saving.register_keras_serializable(package=PACKAGE)
class S4DLin(Shown):
    """The imaginary parts of the diagonal state matrix of S4D-Lin.

    Law: Im A[n] = pi * n along the last axis, n from 0: one of each conjugate pair, at evenly spaced
    frequencies. The real parts are -1/2. A layer that stores log(-Re A) gets them from
    `ConstantFill(math.log(0.5))`. It draws nothing.

    Choose it for diagonal state-space layers with complex states. For real states choose `S4DReal`.

    >>> print([round(float(entry) / 3.14159, 3) for entry in S4DLin()((4,))])
    [0.0, 1.0, 2.0, 3.0]

    Raises:
        ValueError: On a call, if the shape has no axis or `dtype` is not a float.

    Reference:
        Gu, Gupta, Goel and Re, 2022, "On the parameterization and initialization of diagonal state space
        models", https://arxiv.org/abs/2206.11893 (S4D-Lin: A_n = -1/2 + i pi n).
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a tensor of this shape and float dtype (None: Keras' floatx), Im A along its last axis."""
        shape = _check_states(shape)
        return draw(lambda dtype: spread(math.pi * ops.arange(shape[-1], dtype=dtype), shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}


def _check_states(shape: Sequence[int]) -> tuple[int, ...]:
    if not shape:
        raise ValueError("`shape` must end with an axis of states. Received: shape=(). Give it one axis.")
    return tuple(shape)
