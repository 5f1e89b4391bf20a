"""Strategies for residual nets, most of them without normalization."""

import dataclasses
from collections.abc import Iterable, Sequence

from keras_initx._types import Model
from keras_initx.initializers import ConstantFill
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Draw, Plan
from keras_initx.strategies._select import find_branches
from keras_initx.walk import KernelSite

__all__ = ["Fixup", "ReZero", "SkipInit", "ZeroResidual", "output_kernels", "scaled", "zero"]

_NO_HEADS = ("embedding", "gates", "recurrent")


def zero(note: str) -> Draw:
    """Returns a draw of zeros."""
    return Draw(ConstantFill(0.0), note)


def scaled(draw: Draw, factor: float, note: str) -> Draw:
    """Returns a draw whose kernel is multiplied by a factor, for initializers with a gain."""
    config = draw.initializer.get_config()
    initializer = type(draw.initializer).from_config(config | {"gain": config["gain"] * factor})
    return dataclasses.replace(draw, initializer=initializer, note=" ".join(filter(None, (draw.note, note))))


def output_kernels(sites: Iterable[KernelSite]) -> list[KernelSite]:
    """Returns the heads: kernels that make the model's output, where zeros would stop nothing else."""
    found = [site for site in sites if site.is_output and not site.tied and not site.is_scale]
    return [site for site in found if site.role not in _NO_HEADS]


@dataclasses.dataclass(frozen=True)
class Fixup:
    """Fixed-update initialization: deep residual nets without normalization.

    Law: with L residual branches of m layers each, the last kernel of each branch and the classifier are 0,
    and the other kernels of a branch are those of `ByRole` times L^(-1 / (2 m - 2)). Every block is the
    identity at first, and one step of gradient descent changes the net's output by an amount that does not
    grow with L. A branch of one layer has only the zero. Choose it for residual nets without normalization.
    The scalar biases and multipliers of the paper's rule 3 are layers, so the model's (a `ResidualScale` is
    set to 1): without them depth is reached, the last of the accuracy may not be.

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
        branches: Patterns of the layers that are residual branches; None to take those that the trace finds.
            Of such a layer's kernels, in the order of its attributes, the last ends its branch.

    Raises:
        ValueError: When planning, if there is no residual branch or a pattern matches nothing.

    Reference:
        Zhang, Dauphin and Ma, 2019, "Fixup initialization: residual learning without normalization", the
        three rules of section 3 (https://arxiv.org/abs/1901.09321).
    """

    branches: str | Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns what draws each kernel."""
        plan, found = ByRole().plan(sites), find_branches("Fixup", sites, self.branches, model)
        for branch in found:
            if branch.layers > 1:
                factor = len(found) ** (-1 / (2 * branch.layers - 2))
                for site in branch.kernels:
                    plan[site] = scaled(plan[site], factor, "")
            plan |= {site: zero("ends a residual branch") for site in branch.ends}
        plan |= {site: zero("makes the output") for site in output_kernels(plan)}
        ones = Draw(ConstantFill(1.0), "multiplier of Fixup")  # a 0 here and a 0 kernel would never learn
        return plan | {site: ones for site in sites if site.role == "residual_scale"}


@dataclasses.dataclass(frozen=True)
class ZeroResidual:
    """Every residual branch starts at 0: its last normalization's scale, or else its last kernel.

    Law: x + f(x) with f = 0 at first, all else as in `ByRole`. Where a normalization (or a `ResidualScale`)
    stands between the last kernel of a branch and the sum its scale is 0 ("zero gamma"), so that the kernel
    keeps its size; where none does the kernel is. Of several in a row one is 0. Choose it for ResNets with
    batch normalization and large batches, and as a simple start for residual nets of moderate depth.

    >>> import keras
    >>> from keras_initx.strategies import initialize
    >>> inputs = keras.layers.Input((4,))
    >>> x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="last")(inputs))
    >>> report = initialize(keras.Model(inputs, inputs + x), ZeroResidual(), seed=1)
    >>> [row.path for row in report.rows if row.note == "ends a residual branch"]
    ['norm/gamma']

    Args:
        branches: As in `Fixup`.

    Raises:
        ValueError: When planning, if there is no residual branch or a pattern matches nothing.

    Reference:
        Goyal et al., 2017, "Accurate, large minibatch SGD", section 5.1 (https://arxiv.org/abs/1706.02677).
    """

    branches: str | Sequence[str] | None = None

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns what draws each kernel."""
        plan = ByRole().plan(sites)
        for branch in find_branches("ZeroResidual", sites, self.branches, model):
            plan |= {site: zero("ends a residual branch") for site in branch.stops}
        return plan


@dataclasses.dataclass(frozen=True)
class ReZero:
    """Every residual branch ends in a learned scale, which starts at 0.

    Law: x + a f(x) with a = 0 at first, in `initx.layers.ResidualScale`; all else as in `ByRole`. Each block
    is the identity, and the Jacobian of the whole net is that of its first and last layers, at any depth.
    Choose it for very deep residual nets and transformers whose code you can change.

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
        """Returns what draws each kernel."""
        return _zero_scales(type(self).__name__, sites)


@dataclasses.dataclass(frozen=True)
class SkipInit:
    """The initialization of `ReZero`, as published for residual nets with and without normalization.

    Law: a scalar a = 0 at the end of each residual branch. Choose it in place of batch normalization at the
    ends of branches.

    >>> SkipInit() == SkipInit()
    True

    Raises:
        ValueError: As in `ReZero`.

    Reference:
        De and Smith, 2020, "Batch normalization biases residual blocks towards the identity function in deep
        networks" (https://arxiv.org/abs/2002.10444).
    """

    def plan(self, sites: Sequence[KernelSite], model: Model | None = None) -> Plan:
        """Returns what draws each kernel."""
        return _zero_scales(type(self).__name__, sites)


def _zero_scales(scheme: str, sites: Sequence[KernelSite]) -> Plan:
    scales = [site for site in sites if site.role == "residual_scale"]
    if not scales:
        raise ValueError(
            f"`{scheme}` is for models whose residual branches end in `initx.layers.ResidualScale`. "
            "Received: a model that has none. Write x + ResidualScale()(f(x)), or take 'ZeroResidual' or "
            "'Fixup', which need no layer of their own."
        )
    return ByRole().plan(sites) | {site: zero("scales a residual branch") for site in scales}
