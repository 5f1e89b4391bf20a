"""Strategies for residual nets, most of them without normalization."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras

from keras_initx._types import Model
from keras_initx.initializers import ConstantFill
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._select import find_branches
from keras_initx.walk import KernelSite

__all__ = ["Fixup", "ReZero", "SkipInit", "ZeroResidual", "output_kernels", "scaled", "zero"]

# Roles that are never a head: zeros here would also silence a loop, a lookup, or a whole branch.
_NO_HEADS = ("embedding", "gates", "recurrent")


def zero(note: str) -> Draw:
    """Returns a draw of zeros, with a note."""
    return Draw(ConstantFill(0.0), note)


def scaled(draw: Draw, factor: float, note: str) -> Draw:
    """Returns a draw whose kernel is multiplied by a factor; the initializer must have a gain."""
    own: keras.initializers.Initializer = draw.initializer
    config = own.get_config()
    initializer = type(own).from_config(config | {"gain": config["gain"] * factor})
    return dataclasses.replace(draw, initializer=initializer, note=" ".join(filter(None, (draw.note, note))))


def output_kernels(sites: Iterable[KernelSite]) -> list[KernelSite]:
    """Returns the heads: kernels that make the model's output and nothing else, so that they may be 0."""
    found = [site for site in sites if site.is_output and not site.tied and not site.is_scale]
    return [site for site in found if site.role not in _NO_HEADS]


@dataclasses.dataclass(frozen=True)
class Fixup:
    """Makes deep residual nets trainable without normalization.

    Law: with L residual branches of m layers each, the last kernel of each branch and the classifier are 0.
    The other kernels of a branch are drawn as by `ByRole`, times L^(-1 / (2 m - 2)). A branch of one layer
    has only the zero. Every block is the identity at first, and one step of gradient descent changes the
    net's output by an amount that does not grow with L.

    Choose it for residual nets without normalization. The paper's rule 3 adds scalar biases and multipliers.
    These are layers, which you add to the model (a `ResidualScale` is set to 1). Without them the net trains
    at any depth, but may miss the last of the accuracy.

    >>> import keras
    >>> x = inputs = keras.layers.Input((8,))
    >>> for n in range(4):
    ...     f = keras.layers.Dense(8, "relu", name=f"a{n}")(x)
    ...     x = x + keras.layers.Dense(8, name=f"b{n}")(f)
    >>> from keras_initx.strategies import initialize
    >>> report = initialize(keras.Model(inputs, x), Fixup(), seed=1)
    >>> [row.initializer for row in report.rows if row.path in ("a0", "b0")]  # 4^(-1 / 2)
    ['RandomScaled(gain=0.5)', 'ConstantFill(value=0)']

    Args:
        branches: Patterns of the layers that compute f in x + f(x), for example `"block*"`. The last kernel
            of such a layer, in the order of its attributes, ends the branch. None to take the branches that
            the trace finds.

    Raises:
        ValueError: When planning, if the model has no residual branch, or a pattern matches nothing.

    Reference:
        Zhang, Dauphin and Ma, 2019, "Fixup initialization: residual learning without normalization", the
        three rules of section 3 (https://arxiv.org/abs/1901.09321).
    """

    branches: str | Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        plan, found = ByRole().plan(sites), find_branches("Fixup", sites, self.branches, model)
        for branch in found:
            if branch.layers > 1:
                factor = len(found) ** (-1 / (2 * branch.layers - 2))
                for site in branch.kernels:
                    plan[site] = scaled(plan[site], factor, "")
            plan |= {site: zero("ends a residual branch") for site in branch.ends}
        plan |= {site: zero("makes the output") for site in output_kernels(plan)}
        # ReZero starts these at 0. Here the kernel before is 0, and a product of two zeros never learns.
        ones = Draw(ConstantFill(1.0), "multiplier of Fixup")
        return plan | {site: ones for site in sites if site.role == "residual_scale"}


