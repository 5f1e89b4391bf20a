"""`FromModel`: weights from another model of another width, depth, input, output or vocabulary."""

import dataclasses
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import keras

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Initializer, Model, Patterns, Tensor
from keras_initx.checks import check_choice, check_finite
from keras_initx.donors import (
    DEPTHS,
    NEW_ROWS,
    Carried,
    Carrier,
    Grid,
    Kinds,
    Pair,
    Words,
    carry_all,
    check_donor,
    check_grid,
    is_adapter,
    match,
    named_rows,
    other_operations,
    other_settings,
    pieces_of,
    read_donor,
    shared_words,
    two_vocabularies,
)
from keras_initx.strategies._new_blocks import at_zero
from keras_initx.strategies._plan import Draw, Strategy, WholePlan
from keras_initx.uses import Coupling
from keras_initx.walk import ATTENTION, KernelSite, Weight, coupled, iter_kernels, iter_weights

__all__ = ["FromModel"]


class FromModel:
    """Takes every weight from the counterpart in another model, the donor; what has none is drawn anew.

    The two models may differ in width, depth, input channels, positions, classes and vocabulary. Their
    weights are paired by the names that the user gave, and else by order and structure. The trace tells which
    axes of the weights number the same units, so that all weights take the same units of the donor: through
    normalizations, residual sums, heads, gates, concatenations and `Flatten`.

    Law: of m units that have n in the donor, `"select"` takes the evenly spaced ones: i n / m, rounded where
    m does not divide n. `"clone"` takes unit i mod n for unit i, and a kernel that sums c copies of a unit
    takes 1 / c of the donor's weight, so that the model computes the donor's function. Where m is no multiple
    of n, the rest are copies of units that are drawn. Queries of heads that get r times as wide are divided
    by the root of r. The row tells if the function is another, or if that is not known.

    - Input channels of a first convolution: their sum for one channel, else the channels again and again,
      times n / m.
    - Positions of an image: resampled by cubic interpolation, without the tokens before them. Of a text: the
      first m, or the n again and again.
    - Classes and words have names, and are taken by `rows` or `vocabulary` alone. Without these, a head of
      another number of classes is drawn anew.

    Choose it if a trained model of another size exists. Do not choose it for a donor whose layers compute
    something else: pairs are found by structure, not by the functions that the layers learned.

    >>> build = lambda n: keras.Sequential(
    ...     [keras.layers.Input((8,)), keras.layers.Dense(n, "relu"), keras.layers.Dense(n, "relu"),
    ...      keras.layers.Dense(3)]
    ... )
    >>> from keras_initx import initialize
    >>> donor, model = build(16), build(32)
    >>> report = initialize(model, FromModel(donor, width="clone"))
    >>> x = keras.random.normal((4, 8))
    >>> bool(keras.ops.max(keras.ops.abs(model(x) - donor(x))) < 1e-5), report.matched
    (True, 1.0)

    Args:
        donor: A built Keras model, or the path of a .keras file. It is not changed. `initialize` needs one.
        width: `"select"` for a narrower model, `"clone"` for a wider one.
        depth: The donor's blocks for a model with more or fewer blocks: `"first"`, `"uniform"` (evenly
            spaced), `"stack"` (again and again), or `"identity"` (the first; more blocks are drawn and begin
            at zero).
        rows: For patterns of paths of heads or embeddings, the donor's row of each class or word: a list as
            long as the rows of the model, with None for a new row.
        vocabulary: The donor's words and the model's, in the order of their rows: lists, mappings of words to
            their rows, or layers and tokenizers with `get_vocabulary`. All embeddings, and all units that
            reach the output, with as many rows take the rows of their words, and their report rows say so.
            An empty string after the first row, or beyond the words up to the `max_tokens` of a layer, is a
            row without a word, which is new.
        new_rows: The values of new rows: `"mean"` of the donor's rows; `"normal"`, a draw with their mean and
            1e-5 of their covariance; `"zeros"`; or `"like"`, as `like` tells, with the mean for the rest.
        like: For new words, a word of the donor, or several whose mean counts.
        grid: Height and width of the positions of an image in the donor, and in the model. None for squares.
        mapping: Paths of layers or weights of the model, and their counterparts in the donor, where order and
            names do not tell. None for a part that is drawn anew.
        branches: Patterns of the layers that are residual branches, for `depth="identity"`. None to take
            those that the trace finds.
        noise: Standard deviation of noise on the shares of clones, relative to that of the kernel. The noise
            sums to 0 over the copies of a unit: the function stays, and the copies learn apart.
        otherwise: Initializer or strategy of kernels without a counterpart.

    Raises:
        ValueError: If an argument is not one of these; on `initialize`, if the weights cannot be paired, a
            weight has several candidates, or the model is wider than the donor under `"select"`, or narrower
            under `"clone"`.

    Reference:
        Xu et al., 2024, "Initializing models with larger ones", https://arxiv.org/abs/2311.18823 (`"select"`:
        section 3, uniform elements; as in the authors' code, but for widths that do not divide, where their
        last index lies outside, and for heads, which are taken whole). Samragh et al., 2024, "Scaling smart:
        accelerating large language model pre-training with small model initialization",
        https://arxiv.org/abs/2409.12903 (`"clone"`: tiled weights over the number of copies; code read).
        Chen, Goodfellow and Shlens, 2016, "Net2Net", https://arxiv.org/abs/1511.05641 (random copies, and
        their shares). Chen et al., 2022, "bert2BERT", https://arxiv.org/abs/2110.07143 (function-preserving
        expansion of a transformer). Gong et al., 2019, "Efficient training of BERT by progressively stacking"
        (`"stack"`). Wightman, timm (channels: `adapt_input_conv`). Carreira and Zisserman, 2017,
        https://arxiv.org/abs/1705.07750 (kernels of one more dimension: repeated, and divided by the
        repetitions). Hewitt, 2021, "Initializing new word embeddings for pretrained language models"
        (`"mean"`, `"normal"`). The papers were not all read: the laws are those of the code that is named.
    """

    # `initialize` gives it all weights, not kernels alone.
    takes_all_weights = True

    def __init__(
        self,
        donor: Model | str | os.PathLike[str] | None = None,
        *,
        width: Literal["select", "clone"] = "select",
        depth: Literal["first", "uniform", "stack", "identity"] = "uniform",
        rows: Mapping[str, Sequence[int | None]] | None = None,
        vocabulary: tuple[Words, Words] | None = None,
        new_rows: Literal["mean", "normal", "like", "zeros"] = "mean",
        like: Mapping[str, str | Sequence[str]] | None = None,
        grid: Grid | None = None,
        mapping: Mapping[str, str | None] | None = None,
        branches: Patterns | None = None,
        noise: float = 0.0,
        otherwise: Initializer | Strategy = "by_role",
    ) -> None:
        self.donor: Model | Path | None = None if donor is None else check_donor(donor)
        self.width = check_choice("width", width, ("select", "clone"))
        self.depth = check_choice("depth", depth, DEPTHS)
        self.new_rows = check_choice("new_rows", new_rows, NEW_ROWS)
        self.rows, self.mapping, self.grid = dict(rows or {}), dict(mapping or {}), check_grid(grid)
        self.branches = branches
        self.noise = _check_noise(noise)
        self.otherwise = otherwise
        self._words = None if vocabulary is None else two_vocabularies(vocabulary)
        if like and self._words is None:
            raise ValueError(
                "`like` needs `vocabulary`, which tells the rows of words. Received: vocabulary=None."
            )
        self._like = pieces_of(like, *self._words) if like and self._words else {}

    def plan(self, weights: Sequence[KernelSite | Weight], model: Model) -> WholePlan:
        """Returns the value of each weight that has a counterpart, and the draws of the other kernels.

        Args:
            weights: All weights of the model.
            model: The model.
        """
        if self.donor is None:
            raise ValueError("`donor` must be given. Received: donor=None. Pass FromModel(trained_model).")
        donor = read_donor(self.donor)
        sites = list(iter_kernels(donor))
        theirs: list[KernelSite | Weight] = [*sites, *iter_weights(donor, sites)]
        mine, theirs = ([w for w in side if not is_adapter(w)] for side in (weights, theirs))
        pairs = match(mine, theirs, self.depth, self.mapping, (model, donor))
        # Weights of equal shapes are copied: then no run has to tell how their axes belong together.
        copied = all(p.donor is None or p.own.kernel.shape == p.donor.kernel.shape for p in pairs)
        runs = () if copied and not self.rows and self._words is None else (model, donor)
        carrier = self._carrier(pairs, model, runs)
        self._warn()
        told = [other_settings(pairs, model, donor)]
        if runs and len(mine) == len(theirs):
            told.append(other_operations(pairs, carrier.own, carrier.donor))
        plan: WholePlan = {}
        rest: dict[KernelSite, str] = {}
        for pair, carried in zip(pairs, carry_all(carrier, pairs), strict=True):
            if carried.value is not None:
                plan[pair.own] = _draw(pair, carried, [notes.get(id(pair.own), "") for notes in told])
            elif isinstance(pair.own, KernelSite):
                rest[pair.own] = carried.note
            else:
                plan[pair.own] = Draw(None, carried.note)
        plan |= self._rest(rest, model)
        if self.depth == "identity":
            kernels = [w for w in weights if isinstance(w, KernelSite)]
            plan |= at_zero(pairs, kernels, plan, self.branches, model)
        return plan

    def _warn(self) -> None:
        if self._words is None:
            return
        shared, most = shared_words(*self._words)
        if 2 * shared < most:  # of another language, or in another case or with other marks
            warnings.warn(
                f"`vocabulary`: the donor has {shared} of {len(self._words[1])} words of the model; the "
                f"others are new rows. Words must be written as in the donor: {self._words[0][:5]} there, "
                f"{self._words[1][:5]} here.",
                stacklevel=2,
            )

    def _carrier(self, pairs: Sequence[Pair], model: Model, runs: Sequence[Model]) -> Carrier:
        (own, failure), (other, also) = map(coupled, runs) if runs else [(Coupling({}, ()), "")] * 2
        if (failure or also) and self.width == "clone":
            which = "model" if failure else "donor"
            raise ValueError(
                f"`width='clone'` needs the operations of both models. Received: a {which} that tells none: "
                f"{failure or also}."
            )
        kernels = [p.own for p in pairs if isinstance(p.own, KernelSite)]
        kinds = Kinds(own, kernels)
        return Carrier(
            own=own,
            donor=other,
            kinds=kinds,
            width=self.width,
            rows=named_rows(pairs, kinds, self.rows, self._words),
            new_rows=self.new_rows,
            like=self._like,
            grid=self.grid,
            noise=self.noise,
            seed=random.getrandbits(31),  # `initialize` seeds Python's generator
            queries=frozenset(_projections(model, "query")),
            attention=frozenset(_projections(model, "query", "key")),
            before_logits=frozenset(_before_logits(kernels, own)),
        )

    def _rest(self, reasons: Mapping[KernelSite, str], model: Model) -> WholePlan:
        """The draws of the kernels without a counterpart, with the reasons."""
        if not reasons:
            return {}
        from keras_initx.strategies._initialize import resolve  # which imports this module

        known = [site for site in reasons if not site.skip and (site.fans or site.is_scale)]
        chosen = resolve(self.otherwise)
        if hasattr(chosen, "plan"):
            plan = chosen.plan(known, model)
        else:
            plan = {} if chosen is None else {site: Draw(chosen) for site in known if site.fans}
        none: Draw = Draw(None)
        found = {site: plan.get(site, none) for site in reasons}
        return {
            site: dataclasses.replace(draw, note="; ".join(filter(None, (reasons[site], draw.note))))
            for site, draw in found.items()
        }


