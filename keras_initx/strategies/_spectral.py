"""Spectral scaling: the sizes of weights and steps from the norms that a layer must have."""

import dataclasses
import math
from collections.abc import Sequence

from keras_initx._types import Model, Optimizer
from keras_initx.optimizers import Law, Multiplier, Multipliers, law_of
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._pairs import Pair, check_base, kernel_pairs, vector_pairs
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._residual import scaled
from keras_initx.walk import KernelSite, Weight, iter_kernels

__all__ = ["Spectral"]


@dataclasses.dataclass(frozen=True, eq=False)
class Spectral:
    """Draws kernels and scales learning rates so that weights and steps have spectral norms of one size.

    Law: a kernel W and each step of it, both as a matrix of n outputs by m inputs, have spectral norms that
    are proportional to sqrt(n / m). Vectors of entries of size 1 then go to vectors of entries of size 1,
    and so do their changes, at any width: the representations learn, and do not explode.

        kernel                 std W = g / sqrt(m) * min(1, sqrt(n / m)), with the gain g of `ByRole`
        learning rate, Adam    1 / m
                       SGD     n / m
                       Muon    sqrt(n / m) / s, with s = the root of the larger side of the kernel
                       Adafactor  1 / (m std W)
        biases, scales         as a matrix of m = 1

    As the width of all hidden layers grows, variances and rates grow as under `MuP`, of which this law is a
    derivation. It needs no base model, and holds for layers whose widths differ much. Without a base, the
    factors are those above, and the learning rate is that of a layer of one input: under Adam some 0.1 to 1.
    With a base, the factors are divided by the base's, so that a rate that was tuned on the base stays.

    >>> import keras
    >>> layers = [keras.layers.Input((4,)), keras.layers.Dense(64), keras.layers.Dense(2)]
    >>> from keras_initx.strategies import initialize
    >>> report = initialize(keras.Sequential(layers), Spectral(), seed=1)
    >>> [row.learning_rate for row in report.rows if row.fans]
    [0.25, 0.015625]

    Args:
        base: The built model of the same structure whose factors are 1. None for factors by size.
        optimizer: The optimizer that trains the model: a Keras name such as `"adamw"`, a class, or an object,
            whose settings count for Muon.

    Raises:
        ValueError: If the optimizer is unknown. When planning, if the base does not match the model.

    Reference:
        Yang, Simon and Bernstein, 2023, "A spectral condition for feature learning"
        (https://arxiv.org/abs/2310.17813), condition 1 and the initial scale of their parametrization, from
        memory and the abstract, with the gain of the activation. The rates were derived here for each
        optimizer. A step whose entries have one size has the norm of a matrix of rank 1.
    """

    base: Model | None = None
    optimizer: str | Optimizer | type[Optimizer] = "adam"

    def __post_init__(self) -> None:
        law_of(self.optimizer)

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        plan = ByRole().plan(sites)
        return plan | {site: _draw(site, draw) for site, draw in plan.items() if site.fans}

    def multipliers(self, sites: Sequence[KernelSite], model: Model) -> Multipliers:
        """Returns the factors of learning rate and epsilon of all weights."""
        law = law_of(self.optimizer)
        kernels = _pairs(sites, self.base)
        vectors = vector_pairs(model, self.base or model, kernels)
        factors = {id(pair.own.kernel): self._factor(law, pair) for pair in [*kernels, *vectors]}
        return Multipliers.of(model.weights, factors, law)

    def _factor(self, law: Law, pair: Pair) -> Multiplier:
        rate, epsilon = _by_size(law, pair.own)
        if self.base is None:
            return Multiplier(learning_rate=rate, epsilon=epsilon)
        other, before = _by_size(law, pair.base)
        return Multiplier(learning_rate=rate / other, epsilon=epsilon / before)


def _pairs(sites: Sequence[KernelSite], base: Model | None) -> list[Pair]:
    if base is None:
        return [Pair(site, site) for site in sites]
    check_base(base)
    return kernel_pairs(sites, list(iter_kernels(base)))


def _draw(site: KernelSite, draw: Draw) -> Draw:
    if site.role in ("embedding", "recurrent"):
        # Entries of size 1 and singular values of 1 are those of the law.
        note = "tied: drawn as by `ByRole`, since one kernel cannot have both sizes"
        return dataclasses.replace(draw, note=note) if site.tied else draw
    return scaled(draw, _shrinkage(*_sides(site)), "")


def _by_size(law: Law, weight: KernelSite | Weight) -> tuple[float, float]:
    """The factors of learning rate and epsilon of a weight by its numbers of inputs and outputs."""
    inputs, outputs = _sides(weight)
    if law.kind == "sgd":
        return outputs / inputs, 1.0
    if law.is_muon(weight.kernel):
        side = math.sqrt(max(weight.kernel.shape))
        if not getattr(weight, "fans", None):  # biases of heads, whose entries Muon moves by 1 / side
            return (1.0 if law.by_shape else side), 1.0
        return math.sqrt(outputs / inputs) / (side if law.by_shape else 1.0), 1.0
    size = _shrinkage(inputs, outputs) / math.sqrt(inputs) if law.kind == "adafactor" else 1.0
    return 1 / (inputs * size), 1 / outputs


def _sides(weight: KernelSite | Weight) -> tuple[float, float]:
    """The numbers of inputs of a unit and of outputs; a vector has one input."""
    fans = getattr(weight, "fans", None)
    return (fans.fan_in, fans.fan_out) if fans else (1, max(math.prod(weight.kernel.shape), 1))


def _shrinkage(inputs: float, outputs: float) -> float:
    """How much smaller than by fan_in a kernel is, if it has fewer outputs than inputs."""
    return min(1.0, math.sqrt(outputs / inputs))
