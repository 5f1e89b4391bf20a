"""Strategies for heads, and for models that grow in width."""

import dataclasses
import math
from collections.abc import Sequence

from keras_initx._types import Model, Optimizer, Patterns
from keras_initx.checks import check_count, check_positive
from keras_initx.optimizers import Multipliers, law_of
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._depth import Depth
from keras_initx.strategies._model_scales import head_note, tied_note
from keras_initx.strategies._pairs import Pair, check_base, kernel_pairs, vector_pairs
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._residual import output_kernels, scaled, zero
from keras_initx.strategies._scaling import multiplier
from keras_initx.walk import KernelSite, iter_kernels, matches

__all__ = ["MuP", "ZeroHead"]


@dataclasses.dataclass(frozen=True)
class ZeroHead:
    """Sets the kernels that make the model's outputs to 0; all other weights as by `ByRole`.

    Law: W = 0 in the head, so that the first outputs are the head's bias. The loss starts at its value for a
    constant prediction, and no gradient reaches the body at the very first step. Choose it to fine-tune a
    body under a new head, and if early confident errors of a head would do harm. With `initx>PriorBias` as
    the head's bias initializer, the first prediction is the prior.

    >>> import keras
    >>> net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> from keras_initx.strategies import initialize
    >>> [row.std > 0 for row in initialize(net, ZeroHead(), seed=1).rows if row.fans]
    [True, False]

    Args:
        head: Pattern of the head's paths. None to take the kernels that the trace finds before the outputs.

    Raises:
        ValueError: When planning, if no kernel makes the outputs; embeddings and recurrent layers do not
            count.

    Reference:
        Zhang et al., 2019, rule 1 (https://arxiv.org/abs/1901.09321): zero. Goyal et al., 2017, draw the head
        with std 0.01 (https://arxiv.org/abs/1706.02677, section 5.1).
    """

    head: str | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        plan = ByRole().plan(sites)
        heads = [s for s in plan if matches(s, self.head)] if self.head else output_kernels(plan)
        if not heads:
            raise ValueError(
                "`ZeroHead` needs a kernel that makes the model's output. Received: a model in which the "
                f'trace found none, head={self.head!r}. Name it: ZeroHead(head="predictions"). Paths: '
                f"{[site.path for site in plan][-6:]}."
            )
        return plan | {site: zero("makes the output") for site in heads}


