"""The default strategy: draws each kernel by its role, its true fans and the activation that feeds it."""

import dataclasses
from collections.abc import Hashable, Sequence

from keras_initx._types import Activation, Model
from keras_initx.checks import check_choice
from keras_initx.gains import compute_gain
from keras_initx.initializers import OrthogonalScaled, RandomScaled
from keras_initx.strategies._adapters import default_draws
from keras_initx.strategies._plan import Draw, Plan, WholePlan
from keras_initx.walk import KernelSite

__all__ = ["ByRole"]

_MODES = {"glorot": "fan_avg", "he": "fan_in", "lecun": "fan_in"}
_LAWS = (*sorted(_MODES), "orthogonal")


@dataclasses.dataclass(frozen=True)
class ByRole:
    """Draws each kernel with its true fans and the gain of the activation that feeds it; the default.

    Law: a kernel has Var W = g^2 / fan_in. If an activation f feeds the kernel, g = 1 / sqrt(E f(z)^2) with z
    standard normal; if the input, a linear layer, a normalization or a sum feeds it, g = 1. Then every
    pre-activation has variance 1 if the input has. Each gate, head and group, and both kernels of a separable
    layer, count their own fans. Recurrent kernels are orthogonal, gate by gate. Rows of an embedding have
    variance 1. Rows of an embedding that also makes the logits have variance 1 / width, so that logits of
    states of variance 1 have variance 1. Scales and biases are drawn by their layers' own initializers.

    Choose it if you have no reason to choose another. Two kinds of models need more. A residual net without
    normalization adds the variance of f at each block x + f(x): take a strategy for residual nets. A very
    deep plain net of GELU, SiLU or Mish, which have an unstable fixed point, drifts: call `calibrate` after.

    >>> import keras
    >>> from keras_initx.walk import iter_kernels
    >>> layers = [keras.layers.Input((9,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(7)]
    >>> sites = tuple(iter_kernels(keras.Sequential(layers)))
    >>> [f"{draw.initializer.gain:.3f}" for draw in ByRole().plan(sites).values()]
    ['1.000', '1.414']

    Args:
        law: `"he"` (Var W = g^2 / fan_in), `"glorot"` (divided by the mean of both fans), `"lecun"` (g = 1
            everywhere) or `"orthogonal"` (singular values g; in layers with more outputs than inputs, g times
            the factor that keeps the variance).
        distribution: `"normal"`, `"truncated_normal"` or `"uniform"`. Orthogonal kernels ignore it.

    Raises:
        ValueError: If the law is unknown.

    Reference:
        He et al., 2015, equation 10 (https://arxiv.org/abs/1502.01852) with the gain of any activation, and
        the fans of `keras_initx.fans`; Saxe et al., 2014 (https://arxiv.org/abs/1312.6120) for recurrent
        kernels.
    """

    law: str = "he"
    distribution: str = "normal"

    def __post_init__(self) -> None:
        check_choice("law", self.law, _LAWS)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel. Scales are left to their layers' own initializers."""
        gains: dict[Hashable, tuple[float, str]] = {}
        return {site: self._draw(site, gains) for site in sites if not (site.is_scale or site.is_factor)}

    def adapter_draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        """Returns the draws of adapters: A by its true fans and the activation that feeds it, B zero."""
        return default_draws(sites, lambda site: _gain(site.activation)[0] if site.activation else 1.0)

    def _draw(self, site: KernelSite, gains: dict[Hashable, tuple[float, str]]) -> Draw:
        if site.role == "recurrent":
            return Draw(OrthogonalScaled())
        if site.role == "embedding":
            # fan_in of an embedding is 1, so that rows have variance 1; fan_out is its width.
            mode = "fan_out" if site.tied else "fan_in"
            return Draw(RandomScaled(mode=mode, distribution=self.distribution))
        gain, note = 1.0, "taken as linear" if site.note and self.law != "lecun" else ""
        if self.law != "lecun" and site.activation is not None:
            key = _key(site.activation)
            if key not in gains:
                gains[key] = _gain(site.activation)
            gain, note = gains[key]
        if self.law == "orthogonal":
            return Draw(OrthogonalScaled(gain=gain, preserve_norm=True), note)
        return Draw(RandomScaled(gain=gain, mode=_MODES[self.law], distribution=self.distribution), note)


def _gain(activation: Activation) -> tuple[float, str]:
    try:
        return compute_gain(activation), ""
    except ValueError:
        label = activation if isinstance(activation, str) else type(activation).__name__
        return 1.0, f"{label} feeds it, for which no gain is known: taken as linear"


def _key(activation: Activation) -> Hashable:
    """A key that is equal for activations of equal class and arguments."""
    # A net holds many layers of one activation, and each gain costs a quadrature.
    if isinstance(activation, str) or not hasattr(activation, "__dict__"):
        return activation
    plain = {k: v for k, v in vars(activation).items() if isinstance(v, bool | int | float) and k[0] != "_"}
    return (type(activation), tuple(sorted(plain.items()))) if plain else activation
