"""Finds the layers of a transformer: the kernels that a law scales by depth, and the decoder's among them.

An encoder-decoder runs like this, where S is self-attention, C cross-attention and F feed-forward:

    encoder   S F   S F   S F --------------------+--------------+
                                                  v              v
    decoder                                S      C  F    S      C  F

Cross-attention is certain: its keys come from elsewhere than its queries. The first cross-attention takes its
keys after the whole encoder, so that every feed-forward kernel deeper than those keys is the decoder's. Depth
does not place self-attention, since a functional model may run the decoder's first S before, amid or after
the encoder. The last S before the first C is therefore taken for the decoder's. There is one exception: if
each C is followed by an S of its own, the decoder's blocks begin with C, and no S belongs before the first
one.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from keras_initx._types import Patterns
from keras_initx.strategies._select import find_branches
from keras_initx.walk import KernelSite, matches

__all__ = ["Stack", "find_stack"]

_ATTENTION = ("query", "key", "value", "attention_output")
_KEPT = ("embedding", "recurrent")


@dataclasses.dataclass(frozen=True)
class Stack:
    """The kernels of a transformer.

    Attributes:
        kernels: All kernels, without embeddings and recurrent kernels.
        scaled: The kernels of values, attention outputs and feed-forward layers. Every kernel of a residual
            branch that is not attention's counts as feed-forward.
        ends: The kernels that end a residual branch.
        decoder: The kernels of the decoder.
        layers: Number of layers of the encoder, or of a stack without cross-attention; 0 if the whole model
            is a decoder.
        decoder_layers: Number of layers of the decoder; 0 if there is none.
        cross: Whether the model has cross-attention.
    """

    kernels: list[KernelSite]
    scaled: list[KernelSite]
    ends: set[KernelSite]
    decoder: set[KernelSite]
    layers: int
    decoder_layers: int
    cross: bool


def find_stack(
    strategy: str,
    sites: Sequence[KernelSite],
    layers: int | None,
    decoder_layers: int | None,
    decoder: str | None,
    branches: Patterns | None,
) -> Stack:
    """Returns the layers of a transformer.

    Args:
        strategy: Name of the strategy, for errors.
        sites: The model's kernels.
        layers: Number of layers of the encoder; None to count them.
        decoder_layers: Number of layers of the decoder; None to count them.
        decoder: Pattern of the decoder's paths; None to find the decoder.
        branches: Patterns of the residual branches; None to take those of the trace.

    Raises:
        ValueError: If the model has no attention or no residual branch, or the decoder is not found.
    """
    kernels = [site for site in sites if site.fans and not site.is_scale and site.role not in _KEPT]
    queries = sorted((s for s in kernels if s.role == "query"), key=lambda site: site.position or 0)
    if not queries:
        raise ValueError(
            f"`{strategy}` is for models with attention whose query, key and value are kernels of their own: "
            "keras.layers.MultiHeadAttention or GroupQueryAttention, or the same written out with a softmax. "
            f"Received: a model with {len(kernels)} kernels, none of a query. Take 'GPT2Residual', which "
            "needs residual branches only, or 'by_role'."
        )
    if fused := [s.path for s in kernels if s.attention and s.role not in _ATTENTION]:
        raise ValueError(
            f"`{strategy}` scales query, key and value by different factors, so each must be a kernel of its "
            f"own that the trace can tell from the others. Received: `{fused[0]}`, which holds several of "
            "them, or belongs to an attention without an activation of its scores. Split it, or take "
            "'GPT2Residual'."
        )
    found = find_branches(strategy, sites, branches)
    theirs = set(_named(kernels, decoder) if decoder else _decoder(kernels, queries))
    if decoder_layers and not theirs:
        raise ValueError(
            "`decoder_layers` must be None if the model has no cross-attention. Received: "
            f"decoder_layers={decoder_layers!r}. Pass `layers` for a decoder without an encoder. For a "
            "decoder beside an encoder, pass `decoder`, a pattern of its paths."
        )
    inside = {site for branch in found for site in branch.kernels}
    cross = len(_crossing(kernels))
    own = sum(site not in theirs for site in queries)
    # For a decoder without an encoder, a user may give its layers by either argument.
    counted = decoder_layers or (None if own else layers) or cross or len(queries) - own
    return Stack(
        kernels,
        [s for s in kernels if s.role not in ("query", "key") and (s in inside or s.attention)],
        {site for branch in found for site in branch.ends},
        theirs,
        (layers or own) if own else 0,
        counted if theirs else 0,
        bool(cross),
    )


def _named(kernels: Sequence[KernelSite], pattern: str) -> list[KernelSite]:
    found = [site for site in kernels if matches(site, pattern)]
    if not found:
        raise ValueError(
            f"`decoder` must be a pattern that matches paths of the model. Received: decoder={pattern!r}. "
            f"Paths: {[site.path for site in kernels][:10]}."
        )
    return found


def _crossing(kernels: Iterable[KernelSite]) -> set[str]:
    """Paths of the cross-attention layers."""
    # All sites of a layer have the same `cross`; keys and values are the ones that come from elsewhere.
    return {site.attention for site in kernels if site.cross and site.role in ("key", "value")}


def _decoder(kernels: Sequence[KernelSite], queries: Sequence[KernelSite]) -> Iterable[KernelSite]:
    """The kernels of the decoder, by the rule at the top of this file."""
    crossing = _crossing(kernels)
    cross = [site for site in queries if site.attention in crossing]
    if not cross:
        return []
    first = cross[0].position or 0
    before = [site for site in queries if (site.position or 0) < first]
    after = [site for site in queries if (site.position or 0) > first and site not in cross]
    inner = {site.attention for site in (*cross, *after)}
    # Some cross-attention has no self-attention after it: the decoder's blocks begin with self-attention, and
    # the first one runs before the first cross-attention, as the last of those that do. A single
    # cross-attention with a single self-attention before it is left out: that one is the encoder.
    if len(after) < len(cross) and len(before) > (len(cross) == 1):
        inner.add(before[-1].attention)
    # Other kernels go by depth. The keys of the first cross-attention come after the whole encoder; all
    # deeper kernels that are not attention's are the decoder's.
    keys = (s for s in kernels if s.attention == cross[0].attention and s.role == "key")
    edge = min((site.depth or 0 for site in keys), default=cross[0].depth or 0)
    return [s for s in kernels if (s.attention in inner if s.attention else (s.depth or 0) > edge)]
