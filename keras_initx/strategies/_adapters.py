"""Starts of low-rank adapters that leave their bases alone: `LoRA` and `OrthogonalLoRA`.

A strategy for adapters changes nothing but the adapters of LoRA-enabled layers, and for some the base kernels
beside them. `initialize` knows it by `of_adapters`.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import keras
import numpy as np

from keras_initx._types import Layer, Model
from keras_initx.adapters import Factors
from keras_initx.checks import check_positive, check_switch
from keras_initx.initializers import RandomScaled
from keras_initx.strategies._parts import computed, given_back_to
from keras_initx.strategies._plan import Draw, WholePlan
from keras_initx.walk import Adapter, KernelSite, Weight

__all__ = ["LoRA", "OrthogonalLoRA", "default_draws"]

# The alpha that a layer had before a rank-stable scale, and the alpha that the scale made of it.
_STABLE: weakref.WeakKeyDictionary[Layer, tuple[float, float]] = weakref.WeakKeyDictionary()


def default_draws(
    sites: Sequence[KernelSite], gain: Callable[[KernelSite], float] | None = None
) -> WholePlan:
    """Returns the draws of adapters under a strategy for whole models: A by its true fans, B zero.

    Args:
        sites: The kernels and factors of the model.
        gain: The gain of a factor A; None for the root of 2, with which Keras draws.
    """
    bases = {id(site.layer): site for site in sites if site.adapter and not site.is_factor}
    return given_back_to(sites) | {
        site: _draw_of_a(site, bases, math.sqrt(2) if gain is None else gain(site))
        if site.role == "lora_a"
        else Draw(keras.initializers.Zeros())
        for site in sites
        if site.is_factor and site.fans
    }


def _draw_of_a(site: KernelSite, bases: Mapping[int, KernelSite], gain: float) -> Draw:
    base = bases.get(id(site.layer))
    assert site.fans is not None
    # Where the signal enters at B, the inputs of the kernel still set the size of the updates.
    if base is not None and base.fans is not None:
        gain *= math.sqrt(site.fans.fan_in / base.fans.fan_in)
    return Draw(RandomScaled(gain=gain, mode="fan_in", distribution="uniform"))


class LoRA:
    """Draws the adapters of LoRA-enabled layers: A by its true fans, B zero. All else stays.

    Law: A is uniform with Var A = 2 / fan_in, where fan_in is the number of inputs that an output of the
    adapted kernel sums; B = 0. Keras has the same law for Dense, and draws the A of a query, key or value
    with heads * fan_in, the A of an embedding with the number of words. Their first updates are then smaller
    by the root of that.

    With `rank_stable`, the adapter counts by alpha / root(rank) in place of alpha / rank, so that the size of
    the updates does not depend on the rank: `layer.lora_alpha` becomes alpha * root(rank).

    Choose it for every adapter, if you have no reason to choose another.

    >>> from keras_initx import initialize
    >>> attention = keras.layers.MultiHeadAttention(16, 8)
    >>> attention.build((None, 4, 64), (None, 4, 64))
    >>> attention.query_dense.enable_lora(4)
    >>> report = initialize(attention, LoRA(rank_stable=True), seed=1)
    >>> [(row.role, row.fans.fan_in) for row in report.rows], attention.query_dense.lora_alpha
    ([('lora_a', 64), ('lora_b', 4)], 8.0)

    Args:
        rank_stable: Whether adapters count by alpha / root(rank).
        alpha: The alpha of all adapters; None for the alpha that each layer has. Keras forgets the
            `lora_alpha` of `Dense(lora_rank=4, lora_alpha=16)`, and counts with 4: pass it here.

    Raises:
        ValueError: If `alpha` is not a positive number; on `initialize`, if the model has no adapters.

    Reference:
        Hu et al., 2022, "LoRA: low-rank adaptation of large language models", section 4.1
        (https://arxiv.org/abs/2106.09685). Kalajdzievski, 2023, "A rank stabilization scaling factor for
        fine-tuning with LoRA" (https://arxiv.org/abs/2312.03732), equation 3 for `rank_stable`. Deviation:
        Var A = 2 / fan_in, as Keras has it; the authors' code draws with 1 / (3 fan_in).
    """

    of_adapters: ClassVar[bool] = True
    takes_all_weights: ClassVar[bool] = True
    base: Literal["kept", "less", "mixed", "rounded"] = "kept"

    def __init__(self, *, rank_stable: bool = False, alpha: float | None = None) -> None:
        self.rank_stable = check_switch("rank_stable", rank_stable)
        self.alpha = None if alpha is None else check_positive("alpha", alpha)

    def plan(self, weights: Sequence[KernelSite | Weight], model: Model) -> WholePlan:
        """Returns the draws of the adapters, and of the base kernels that the start changes."""
        sites = [site for site in weights if isinstance(site, KernelSite) and site.adapter]
        if not any(site.is_factor for site in sites):
            raise ValueError(
                f"`model` must have layers with LoRA for {type(self).__name__}. Received: `{model.name}` "
                "without any. Call `layer.enable_lora(rank)` on its layers, or `backbone.enable_lora(rank)`."
            )
        return self._draws(sites)

    def _draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        return default_draws(sites)

    def alpha_of(self, adapter: Adapter) -> float:
        """Returns the alpha that an adapter gets, as Keras counts it: the scale is alpha / rank."""
        alpha = adapter.alpha if self.alpha is None else self.alpha
        if not self.rank_stable:
            return alpha
        before, after = _STABLE.get(adapter.layer, (alpha, None))
        # A second call starts from the alpha that the first one found.
        alpha = before if self.alpha is None and after == adapter.alpha else alpha
        return alpha * math.sqrt(adapter.rank)

    def settle(self, adapter: Adapter, alpha: float) -> None:
        """Remembers the alpha before a rank-stable scale, when the start has been made.

        Args:
            adapter: The adapter, with the alpha that it had.
            alpha: The alpha that it gets.
        """
        _STABLE.pop(adapter.layer, None)
        if self.rank_stable:
            _STABLE[adapter.layer] = (alpha / math.sqrt(adapter.rank), alpha)


class OrthogonalLoRA(LoRA):
    """Draws both factors of the adapters in orthogonal subspaces of the rank: A B is zero, A and B are not.

    Law: A = stddev G Q1 and B = stddev Q2' H, where G and H are Gaussian and Q1 and Q2 are the odd and the
    even rows of an orthogonal matrix of the size of the rank. Both factors learn from the first step on.

    Choose it to try a start in which B does not begin at zero. Do not choose it for an odd rank.

    >>> from keras_initx import initialize
    >>> layer = keras.layers.Dense(6)
    >>> layer.build((None, 5))
    >>> layer.enable_lora(4)
    >>> _ = initialize(layer, "OrthogonalLoRA", seed=1)
    >>> product = keras.ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
    >>> bool(keras.ops.max(keras.ops.abs(product)) < 1e-6), bool(keras.ops.std(layer.lora_kernel_b) > 0.01)
    (True, True)

    Args:
        stddev: The size of both factors.
        rank_stable: As in `LoRA`.
        alpha: As in `LoRA`.

    Raises:
        ValueError: If `stddev` is not positive; on `initialize`, if a rank is odd or there are no adapters.

    Reference:
        Datta, 2024, "Rethinking LoRA initialisation"
        (https://datta0.github.io/posts/rethink-lora-init/), by the code of PEFT, `orthogonal_init`. The text
        was not read.
    """

    def __init__(self, stddev: float = 0.1, *, rank_stable: bool = False, alpha: float | None = None) -> None:
        super().__init__(rank_stable=rank_stable, alpha=alpha)
        self.stddev = check_positive("stddev", stddev)

    def _draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        odd = next((site for site in sites if site.adapter and site.adapter.rank % 2), None)
        if odd is not None and odd.adapter:
            raise ValueError(
                f"`model` must have adapters of even rank for OrthogonalLoRA. Received: `{odd.path}` of rank "
                f"{odd.adapter.rank}. Enable LoRA with an even rank."
            )
        return computed(
            type(self).__name__, sites, lambda adapter, _, seed: self._factors(adapter, seed), "kept"
        )

    def _factors(self, adapter: Adapter, seed: int) -> Factors:
        generator, (rows, columns) = np.random.default_rng(seed), adapter.shape
        basis, _ = np.linalg.qr(generator.normal(size=(adapter.rank, adapter.rank)))
        half = adapter.rank // 2
        a = self.stddev * generator.normal(size=(rows, half)) @ basis[0::2]
        b = self.stddev * basis[1::2].T @ generator.normal(size=(half, columns))
        return Factors(None, a.astype("float32"), b.astype("float32"))
