"""Strategies for transformers, which scale kernels by depth: GPT-2, DeepNorm, T-Fixup."""

import dataclasses
import math
from collections.abc import Sequence

import keras

from keras_initx._types import Model
from keras_initx.checks import check_count, check_positive
from keras_initx.initializers import RandomScaled
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._select import find_branches
from keras_initx.strategies._stack import find_stack
from keras_initx.walk import KernelSite

__all__ = ["DeepNorm", "GPT2Residual", "TFixup"]


@dataclasses.dataclass(frozen=True)
class GPT2Residual:
    """Draws small normal kernels, smaller by the root of the number of branches where a branch ends.

    Law: all kernels and embeddings are N(0, stddev^2). A kernel that ends one of the N residual branches is
    N(0, stddev^2 / N), so that the variance that all branches together add to the stream does not grow with
    N. Choose it for pre-norm transformers (GPT, ViT), and to start as the published recipes do. The law does
    not use the width: 0.02 is 1 / sqrt(width) for a width of 2500, and small for narrow models. Without
    normalization, take a strategy that uses the fans.

    >>> import keras
    >>> from keras_initx.walk import iter_kernels
    >>> x = inputs = keras.layers.Input((9,))
    >>> for n in range(4):
    ...     hidden = keras.layers.Dense(8, "gelu", name=f"in{n}")(keras.layers.LayerNormalization()(x))
    ...     x = x + keras.layers.Dense(9, name=f"out{n}")(hidden)
    >>> plan = GPT2Residual().plan(tuple(iter_kernels(keras.Model(inputs, x))))
    >>> [draw.initializer.stddev for draw in plan.values()][:2]
    [0.02, 0.01]

    Args:
        stddev: Standard deviation of all kernels that do not end a branch.
        position_stddev: Standard deviation of the embeddings with "position" in their path; None for
            `stddev`. OpenAI's own code has 0.01 here.
        branches: Patterns of the layers that compute f in x + f(x), for example `"block*"`. None to take the
            residual branches that the trace finds.

    Raises:
        ValueError: If a standard deviation is not positive. When planning, if the model has no residual
            branch, or `position_stddev` is given and no embedding has "position" in its path.

    Reference:
        Radford et al., 2019, "Language models are unsupervised multitask learners", section 2.3. 0.02 and
        0.01 are from the published code. The text scales "the weights of residual layers"; all public code
        scales the kernels that end a branch. N counts attention and feed-forward branches, 2 per layer.
    """

    stddev: float = 0.02
    position_stddev: float | None = None
    branches: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_positive("stddev", self.stddev)
        if self.position_stddev is not None:
            check_positive("position_stddev", self.position_stddev)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel. Scales are left to their layers' own initializers."""
        branches = find_branches("GPT2Residual", sites, self.branches)
        sites = [site for site in sites if site.fans and not site.is_scale]
        positions = [site for site in sites if site.role == "embedding" and "position" in site.path.lower()]
        if self.position_stddev is not None and not positions:
            raise ValueError(
                '`position_stddev` must be None if no keras.layers.Embedding has "position" in its path. '
                f"Received: position_stddev={self.position_stddev!r}. Pass an initializer for the weight in "
                "`overrides`."
            )
        plan = {site: Draw(_normal(self.stddev)) for site in sites}
        plan |= {site: Draw(_normal(self.position_stddev or self.stddev)) for site in positions}
        end = Draw(
            _normal(self.stddev / math.sqrt(len(branches))), f"ends one of {len(branches)} residual branches"
        )
        return plan | {site: end for branch in branches for site in branch.ends}


