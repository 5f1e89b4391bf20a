"""Laws: initializers that need more than a shape, and what each of them says of itself.

A law draws a kernel as every initializer does. Besides, it sets sizes, filters or means by what
`keras_initx.calibrate` shows it. `calibrate`, `compare`, the callbacks and the command line never ask for the
class of a law. They read the four attributes of `Law` and call the method of its kind:

    class           scope           what `calibrate` calls
    DataDependent   layer or unit   rescale(mean, std) -> scale, shift
    DataFilters     unit            filters(inputs, units) -> kernel
    LabelPrior      unit            means(targets, units, ...) -> mean of each unit
    HeadLaw         head            solve(rows) -> kernel and bias
    AdapterLaw      adapter         start(matrix, rank) -> A and B
    ModelLaw        model           search(task) -> candidates, each a scale for every weight
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeGuard

import numpy as np

from keras_initx._types import Initializer, Layer, Tensor, Variable
from keras_initx.initializers._base import Shown

Need = Literal["gradients", "inputs", "loss", "targets"]
Scope = Literal["adapter", "head", "layer", "model", "unit"]
# A mean, std, scale or shift: a float over all units, or a float64 array of shape (units,).
Statistic: TypeAlias = float | np.ndarray


class Law(Shown):
    """Base of every initializer that `keras_initx.calibrate` has to apply.

    Derive a law of your own from `AdapterLaw`, `DataDependent`, `DataFilters`, `HeadLaw` or `ModelLaw`, which
    say how it acts.

    Attributes:
        needs: What `calibrate` must have for it: `"inputs"`, `"targets"`, `"loss"`, `"gradients"`. A law
            uses other things where they are given, and does without them elsewhere.
        scope: What it sets at a time: each `"unit"` by itself, a whole `"layer"`, a whole `"head"` with its
            bias, an `"adapter"`, or the whole `"model"`.
        weight: Which weight of a layer it initializes: the `"kernel"` or the `"bias"`.
        draws_from_inputs: Whether it makes a kernel from the layer's inputs, so that the old kernel does not
            matter.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"inputs"})
    scope: ClassVar[Scope] = "layer"
    weight: ClassVar[Literal["bias", "kernel"]] = "kernel"
    draws_from_inputs: ClassVar[bool] = False

    def refuses(self, site: "Site") -> str:
        """Returns why the law cannot be applied to a kernel; an empty string if it can.

        Args:
            site: The kernel and its layer.
        """
        return self.refuses_units(site) if self.scope == "unit" else ""

    @staticmethod
    def refuses_units(site: "Site") -> str:
        """Returns why the units of a kernel cannot be set one by one; an empty string if they can.

        Args:
            site: The kernel and its layer.
        """
        if site.unit_axes is None:
            return f"the units of {type(site.layer).__name__} are not known"
        units = math.prod(site.kernel.shape[axis] for axis in site.unit_axes[0])
        if site.bias is not None and math.prod(site.bias.shape) < units:
            return "its units share the entries of its bias"
        return ""


class Site(Protocol):
    """One kernel of a model, as far as a law asks about it; `keras_initx.walk.KernelSite` is one."""

    @property
    def role(self) -> str:
        """Role of the kernel, such as `"dense"`."""

    @property
    def layer(self) -> Layer:
        """The layer that owns the kernel."""

    @property
    def kernel(self) -> Variable:
        """The kernel."""

    @property
    def bias(self) -> Variable | None:
        """The bias that is added to the kernel's output, or None."""

    @property
    def unit_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Axes of the kernel and of the output that index the units; None if they are not known."""

    @property
    def checked(self) -> bool:
        """Whether code outside of Keras computes the layer's output."""


class Task(Protocol):
    """A model, its data and its loss as a function of one scale per weight: the argument of `search`."""

    @property
    def kernel_of(self) -> np.ndarray:
        """For each weight the number of the kernel that it belongs to; int of shape (weights,).

        A kernel belongs to itself, a bias to the kernel of its layer, and any other weight to -1.
        """

    @property
    def is_kernel(self) -> np.ndarray:
        """Whether each weight is a kernel; bool of shape (weights,)."""

    @property
    def norms(self) -> np.ndarray:
        """The Frobenius norm of each weight before it is scaled; float64 of shape (weights,)."""

    @property
    def rows(self) -> int:
        """Rows of the data."""

    def of_weights(self, values: Iterable[Any]) -> list[Any]:
        """Picks the entries that belong to scaled weights from one entry per variable."""

    def scaled(self, scales: Tensor) -> list[Tensor]:
        """Returns the values of all variables, each weight multiplied by its scale; differentiable."""

    def loss(self, values: Sequence[Tensor], rows: slice = slice(None)) -> Tensor:
        """Returns the loss of the model with these values of its variables, on some rows of the data."""

    def compile(self, function: Callable[["Task", Tensor], Any]) -> Callable[[np.ndarray], Any]:
        """Compiles a function of a task and of the scales; it then takes and returns NumPy arrays."""

    def input_sizes(self, scales: np.ndarray) -> np.ndarray:
        """Returns the mean absolute input of each kernel at these scales; 0 for other weights."""


def is_law(initializer: Initializer | None) -> TypeGuard[Law]:
    """Tells whether an initializer is a law, so that only `calibrate` can finish its work.

    >>> from keras_initx.initializers import HeScaled, LSUV
    >>> is_law(LSUV()), is_law(HeScaled())
    (True, False)

    Args:
        initializer: An initializer, as `get` returns it.
    """
    return isinstance(initializer, Law)


def needs_of(initializer: Initializer | type | None) -> frozenset[Need]:
    """Returns what an initializer needs besides a shape; the empty set unless it is a law.

    >>> from keras_initx.initializers import GradInit, HeScaled
    >>> sorted(needs_of(GradInit())), sorted(needs_of(HeScaled()))
    (['gradients', 'inputs', 'loss', 'targets'], [])

    Args:
        initializer: An initializer, as `get` returns it, or its class.
    """
    cls = initializer if isinstance(initializer, type) else type(initializer)
    return cls.needs if issubclass(cls, Law) else frozenset()


def makes_heads(initializer: Initializer | type | None) -> bool:
    """Tells whether an initializer makes heads from their features and targets, and no other kernels.

    >>> from keras_initx.initializers import HeScaled, LinearProbe
    >>> makes_heads(LinearProbe()), makes_heads(HeScaled())
    (True, False)

    Args:
        initializer: An initializer, as `get` returns it, or its class.
    """
    return getattr(initializer, "scope", None) == "head"


def is_bias_initializer(initializer: Initializer | None) -> bool:
    """Tells whether an initializer is made for the bias of a head, and so not for kernels.

    >>> from keras_initx.initializers import HeScaled, PriorBias
    >>> is_bias_initializer(PriorBias()), is_bias_initializer(HeScaled())
    (True, False)

    Args:
        initializer: An initializer, as `get` returns it.
    """
    return getattr(initializer, "weight", "kernel") == "bias"