@dataclasses.dataclass(frozen=True)
class ZeroResidual:
    """Starts every residual branch at 0, by its last normalization's scale or by its last kernel.

    Law: x + f(x) with f = 0 at first; all other weights as by `ByRole`. If a normalization or a
    `ResidualScale` stands between the last kernel of a branch and the sum, its scale is 0 ("zero gamma") and
    the kernel keeps its size. If there is none, the last kernel is 0. If there are several in a row, one of
    them is 0. Choose it for ResNets with batch normalization and large batches, and as a simple start for
    residual nets of moderate depth.

    >>> import keras
    >>> from keras_initx.strategies import initialize
    >>> inputs = keras.layers.Input((4,))
    >>> x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="last")(inputs))
    >>> report = initialize(keras.Model(inputs, inputs + x), ZeroResidual(), seed=1)
    >>> [row.path for row in report.rows if row.note == "ends a residual branch"]
    ['norm/gamma']

    Args:
        branches: Patterns of the layers that compute f in x + f(x), for example `"block*"`. The last kernel
            of such a layer, in the order of its attributes, ends the branch. None to take the branches that
            the trace finds.

    Raises:
        ValueError: When planning, if the model has no residual branch, or a pattern matches nothing.

    Reference:
        Goyal et al., 2017, "Accurate, large minibatch SGD", section 5.1 (https://arxiv.org/abs/1706.02677).
    """

    branches: str | Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        plan = ByRole().plan(sites)
        for branch in find_branches("ZeroResidual", sites, self.branches, model):
            plan |= {site: zero("ends a residual branch") for site in branch.stops}
        return plan


@dataclasses.dataclass(frozen=True)
class ReZero:
    """Starts the learned scale at the end of every residual branch at 0.

    Law: x + a f(x) with a = 0 at first, where a is the weight of an `initx.layers.ResidualScale` in the
    model; all other weights as by `ByRole`. Each block is the identity at first, so that the Jacobian of the
    net at any depth is the product of its first and last layers' Jacobians. Choose it for very deep residual
    nets and transformers, if you can add a layer to their code.

    >>> import keras
    >>> from keras_initx.layers import ResidualScale
    >>> from keras_initx.strategies import initialize
    >>> inputs = keras.layers.Input((4,))
    >>> model = keras.Model(inputs, inputs + ResidualScale(name="a")(keras.layers.Dense(4)(inputs)))
    >>> report = initialize(model, ReZero(), seed=1)
    >>> [row.initializer for row in report.rows if row.path == "a/scale"]
    ['ConstantFill(value=0)']

    Raises:
        ValueError: When planning, if the model has no `ResidualScale`.

    Reference:
        Bachlechner et al., 2020, "ReZero is all you need", equation 1 (https://arxiv.org/abs/2003.04887).
    """

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        return _zero_scales(type(self).__name__, sites)


@dataclasses.dataclass(frozen=True)
class SkipInit:
    """Starts a scalar at the end of each residual branch at 0; the same initialization as `ReZero`.

    Law: x + a f(x) with a = 0 at first, where a is the weight of an `initx.layers.ResidualScale` in the
    model; all other weights as by `ByRole`. The paper has residual nets with and without normalization.
    Choose it in place of batch normalization at the ends of branches.

    >>> SkipInit() == SkipInit()
    True

    Raises:
        ValueError: When planning, if the model has no `ResidualScale`.

    Reference:
        De and Smith, 2020, "Batch normalization biases residual blocks towards the identity function in deep
        networks" (https://arxiv.org/abs/2002.10444).
    """

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns the draw of each kernel."""
        return _zero_scales(type(self).__name__, sites)


def _zero_scales(strategy: str, sites: Sequence[KernelSite]) -> Plan:
    scales = [site for site in sites if site.role == "residual_scale"]
    if not scales:
        raise ValueError(
            f"`{strategy}` is for models with `initx.layers.ResidualScale` at the ends of their residual "
            "branches. Received: a model without this layer. Write x + ResidualScale()(f(x)), or take "
            "'ZeroResidual' or 'Fixup', which need no such layer."
        )
    return ByRole().plan(sites) | {site: zero("scales a residual branch") for site in scales}