def _projections(model: Model, *names: str) -> set[int]:
    """The ids of the weights of projections in Keras' attention."""
    attention = [layer for layer in flatten_layers(model) if isinstance(layer, ATTENTION)]
    found = [sub for layer in attention for sub in flatten_layers(layer, include_self=False)]
    return {id(variable) for layer in found if layer.name in names for variable in layer.weights}


def _before_logits(sites: Sequence[KernelSite], coupling: Coupling) -> set[int]:
    """The ids of the weights of the normalization whose output a table of words turns into logits."""
    placed = [site for site in sites if site.position is not None]
    last = max(placed, key=lambda site: site.position or 0, default=None)
    if (
        last is None
        or not any(site.tied for site in sites)
        or last.role != "scale"
        or last.branch is not None
    ):
        return set()
    # A scale that starts at zeros is one beside the value that is stored.
    scaled = {id(v) for v in last.layer.weights}
    tables = {id(site.kernel) for site in sites if site.tied}
    plain = isinstance(last.initializer, keras.initializers.Ones)
    return scaled if plain and coupling.flow.undoes(scaled, tables) else set()


def _draw(pair: Pair, carried: Carried, more: Sequence[str]) -> Draw:
    def donor(_: Sequence[int], dtype: str | None = None) -> Tensor:
        assert carried.value is not None
        return keras.ops.convert_to_tensor(carried.value(), dtype)

    assert pair.donor is not None
    note, path = "; ".join(filter(None, (carried.note, *more))), pair.donor.path
    return Draw(donor, note, as_is=True, source=path, share=carried.share, computed=True)


def _check_noise(noise: float) -> float:
    if check_finite("noise", noise) < 0:
        raise ValueError(f"`noise` must not be negative. Received: noise={noise}.")
    return float(noise)