@dataclasses.dataclass(frozen=True)
class DeepNorm:
    """Draws Glorot kernels with a gain that falls with depth, for post-norm transformers with a scaled skip.

    Law: for blocks LayerNorm(alpha x + f(x)), kernels are Glorot normal, Var W = 2 b^2 / (fan_in + fan_out).
    Feed-forward, value and attention output kernels have b = beta; query and key have b = 1. For an encoder
    or a decoder alone, of N layers, beta = (8 N)^(-1/4) and alpha = (2 N)^(1/4). Then 2 N (2 beta^2) /
    alpha^2 = 1, which bounds the first updates of the model at any depth. For an encoder of N layers with a
    decoder of M layers:

        encoder: beta = 0.87 (N^4 M)^(-1/16), alpha = 0.81 (N^4 M)^(1/16)
        decoder: beta = (12 M)^(-1/4),        alpha = (3 M)^(1/4)

    alpha belongs to the architecture, so you build it; the rows of the report give its value. Embeddings are
    drawn as by `ByRole`, and kernels outside of all residual branches have gain 1. Choose it for post-norm
    transformers of a dozen layers or more that have this alpha. For pre-norm take `GPT2Residual`.

    The decoder is found by its cross-attention: it has the cross-attention layers, all kernels deeper than
    the first of these, and the self-attention that runs right before it, unless each cross-attention has a
    self-attention after it. A model that cannot be traced needs `branches`; if it is an encoder-decoder, it
    needs `decoder` and `decoder_layers`, too.

    >>> import keras
    >>> from keras_initx.walk import iter_kernels
    >>> x = inputs = keras.layers.Input((5, 16))
    >>> for n in range(2):
    ...     x = keras.layers.LayerNormalization()(2**0.5 * x + keras.layers.MultiHeadAttention(2, 8)(x, x))
    >>> plan = DeepNorm().plan(tuple(iter_kernels(keras.Model(inputs, x))))
    >>> print({site.role: f"{draw.initializer.gain:.2f}" for site, draw in plan.items()})
    {'query': '1.00', 'key': '1.00', 'value': '0.50', 'attention_output': '0.50'}

    Args:
        layers: Number of layers of the encoder, or of a decoder without an encoder. None counts
            self-attention layers.
        decoder_layers: Number of layers of the decoder beside an encoder. None counts cross-attention layers.
        decoder: Pattern of the decoder's paths (`"decoder*"`), if the rule above does not find it.
        branches: Patterns of the layers that compute f in x + f(x), for example `"block*"`. None to take the
            residual branches that the trace finds.

    Raises:
        ValueError: If a count is not positive. When planning, if the model has no attention layer or no
            residual branch, or `decoder_layers` or `decoder` is given and the model has no decoder.

    Reference:
        Wang et al., 2022, "DeepNet: scaling transformers to 1,000 layers", figure 2
        (https://arxiv.org/abs/2203.00555). All factors except one were checked against the authors' code
        (torchscale). The code multiplies the encoder beside a decoder by 1.15 (N^4 M)^(-1/16), where the
        paper is quoted with 1 / 1.15 = 0.87; this strategy has 0.87. The paper itself was not at hand, so
        0.87 is unchecked.
    """

    layers: int | None = None
    decoder_layers: int | None = None
    decoder: str | None = None
    branches: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_counts(self.layers, self.decoder_layers)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel. Scales are left to their layers' own initializers."""
        stack = find_stack("DeepNorm", sites, self.layers, self.decoder_layers, self.decoder, self.branches)
        n, m = stack.layers, stack.decoder_layers
        own = (0.87 * (n**4 * m) ** (-1 / 16), 0.81 * (n**4 * m) ** (1 / 16)) if n and m else _alone(n)
        theirs = ((12 * m) ** -0.25, (3 * m) ** 0.25) if m and (n or stack.cross) else _alone(m)
        plan = {site: _glorot(1.0) for site in stack.kernels}
        for site in stack.scaled:
            beta, alpha = theirs if site in stack.decoder else own
            note = (
                f"made for LayerNorm(alpha x + f(x)) with alpha = {alpha:.4g}" if site in stack.ends else ""
            )
            plan[site] = _glorot(beta, note)
        return ByRole().plan([s for s in sites if s.role in ("embedding", "recurrent")]) | plan


