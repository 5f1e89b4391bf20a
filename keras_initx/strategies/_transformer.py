"""Strategies for transformers: what depth asks of attention and feed-forward kernels."""

import dataclasses
import fnmatch
import math
from collections.abc import Sequence
from typing import Any

from keras_initx.initializers import GlorotScaled, RandomScaled
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._select import find_branches, prefixes
from keras_initx.walk import KernelSite

__all__ = ["DeepNorm", "GPT2Residual", "TFixup", "attention_layers"]

_ROLES = ("attention_output", "key", "query", "value")


@dataclasses.dataclass(frozen=True)
class GPT2Residual:
    """Small normal weights, those that end a residual branch smaller with depth.

    Law: every kernel and embedding is N(0, stddev^2), and those that end a residual branch are divided by
    sqrt(N), N the number of residual branches, so that the sum of the branches' variances in the residual
    stream does not grow with depth. Choose it for transformers with normalization before each branch.

    >>> GPT2Residual().stddev
    0.02

    Args:
        stddev: Standard deviation of all other kernels.
        branches: As in `Fixup`.

    Raises:
        ValueError: When planning, if there is no residual branch.

    Reference:
        Radford et al., 2019, "Language models are unsupervised multitask learners", section 2.3: residual
        weights are scaled by 1 / sqrt(N). The 0.02 is that of the published code and of GPT (2018).
    """

    stddev: float = 0.02
    branches: Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel."""
        found = find_branches("GPT2Residual", sites, self.branches)
        ends = {site for branch in found for site in branch.ends}
        plan: Plan = {}
        for site in ByRole().plan(sites):
            last = site in ends
            stddev = self.stddev / math.sqrt(len(found)) if last else self.stddev
            plan[site] = Draw(_normal(site, stddev), "ends a residual branch" if last else "")
        return plan


@dataclasses.dataclass(frozen=True)
class DeepNorm:
    """Glorot kernels, those of the values and the feed-forward layers smaller with depth.

    Law: kernels of values, attention outputs and feed-forward layers have Glorot's variance times beta^2,
    queries, keys and all others Glorot's; embeddings are those of `ByRole`. With N encoder layers alone, or
    decoder layers alone, beta = (8 N)^(-1/4); with N encoder and M decoder layers beta = 0.87 (N^4 M)^(-1/16)
    in the encoder and (12 M)^(-1/4) in the decoder. The other half is the model's: normalization(alpha x +
    f(x)) with alpha = (2 N)^(1/4); 0.81 (N^4 M)^(1/16) and (3 M)^(1/4). Rows of the report name the alpha.
    Choose it for very deep transformers with normalization after each sum.

    >>> DeepNorm().decoder is None
    True

    Args:
        decoder: Pattern of the decoder's layers; None to take those from the first layer with
            cross-attention on.
        branches: As in `Fixup`.

    Raises:
        ValueError: When planning, if there is no attention or no residual branch.

    Reference:
        Wang et al., 2022, "DeepNet: scaling transformers to 1,000 layers", figure 2
        (https://arxiv.org/abs/2203.00555). The constants were quoted from memory.
    """

    decoder: str | None = None
    branches: Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel."""
        encoder, decoder, inside = _parts("DeepNorm", sites, self.decoder, self.branches)
        n, m = len(attention_layers(encoder)), _count(decoder)
        if n and m:
            factors = 0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** (-1 / 4)
            alphas = 0.81 * (n**4 * m) ** (1 / 16), (3 * m) ** (1 / 4)
        else:
            factors, alphas = ((8 * (n or m)) ** (-1 / 4),) * 2, ((2 * (n or m)) ** (1 / 4),) * 2
        plan = ByRole().plan(sites)
        below = set(decoder)
        for site in [site for site in plan if site.role != "embedding"]:
            part = site in below
            gain = factors[part] if site in inside and site.role not in ("query", "key") else 1.0
            note = f"wants the skip times {alphas[part]:.4g}" if gain != 1 else ""
            plan[site] = Draw(GlorotScaled(gain=gain, distribution="normal"), note)
        return plan


@dataclasses.dataclass(frozen=True)
class TFixup:
    """Transformers without normalization and without a warm-up of the learning rate.

    Law: kernels are Glorot uniform and embeddings N(0, 1 / d). Values, attention outputs and feed-forward
    kernels are multiplied by 0.67 N^(-1/4) in an encoder of N layers and by (9 M)^(-1/4) in a decoder of M;
    embeddings by (9 M)^(-1/4) where there is a decoder, by (9 N)^(-1/4) where there is none. Choose it for
    transformers that have no normalization.

    >>> TFixup(decoder="decoder_*").decoder
    'decoder_*'

    Args:
        decoder: As in `DeepNorm`.
        branches: As in `Fixup`.

    Raises:
        ValueError: As in `DeepNorm`.

    Reference:
        Huang, Perez, Ba and Volkovs, 2020, "Improving transformer optimization through better
        initialization", section 3.3 (https://proceedings.mlr.press/v119/huang20f.html). The constants were
        quoted from memory; for an encoder alone the paper gives no factor of the embeddings.
    """

    decoder: str | None = None
    branches: Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Any = None) -> Plan:
        """Returns what draws each kernel."""
        encoder, decoder, inside = _parts("TFixup", sites, self.decoder, self.branches)
        n, m = len(attention_layers(encoder)), _count(decoder)
        below = set(decoder)
        plan: Plan = {}
        for site in ByRole().plan(sites):
            if site.role == "embedding":
                width = site.kernel.shape[-1]
                plan[site] = Draw(_normal(site, width**-0.5 * (9 * (m or n)) ** (-1 / 4)))
                continue
            factor = (9 * m) ** (-1 / 4) if site in below else 0.67 * max(n, 1) ** (-1 / 4)
            gain = factor if site in inside and site.role not in ("query", "key") else 1.0
            plan[site] = Draw(GlorotScaled(gain=gain))
        return plan