@dataclasses.dataclass(frozen=True, eq=False)
class MuP:
    """Draws kernels and scales learning rates by the growth in width (maximal update parametrization).

    Law: the model is compared with a base model of the same structure and smaller width. For each kernel,
    n = fan_in / fan_in of the base, and m is the growth of its outputs.

        weight                              Var W             rate, Adam  SGD    Adafactor   Muon
        hidden: inputs and outputs grow     g^2 / fan_in      1 / n       m / n  1 / sqrt n  sqrt(m / n) / s
        output: only inputs grow            g^2 / (n fan_in)  1 / n       1 / n  1           sqrt(1 / n) / s
        input, embedding: inputs stay       as in the base    1           m      1           sqrt(m) / s
        bias, scale: its length grows       its layer's own   1           m      1           1

    Adam stands for all optimizers that divide each gradient by its size: AdamW, Adamax, Nadam, RMSprop,
    Adagrad, ScheduleFreeAdamW, and Lion. Their epsilon has the factor 1 / m. Adafactor's steps are relative
    to the weights. Muon's have equal singular values, which Keras multiplies by the root of the larger side
    of the kernel: s is the growth of this root. The weights that Keras' Muon leaves to AdamW have Adam's
    factors: vectors, embeddings and kernels of other than two axes.

    Logits then fall as 1 / sqrt(n), where another initializer keeps their size. At base width the strategy
    equals `ByRole`. Choose it to tune a small model and to train a large one with the same learning rate:
    `report.optimizer` returns your optimizer with the multipliers, which `report.learning_rates` shows.

    With `base_depth`, rates follow the depth, too, and the base may have fewer blocks. The last factor of
    each residual branch is divided by m^alpha: a `ResidualScale`, a normalization's scale, or else the last
    kernel, with rates that make it the same as a division in the model. It is for pre-norm nets.

    Two things are the model's. muP divides the logits of attention by the width of a head, where Keras
    divides by its root: let the number of heads grow, not their width. And a tied embedding keeps the base's
    variance, so that its logits must be divided by n. The notes of the report say where the model does not.

    >>> import keras
    >>> def build(width):
    ...     return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(width, name="in"),
    ...         keras.layers.Dense(width, name="hidden"), keras.layers.Dense(3, name="out")], name="net")
    >>> from keras_initx.strategies import initialize
    >>> report = initialize(build(64), MuP(base=build(16)), seed=1)
    >>> report.learning_rates
    {'net/hidden/kernel': 0.25, 'net/out/kernel': 0.25}
    >>> isinstance(report.optimizer(keras.optimizers.AdamW(3e-3)), keras.optimizers.AdamW)
    True

    Args:
        base: The built model of base width.
        optimizer: The optimizer that trains the model: a Keras name such as `"adamw"`, a class, or an object,
            whose settings count for Muon.
        base_depth: Number of the base's residual blocks, to scale by depth, too (CompleteP). None for a base
            of the model's depth.
        alpha: Exponent of the depth, in blocks x + m^-alpha f(x) with m = depth / base_depth.
        branches: Patterns of the layers that compute f. None to take the branches that the trace finds.

    Raises:
        ValueError: If the optimizer is unknown, or `alpha` is not in (0, 1]. When planning, if there is no
            base, its weights do not match the model's, or one of them is larger than the model's; with
            `base_depth`, if one of them has no residual branch.

    Reference:
        Yang et al., 2022, "Tensor Programs V" (https://arxiv.org/abs/2203.03466), table 3, in the form that
        scales learning rates and not the forward pass. The table was quoted from memory; the learning rates
        were compared with `mup.optim` of the authors' package (https://github.com/microsoft/mup). Epsilon:
        Dey et al., 2025 (https://arxiv.org/abs/2505.01618), as in their code. Muon: Yang, Simon and
        Bernstein, 2023 (https://arxiv.org/abs/2310.17813), condition 1. Adafactor's column was derived here.
        Depth: Dey et al., table 1, of which the authors' code was read and not the table
        (https://github.com/EleutherAI/nanoGPT-mup, branch completep; epsilon as on master, which mends it for
        embeddings). SGD's rates by depth were derived here.
    """

    base: Model | None = None
    optimizer: str | Optimizer | type[Optimizer] = "adam"
    base_depth: int | None = None
    alpha: float = 1.0
    branches: Patterns | None = None

    def __post_init__(self) -> None:
        law_of(self.optimizer)
        if check_positive("alpha", self.alpha) > 1:
            raise ValueError(f"`alpha` must be at most 1. Received: alpha={self.alpha!r}.")
        if self.base_depth is not None:
            check_count("base_depth", self.base_depth)
        elif self.alpha != 1 or self.branches is not None:
            name, value = ("alpha", self.alpha) if self.alpha != 1 else ("branches", self.branches)
            raise ValueError(
                f"`{name}` is for models that are deeper than the base. Received: {name}={value!r} without "
                "`base_depth`. Pass the number of the base's blocks: base_depth=2."
            )

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        pairs, depth = self._compared(sites, model)
        plan = ByRole().plan(sites)
        plan |= {pair.own: self._draw(pair, plan[pair.own], model) for pair in pairs if pair.own.fans}
        return plan | depth.plan(plan)

    def multipliers(self, sites: Sequence[KernelSite], model: Model) -> Multipliers:
        """Returns the factors of learning rate, epsilon and weight decay of all weights."""
        law, (kernels, depth) = law_of(self.optimizer), self._compared(sites, model)
        pairs = [*kernels, *vector_pairs(model, self.base, kernels, deeper=self.base_depth is not None)]
        factors = {id(pair.own.kernel): multiplier(law, pair, _size(pair), depth) for pair in pairs}
        return Multipliers.of(model.weights, factors, law)

    def _compared(self, sites: Sequence[KernelSite], model: Model | None) -> tuple[list[Pair], Depth]:
        """Each kernel with its kernel in the base, and the depth relative to the base."""
        check_base(self.base)
        base = list(iter_kernels(self.base))
        pairs = kernel_pairs(sites, base, deeper=self.base_depth is not None)
        if self.base_depth is None:
            return pairs, Depth()
        models = (model, self.base)
        return pairs, Depth.of(sites, base, self.base_depth, self.alpha, self.branches, models)

    def _draw(self, pair: Pair, draw: Draw, model: Model | None) -> Draw:
        if pair.own.tied:
            # `ByRole` draws a tied embedding with Var W = 1 / width, so that states would shrink as the width
            # grows. The factor takes this back, and the variance is the base's.
            return scaled(draw, math.sqrt(pair.outputs), tied_note(pair, model, self.base))
        notes = ["output of muP"] if pair.is_output else []
        notes += [head_note(pair), self._muon_note(pair)]
        return scaled(
            draw, 1 / math.sqrt(pair.inputs) if pair.is_output else 1.0, "; ".join(filter(None, notes))
        )

    def _muon_note(self, pair: Pair) -> str:
        law, axes = law_of(self.optimizer), len(pair.own.kernel.shape)
        if law.kind != "muon" or axes < 3:
            return ""
        return f"Keras' Muon leaves kernels of {axes} axes to AdamW"


def _size(pair: Pair) -> float:
    """How many times as large the entries of a weight are drawn as in the base, in the root mean square."""
    return 1 / pair.inputs if pair.is_output else 1 / math.sqrt(pair.inputs)
