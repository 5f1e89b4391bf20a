"""The layers of a transformer: which kernels a scheme scales by depth, and which are the decoder's."""

import dataclasses
from collections.abc import Iterable, Sequence

from keras_initx._types import Patterns
from keras_initx.strategies._select import find_branches
from keras_initx.walk import KernelSite, matches

__all__ = ["Stack", "find_stack"]

_KEPT = ("embedding", "recurrent")


@dataclasses.dataclass(frozen=True)
class Stack:
    """The kernels of a transformer.

    Attributes:
        kernels: All but embeddings and recurrent ones.
        scaled: Those of values, attention outputs and feed-forward layers, the latter being all other kernels
            of residual branches.
        ends: Those that end a residual branch.
        decoder: Those of the decoder.
        layers: Layers of the encoder, or of a stack without cross-attention; 0 if all is decoder.
        decoder_layers: Layers of the decoder, 0 without one.
        cross: Whether there is cross-attention.
    """

    kernels: list[KernelSite]
    scaled: list[KernelSite]
    ends: set[KernelSite]
    decoder: set[KernelSite]
    layers: int
    decoder_layers: int
    cross: bool


def find_stack(
    scheme: str,
    sites: Sequence[KernelSite],
    layers: int | None,
    decoder_layers: int | None,
    decoder: str | None,
    branches: Patterns | None,
) -> Stack:
    """Returns the layers of a transformer, or raises ValueError if it is none.

    Args:
        scheme: Name of the strategy, for errors.
        sites: The model's sites.
        layers: Layers of the encoder; None to count.
        decoder_layers: Layers of the decoder; None to count.
        decoder: Pattern of the decoder's paths; None to find it.
        branches: As `find_branches` takes it.
    """
    kernels = [site for site in sites if site.fans and not site.is_scale and site.role not in _KEPT]
    queries = sorted((s for s in kernels if s.role == "query"), key=lambda site: site.position or 0)
    if not queries:
        raise ValueError(
            f"`{scheme}` is for models with attention layers of Keras (MultiHeadAttention, "
            f"GroupQueryAttention). Received: a model with {len(kernels)} kernels, none of a query. Take "
            "'GPT2Residual', which needs residual branches only, or 'by_role'."
        )
    found = find_branches(scheme, sites, branches)
    theirs = set(_named(kernels, decoder) if decoder else _decoder(kernels, queries))
    if decoder_layers and not theirs:
        raise ValueError(
            "`decoder_layers` must be None where there is no cross-attention. Received: "
            f"decoder_layers={decoder_layers!r}. Take `layers` for a decoder without encoder, or name the "
            "decoder beside an encoder by `decoder`, a pattern of paths."
        )
    inside = {site for branch in found for site in branch.kernels}
    cross = len(_crossing(kernels))
    own = sum(site not in theirs for site in queries)
    # A decoder alone may be counted by either argument.
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
            f"`decoder` must be a pattern of paths that the model has. Received: decoder={pattern!r}. "
            f"Paths: {[site.path for site in kernels][:10]}."
        )
    return found


def _crossing(kernels: Iterable[KernelSite]) -> set[str]:
    # Keys and values tell: a query may be scaled before it meets them, and the output meets the skip.
    return {site.attention for site in kernels if site.cross and site.role in ("key", "value")}


def _decoder(kernels: Sequence[KernelSite], queries: Sequence[KernelSite]) -> Iterable[KernelSite]:
    """The kernels of the decoder, by the rule in the docstring of `DeepNorm`."""
    crossing = _crossing(kernels)
    cross = [site for site in queries if site.attention in crossing]
    if not cross:
        return []
    first = cross[0].position or 0
    before = [site for site in queries if (site.position or 0) < first]
    after = [site for site in queries if (site.position or 0) > first and site not in cross]
    inner = {site.attention for site in (*cross, *after)}
    # A functional model may run the decoder's first self-attention amid the encoder's, but as the last there.
    if len(after) < len(cross) and len(before) > (len(cross) == 1):
        inner.add(before[-1].attention)
    # The keys of the first cross-attention come after the whole encoder; the rest of the decoder after them.
    keys = (s for s in kernels if s.attention == cross[0].attention and s.role == "key")
    edge = min((site.depth or 0 for site in keys), default=cross[0].depth or 0)
    return [s for s in kernels if (s.attention in inner if s.attention else (s.depth or 0) > edge)]
