"""The logits of attention, computed from the queries and keys that a pass shows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_initx._keras_internals import attention_scale, flatten_layers
from keras_initx._types import Model
from keras_initx.walk import KernelSite

__all__ = ["Attention", "find_attention", "unread_attention"]


class Attention(NamedTuple):
    """An attention layer whose logits can be computed.

    Attributes:
        path: Path of the layer, with `/logits` behind it.
        query: The kernel of the queries, of the axes inputs, heads, features.
        key: The kernel of the keys.
        scale: The factor of the products of queries and keys.
    """

    path: str
    query: KernelSite
    key: KernelSite
    scale: float

    @property
    def head_width(self) -> int:
        """Number of features of a head."""
        return int(self.query.kernel.shape[-1])

    def logits(self, shown: Mapping[KernelSite, Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Returns the logits of each call of the layer, without mask: batch, heads, queries, keys.

        Args:
            shown: The pre-activations by kernel, an array for each call.
        """
        found = []
        for query, key in zip(shown.get(self.query, ()), shown.get(self.key, ()), strict=False):
            # Grouped queries: a key serves several heads in a row.
            key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
            found.append(self.scale * np.einsum("bthd,bshd->bhts", query, key, optimize=True))
        return found


def find_attention(model: Model, sites: Sequence[KernelSite]) -> list[Attention]:
    """Returns the attention layers of which Keras' own code computes the logits.

    Args:
        model: A built model.
        sites: Its kernels, those with an obstacle left out.
    """
    found: dict[str, Attention] = {}
    for layer in flatten_layers(model):
        scale = attention_scale(layer)
        within = {id(inner) for inner in flatten_layers(layer, include_self=False)}
        own = {site.role: site for site in sites if scale and id(site.layer) in within}
        if scale and {"query", "key"} <= own.keys():
            path = f"{own['query'].attention}/logits"
            found[path] = Attention(path, own["query"], own["key"], scale)
    return list(found.values())


def unread_attention(sites: Sequence[KernelSite], known: Sequence[Attention]) -> list[str]:
    """Returns the paths of the attention whose logits cannot be computed.

    Args:
        sites: All kernels of a model.
        known: The attention of the model whose logits can be computed.
    """
    read = {one.query.attention for one in known}
    return [site.attention for site in sites if site.role == "query" and site.attention not in read]
