"""Mimetic initialization: self-attention with products of kernels that look like a trained transformer's."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Model
from keras_initx.checks import check_choice, check_finite
from keras_initx.state import stream_seed
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.walk import KernelSite

__all__ = ["Mimetic", "MimeticFactor"]

_SIDES = {"query": "left", "key": "right", "value": "left", "attention_output": "right"}


@dataclasses.dataclass(frozen=True)
class Mimetic:
    """Draws self-attention with W_Q W_K^T near the identity and W_V W_O near minus the identity.

    Law: in each head, W_Q W_K^T is the best approximation of rank head_dim to alpha_qk Z + beta_qk I. Over
    all heads, W_V W_O = alpha_vo Z - beta_vo I. The entries of Z are from N(0, 1 / d), where d is the width.
    The singular value decomposition M = U S V^T gives both factors, U S^(1/2) and S^(1/2) V^T. W_V W_O is
    exact if heads * head_dim >= d, and otherwise has rank heads * head_dim. All other kernels are drawn as by
    `ByRole`. Tokens then attend to similar tokens, and to tokens of similar position.

    Choose it for vision transformers that are trained from scratch on little data. Trained language models
    have the opposite signs: try negative betas there. The law does not fit cross-attention, fewer key heads
    than query heads, or heads wider than the model: `ByRole` draws them, with a note. Each head costs two
    decompositions of a matrix of d^2 entries.

    >>> import keras
    >>> from keras_initx.strategies import initialize
    >>> inputs = keras.layers.Input((5, 64))
    >>> mha = keras.layers.MultiHeadAttention(2, 32, name="mha")
    >>> report = initialize(keras.Model(inputs, mha(inputs, inputs)), Mimetic(), seed=1)
    >>> value, output = mha.value_dense.kernel, mha.output_dense.kernel
    >>> product = ops.matmul(ops.reshape(value, (64, 64)), ops.reshape(output, (64, 64)))
    >>> print(f"{float(ops.mean(ops.diagonal(product))):.1f}")
    -0.4

    Args:
        alpha_qk: Size of the noise in W_Q W_K^T.
        beta_qk: Size of the diagonal of W_Q W_K^T.
        alpha_vo: Size of the noise in W_V W_O.
        beta_vo: Size of the diagonal of W_V W_O, with the opposite sign: 0.4 gives -0.4 on the diagonal.

    Raises:
        ValueError: If an argument is not a finite number, or alpha and beta of one product are both 0. When
            planning, if the model has no self-attention that the law fits.

    Reference:
        Trockman and Kolter, 2023, "Mimetic initialization of self-attention layers", section 4
        (https://arxiv.org/abs/2305.09828). Law and defaults were checked against third-party code, since the
        authors' code was not at hand. Extension: if heads * head_dim > d, a case that the paper does not
        have, a random rotation spreads the d singular vectors over all heads.
    """

    alpha_qk: float = 0.7
    beta_qk: float = 0.7
    alpha_vo: float = 0.4
    beta_vo: float = 0.4

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            check_finite(name, value)
        for pair in ("qk", "vo"):
            alpha, beta = getattr(self, f"alpha_{pair}"), getattr(self, f"beta_{pair}")
            if not alpha and not beta:
                raise ValueError(
                    f"`alpha_{pair}` and `beta_{pair}` must not both be 0: the kernels would be 0. "
                    f"Received: alpha_{pair}={alpha!r}, beta_{pair}={beta!r}."
                )

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel: two factors of one matrix for each pair, the rest by role."""
        plan = ByRole().plan(sites)
        owners: dict[str, dict[str, KernelSite]] = {}
        for site in sites:
            if site.attention:
                owners.setdefault(site.attention, {})[site.role] = site
        fitting = 0
        for kernels in owners.values():
            obstacle = _obstacle(kernels)
            fitting += not obstacle
            for site in kernels.values():
                if obstacle:
                    plan[site] = dataclasses.replace(plan[site], note=f"{obstacle}: drawn by role")
                else:
                    # One stream for all kernels of a layer: both factors must come from the same matrix.
                    plan[site] = Draw(self._factor(site), stream=site.attention)
        if not fitting:
            raise ValueError(
                "`Mimetic` is for models with self-attention: a MultiHeadAttention that takes queries, keys "
                f"and values from one tensor. Received: a model with {len(owners)} attention layers, none of "
                "them such a layer. Take the strategy 'by_role' for it."
            )
        return plan

    def _factor(self, site: KernelSite) -> "MimeticFactor":
        side = _SIDES[site.role]
        if site.role in ("query", "key"):
            return MimeticFactor(side, self.alpha_qk, self.beta_qk)
        return MimeticFactor(side, self.alpha_vo, -self.beta_vo, joint=True)


def _obstacle(kernels: dict[str, KernelSite]) -> str:
    """The reason why the law does not fit an attention layer; empty if it fits."""
    if kernels.keys() != _SIDES.keys():
        return "not all four kernels are to be drawn"
    shapes = {role: tuple(site.kernel.shape) for role, site in kernels.items()}
    if any(len(shape) != 3 for shape in shapes.values()):
        return "the kernels are not those of heads"
    if kernels["key"].cross or kernels["value"].cross:
        return "cross-attention"
    if shapes["query"] != shapes["key"] or shapes["value"][1] != shapes["query"][1]:
        return "queries and keys differ in heads or width"
    if shapes["query"][2] > shapes["query"][0]:
        return "the heads are wider than the model"
    if shapes["attention_output"] != (*shapes["value"][1:], shapes["value"][0]):
        return "the output has another width than the values' input"
    return ""


class MimeticFactor(keras.initializers.Initializer):
    """Draws one of the two factors of alpha Z + beta I, for each head or for all heads together.

    Law: the factors are U S^(1/2) and S^(1/2) V^T of the singular value decomposition, cut to the rank of the
    heads. A `"left"` and a `"right"` initializer of the same seed multiply to the best approximation of that
    rank.

    >>> left, right = (MimeticFactor(side, 0.0, 1.0, joint=True, seed=1) for side in ("left", "right"))
    >>> product = ops.tensordot(left((8, 2, 4)), right((2, 4, 8)), 2)
    >>> print(f"{float(ops.max(ops.abs(product - ops.eye(8)))):.3f}")
    0.000

    Args:
        side: `"left"` for queries and values, `"right"` for keys and the output.
        alpha: Size of the noise Z, with entries from N(0, 1 / d).
        beta: Size of the diagonal.
        joint: True if all heads factor one matrix: the left factor has shape (d, heads, head_dim), the right
            one (heads, head_dim, d). False if each head has its own matrix: both factors have shape
            (d, heads, head_dim).
        seed: An int. None draws another matrix at each call, so that two factors do not belong together.

    Raises:
        ValueError: If the side is unknown. On a call, if the shape does not have three axes.

    Reference:
        Trockman and Kolter, 2023, "Mimetic initialization of self-attention layers", section 4
        (https://arxiv.org/abs/2305.09828).
    """

    def __init__(
        self,
        side: str = "left",
        alpha: float = 0.7,
        beta: float = 0.7,
        joint: bool = False,
        seed: int | None = None,
    ) -> None:
        self.side, self.seed = check_choice("side", side, ("left", "right")), seed
        self.alpha, self.beta, self.joint = float(alpha), float(beta), joint

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        """Draws the factor in the given shape and float dtype; None stands for Keras' floatx."""
        shape = tuple(shape)
        if len(shape) != 3:
            raise ValueError(
                f"`shape` must have three axes, as kernels of attention have. Received: shape={shape}."
            )
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        wide = "float32" if dtype in ("bfloat16", "float16") else dtype  # there is no SVD in half precision
        return ops.cast((self._joint if self.joint else self._heads)(shape, wide), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        mine = {"side": self.side, "alpha": self.alpha, "beta": self.beta, "joint": self.joint}
        return mine | {"seed": self.seed}

    def _heads(self, shape: tuple[int, ...], dtype: str) -> Any:
        width, heads, rank = shape
        # One head after another: all at once would hold heads * d^2 entries, more than the whole layer.
        return ops.stack([self._side(width, rank, f"head {n}", dtype) for n in range(heads)], axis=1)

    def _joint(self, shape: tuple[int, ...], dtype: str) -> Any:
        left = self.side == "left"
        width = shape[0] if left else shape[-1]
        units = math.prod(shape) // width
        factor = self._side(width, min(units, width), "joint", dtype)
        if units > width:
            # Columns of zeros would fill the shape, too. But zeros in both factors never get a gradient.
            noise = self._normal((units, width), "rotation", dtype)
            factor = ops.matmul(factor, ops.transpose(ops.qr(noise)[0]))
        return ops.reshape(factor if left else ops.transpose(factor), shape)

    def _side(self, width: int, rank: int, label: str, dtype: str) -> Any:
        """The factor, of shape (width, rank); the right factor is returned transposed."""
        matrix = self.alpha / math.sqrt(width) * self._normal((width, width), label, dtype)
        u, s, vt = ops.svd(matrix + self.beta * ops.eye(width, dtype=dtype), full_matrices=False)
        vectors = u if self.side == "left" else ops.transpose(vt)
        return vectors[:, :rank] * ops.sqrt(s[:rank])

    def _normal(self, shape: tuple[int, int], label: str, dtype: str) -> Any:
        seed = None if self.seed is None else stream_seed(self.seed, label)
        return keras.random.normal(shape, dtype=dtype, seed=seed)
