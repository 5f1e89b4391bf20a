"""Attention that starts as trained attention looks."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._transformer import attention_layers
from keras_initx.walk import KernelSite

__all__ = ["Mimetic"]


@dataclasses.dataclass(frozen=True)
class Mimetic:
    """Self-attention whose products of kernels look as they do after training, all else as in `ByRole`.

    Law: W_Q W_K^T of each head is the best approximation of rank head width to alpha_qk Z + beta_qk I, and
    W_V W_O over all heads that to alpha_vo Z - beta_vo I, Z with entries N(0, 1 / d); each is the product of
    the factors U S^(1/2) and V S^(1/2) of its singular value decomposition. Tokens at first attend to
    tokens like themselves. Choose it for small transformers, vision ones above all, on little data.

    >>> Mimetic().alpha_qk
    0.7

    Args:
        alpha_qk: Weight of the noise in queries and keys.
        beta_qk: Weight of the identity in queries and keys.
        alpha_vo: Weight of the noise in values and outputs.
        beta_vo: Weight of minus the identity in values and outputs.

    Raises:
        ValueError: When planning, if there is no attention layer.

    Reference:
        Trockman and Kolter, 2023, "Mimetic initialization of self-attention layers", section 4
        (https://arxiv.org/abs/2305.09828). The defaults were quoted from memory. The paper's sinusoidal
        position embeddings are the model's.
    """

    alpha_qk: float = 0.7
    beta_qk: float = 0.7
    alpha_vo: float = 0.4
    beta_vo: float = 0.4

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel."""
        layers = attention_layers(sites)
        if not layers:
            raise ValueError("`Mimetic` is for models with attention. Received: a model without.")
        plan = ByRole().plan(sites)
        for path in layers:
            own = {site.role: site for site in sites if site.attention == path}
            reason = _misfit(own)
            for role, site in own.items():
                if reason:
                    plan[site] = dataclasses.replace(plan[site], note=f"by role: {reason}")
                else:
                    plan[site] = self._draw(role, site)
        return plan

    def _draw(self, role: str, site: KernelSite) -> Draw:
        paired = role in ("query", "key")
        alpha, beta = (self.alpha_qk, self.beta_qk) if paired else (self.alpha_vo, -self.beta_vo)
        initializer = _Factor(alpha, beta, role)
        return Draw(initializer, stream=f"{site.attention}/{'qk' if paired else 'vo'}", as_is=False)


def _misfit(own: dict[str, KernelSite]) -> str:
    """Why an attention layer is not what the scheme is for; empty when it is."""
    if set(own) != {"query", "key", "value", "attention_output"}:
        return "the layer has not the four kernels of attention"
    query, key, value, output = (
        tuple(own[role].kernel.shape) for role in ("query", "key", "value", "attention_output")
    )
    if len(query) != 3 or query != key or value[1:] != output[:2] or query[1] != value[1]:
        return "queries and keys differ in shape"
    return "" if query[0] == value[0] == output[-1] else "its inputs and outputs differ in width"


class _Factor(keras.initializers.Initializer):
    """One factor of a random matrix near a multiple of the identity; the seed decides the matrix."""

    def __init__(self, alpha: float, beta: float, role: str, seed: int | None = None) -> None:
        self.alpha, self.beta, self.role, self.seed = alpha, beta, role, seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws the kernel of the role: (d, heads, width), or (heads, width, d) of an output."""
        output = self.role == "attention_output"
        heads, head_width = (shape[0], shape[1]) if output else (shape[1], shape[2])
        width = shape[-1] if output else shape[0]
        paired = self.role in ("query", "key")
        blocks, rank = (heads, head_width) if paired else (1, heads * head_width)
        noise = keras.random.normal((blocks, width, width), 0.0, width**-0.5, "float32", self.seed)
        left, values, right = ops.svd(self.alpha * noise + self.beta * ops.eye(width), full_matrices=False)
        roots = ops.sqrt(values)[:, None, :]
        first, second = left * roots, ops.swapaxes(right, -2, -1) * roots  # (blocks, d, rank of the product)
        factor = first if self.role in ("query", "value") else second
        factor = factor[..., :rank]
        if factor.shape[-1] < rank:
            factor = ops.pad(factor, [(0, 0), (0, 0), (0, rank - factor.shape[-1])])
        if paired:
            kernel = ops.transpose(factor, (1, 0, 2))
        elif output:
            kernel = ops.reshape(ops.transpose(factor[0]), shape)
        else:
            kernel = ops.reshape(factor[0], shape)
        return ops.cast(kernel, dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"alpha": self.alpha, "beta": self.beta, "role": self.role, "seed": self.seed}