@dataclasses.dataclass(frozen=True)
class TFixup:
    """Draws Glorot kernels with branches and embeddings scaled by depth; needs no normalization or warm-up.

    Law: kernels are Glorot normal, Var W = 2 / (fan_in + fan_out), and embeddings N(0, 1 / d), where d is
    their width. Then value, attention output and feed-forward kernels are multiplied by 0.67 N^(-1/4) in an
    encoder of N layers, and by (9 M)^(-1/4) in a decoder of M layers; all embeddings are multiplied by
    (9 M)^(-1/4). An update of the model then changes its output by about the learning rate, at any depth.
    Choose it for transformers without layer normalization. With normalization the factors do no harm and
    little good, and a row of the report says so.

    The decoder is found by its cross-attention: it has the cross-attention layers, all kernels deeper than
    the first of these, and the self-attention that runs right before it, unless each cross-attention has a
    self-attention after it. A model without cross-attention counts as an encoder, and its N takes the place
    of M for embeddings. `decoder="*"` makes it a decoder. Both are extensions: the paper has encoder-decoders
    only.

    >>> import keras
    >>> from keras_initx.walk import iter_kernels
    >>> x = inputs = keras.layers.Input((5, 16))
    >>> for n in range(4):
    ...     x = x + keras.layers.MultiHeadAttention(2, 8)(x, x)
    >>> plan = TFixup().plan(tuple(iter_kernels(keras.Model(inputs, x))))
    >>> print({site.role: f"{draw.initializer.gain:.3f}" for site, draw in plan.items()})
    {'query': '1.000', 'key': '1.000', 'value': '0.474', 'attention_output': '0.474'}

    Args:
        layers: Number of layers of the encoder, or of a decoder without an encoder. None counts
            self-attention layers.
        decoder_layers: Number of layers of the decoder beside an encoder. None counts cross-attention layers.
        decoder: Pattern of the decoder's paths (`"decoder*"`), if the rule above does not find it.
        branches: Patterns of the layers that compute f in x + f(x), for example `"block*"`. None to take the
            residual branches that the trace finds.

    Raises:
        ValueError: If a count is not positive. When planning, if the model has no attention layer or no
            residual branch, or `decoder_layers` or `decoder` is given and the model has no decoder.

    Reference:
        Huang, Perez, Ba and Volkovs, 2020, "Improving transformer optimization through better
        initialization", section 3.2 (https://proceedings.mlr.press/v119/huang20f.html). The choice of scaled
        kernels was checked against the authors' code. That code leaves query and key at gain 1 / sqrt(2),
        since its library fuses them; the paper says Glorot for all kernels, and so does this strategy.
        Deviation: normal draws, where that code draws uniform.
    """

    layers: int | None = None
    decoder_layers: int | None = None
    decoder: str | None = None
    branches: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_counts(self.layers, self.decoder_layers)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel. Scales are left to their layers' own initializers."""
        stack = find_stack("TFixup", sites, self.layers, self.decoder_layers, self.decoder, self.branches)
        plan = {site: _glorot(1.0) for site in stack.kernels}
        note = "made for models without normalization" if any(s.role == "scale" for s in sites) else ""
        for site in stack.scaled:
            decoding = site in stack.decoder
            gain = (9 * stack.decoder_layers) ** -0.25 if decoding else 0.67 * stack.layers**-0.25
            plan[site], note = _glorot(gain, note), ""  # the note stands on the first row only
        gain = (9 * (stack.decoder_layers or stack.layers)) ** -0.25
        embeddings = [site for site in sites if site.role == "embedding" and site.fans]
        plan |= {site: Draw(_normal(gain / math.sqrt(site.kernel.shape[-1]))) for site in embeddings}
        return ByRole().plan([s for s in sites if s.role == "recurrent"]) | plan


def _alone(layers: int) -> tuple[float, float]:
    """DeepNorm's beta and alpha of an encoder or a decoder alone."""
    return ((8 * layers) ** -0.25, (2 * layers) ** 0.25) if layers else (1.0, 1.0)


def _glorot(gain: float, note: str = "") -> Draw:
    return Draw(RandomScaled(gain=gain, mode="fan_avg"), note)


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def _check_counts(layers: int | None, decoder_layers: int | None) -> None:
    for name, value in (("layers", layers), ("decoder_layers", decoder_layers)):
        if value is not None:
            check_count(name, value)