def attention_layers(sites: Sequence[KernelSite]) -> list[str]:
    """Returns the paths of the attention layers among the sites, in order."""
    return list(dict.fromkeys(site.attention for site in sites if site.attention))


def _count(decoder: Sequence[KernelSite]) -> int:
    """Layers of a decoder: one for each cross-attention, or for each attention where there is none."""
    crossing = [site for site in decoder if site.cross]
    return len(attention_layers(crossing or decoder))


def _parts(
    scheme: str, sites: Sequence[KernelSite], decoder: str | None, branches: Sequence[str] | None
) -> tuple[list[KernelSite], list[KernelSite], set[KernelSite]]:
    """Returns the sites of the encoder, those of the decoder, and those within residual branches."""
    if not attention_layers(sites):
        raise ValueError(
            f"`{scheme}` is for transformers. Received: a model without attention layers. Use keras.layers' "
            f"MultiHeadAttention or GroupQueryAttention, or layers named {sorted(_ROLES)} beside each other."
        )
    found = find_branches(scheme, sites, branches)
    inside = {site for branch in found for site in branch.kernels}
    if decoder is not None:
        below = [s for s in sites if any(fnmatch.fnmatchcase(p, decoder) for p in prefixes(s.path))]
        if not below:
            raise ValueError(f"`decoder` must match a layer of the model. Received: decoder={decoder!r}.")
    else:
        crossing = next((n for n, b in enumerate(found) if any(s.cross for s in b.kernels)), None)
        start = None
        if crossing is not None:  # with the self-attention before it
            first = found[max(crossing - 1, 0)]
            first = first if any(site.attention for site in first.kernels) else found[crossing]
            start = min(site.position for site in first.kernels if site.position is not None)
        below = [s for s in sites if start is not None and s.position is not None and s.position >= start]
    rest = set(below)
    return [site for site in sites if site not in rest], below, inside


def _normal(site: KernelSite, stddev: float) -> RandomScaled:
    """A normal law of fixed standard deviation, whatever the fans."""
    assert site.fans is not None
    return RandomScaled(gain=stddev * math.sqrt(site.fans.fan_in))
