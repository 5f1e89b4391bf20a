"""Where each kernel stands in the flow of a traced model: depth, activations around it, residual branches."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers

from keras_initx.walk._kernels import known_class, rule_of
from keras_initx.walk._trace import Step, Trace

__all__ = ["Branch", "Flow", "Position"]

# Activations by the class of the operation that computes them without arguments.
_ACTIVATIONS = {
    "ReLU": "relu", "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign", "SoftShrink": "soft_shrink", "SparsePlus": "sparse_plus", "Silu": "silu",
    "SquarePlus": "squareplus", "LogSigmoid": "log_sigmoid", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "Selu": "selu", "HardTanh": "hard_tanh", "TanhShrink": "tanh_shrink",
    "HardShrink": "hard_shrink", "SparseSigmoid": "sparse_sigmoid", "Tanh": "tanh", "Exp": "exponential",
}  # fmt: skip
# Those with arguments stand for themselves, as callables.
_PARAMETRIC = ("Celu", "Elu", "Gelu", "LeakyRelu", "Threshold", "Erf", "Sin", "Cos", "Softmax")
_ACTIVATION_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Softmax,
)  # fmt: skip
_NORMALIZATIONS = (
    layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization,
    layers.RMSNormalization, layers.UnitNormalization, layers.Normalization,
)  # fmt: skip
_SUMS = ("Add", "Subtract", "Average")
_PRODUCTS = ("Multiply",)
_MIXTURES = ("Dot", "DotProductAttention", "Einsum", "Matmul")
# Layers and operations through which a signal passes with its distribution about unchanged.
_PASSING = {
    *(
        "Cast",
        "Concatenate",
        "ConvertToTensor",
        "ExpandDims",
        "Flatten",
        "GetItem",
        "Identity",
        "Moveaxis",
        "Pad",
        "Permute",
    ),
    *("Repeat", "RepeatVector", "Reshape", "Ravel", "Roll", "Slice", "Split", "Squeeze", "Stack", "Swapaxes"),
    *(
        "Take",
        "TakeAlongAxis",
        "Tile",
        "Transpose",
        "Where",
        "BroadcastTo",
        "Copy",
        "StopGradient",
        "Unstack",
    ),
    *(
        "Dropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "GaussianDropout",
        "AlphaDropout",
    ),
    *("GaussianNoise", "ActivityRegularization", "Masking", "TimeDistributed", "DropPath", "Resize"),
    *(f"{name}{n}D" for n in (1, 2, 3) for name in ("Cropping", "UpSampling", "ZeroPadding")),
    *(f"{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")),
    *("MaxPool", "AveragePool", "Mean", "Divide", "Negative", "Rescaling"),
}
_GATES = {"sigmoid": "glu", "relu": "reglu", "gelu": "geglu", "silu": "swiglu"}
_UNKNOWN = object()


@dataclasses.dataclass(frozen=True)
class Branch:
    """A residual branch: f of x + f(x).

    Attributes:
        index: Number of the branch, in the order in which branches end.
        layers: Kernels one after another on the longest way through it.
    """

    index: int
    layers: int


@dataclasses.dataclass(frozen=True)
class Position:
    """What a trace tells of one kernel; the attributes are those of `KernelSite`."""

    activation: Any = None
    feeds: Any = None
    depth: int | None = None
    branch: Branch | None = None
    ends_branch: bool = False
    is_output: bool = False
    position: int | None = None
    cross: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes, each as it is."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def class_name(step: Step) -> str:
    """Returns the name of a step's class; that of Keras' class for its subclasses."""
    names = (cls.__name__ for cls in type(step.operation).__mro__ if cls.__module__.startswith("keras."))
    return next(names, type(step.operation).__name__)


class Flow:
    """The flow of a model, from its trace.

    Args:
        trace: The trace.
        chain: Tells how many kernels one after another a layer has.
    """

    def __init__(self, trace: Trace, chain: Callable[[Any], int]) -> None:
        self.trace, self.steps = trace, trace.steps
        is_layer = [isinstance(step.operation, layers.Layer) for step in self.steps]
        self.weights = [chain(s.operation) if own else 0 for s, own in zip(self.steps, is_layer, strict=True)]
        self.children: list[list[int]] = [[] for _ in self.steps]
        self.ancestors: list[int] = []  # bit sets
        self.before: list[int] = []  # kernels on the longest way to a step
        self.ran: dict[int, tuple[int, int]] = {}  # step and place in it, by layer
        for index, step in enumerate(self.steps):
            bits, longest = 1 << index, 0
            for parent in step.parents:
                self.children[parent].append(index)
                bits |= self.ancestors[parent]
                longest = max(longest, self.before[parent] + self.weights[parent])
            self.ancestors.append(bits)
            self.before.append(longest)
            for layer, place in () if step.opaque else _owners(step.operation):
                self.ran.setdefault(id(layer), (index, place))
        self._sources: dict[int, Any] = {}
        self.branches: dict[int, Branch] = {}
        self.ends: set[int] = set()
        self._find_branches()
        self.outputs = {
            end for output in trace.outputs for end in self._last_kernels(output, stop_at_sums=True)
        }

    def place(self, site: Any) -> Position:
        """Tells where a site stands."""
        if not self.steps:
            return Position(note=f"the model was not traced: {self.trace.failure}")
        if id(site.layer) not in self.ran:
            return Position(note="the trace did not reach it, or could not see into a layer around it")
        index, place = self.ran[id(site.layer)]
        _, rule = rule_of(site.layer)
        names = list(rule.kernels)
        inside = names.index(site.kernel.name) if rule.chained and site.kernel.name in names else place
        source = None if inside else self._source_of_inputs(index)
        last = inside == max(self.weights[index], 1) - 1
        note = "what feeds it is not known; it is taken as linear" if source is _UNKNOWN else ""
        if site.role in ("recurrent", "scale", "residual_scale"):  # no gain is theirs to have
            source, note = None, ""
        return Position(
            activation=None if source is _UNKNOWN else source,
            feeds=self._sink(index) if last else None,
            depth=self.before[index] + inside,
            branch=self.branches.get(index),
            ends_branch=index in self.ends and last,
            is_output=index in self.outputs and last,
            position=index,
            cross=bool(site.attention) and self._is_cross(index),
            note=note,
        )

    def _source_of_inputs(self, index: int) -> Any:
        found = [self._source(parent) for parent in self.steps[index].parents[:1]]
        return found[0] if found else None

    def _source(self, index: int) -> Any:
        """The activation that made the output of a step."""
        if index not in self._sources:
            self._sources[index] = self._find_source(self.steps[index], index)
        return self._sources[index]

    def _find_source(self, step: Step, index: int) -> Any:
        operation, name = step.operation, class_name(step)
        if operation is None or isinstance(operation, _NORMALIZATIONS) or not step.parents:
            return None
        if step.opaque:
            return _UNKNOWN
        activation = activation_of(operation)
        if activation is not None:
            return activation or None
        if self.weights[index]:
            return _UNKNOWN if isinstance(operation, layers.RNN | layers.Bidirectional) else None
        if name in _SUMS or name in _MIXTURES:
            return self._source(step.parents[0]) if len(step.parents) == 1 and name in _SUMS else None
        if name in _PRODUCTS:
            return self._product(step)
        if name == "ResidualScale" or name in _PASSING or type(operation).__name__ in _PASSING:
            sources = [self._source(parent) for parent in step.parents]
            return sources[0] if all(_same(source, sources[0]) for source in sources) else _UNKNOWN
        return _UNKNOWN

    def _product(self, step: Step) -> Any:
        """A gated linear unit, a normalization written out, or a signal times numbers."""
        if len(step.parents) == 1:
            return self._source(step.parents[0])
        names = [class_name(self.steps[parent]) for parent in step.parents]
        if "Rsqrt" in names or "Reciprocal" in names:
            return None
        sources = [self._source(parent) for parent in step.parents]
        gates = [s for s in sources if s is not None and s is not _UNKNOWN]
        if len(gates) == 1 and None in sources:
            label = gates[0] if isinstance(gates[0], str) else type(gates[0]).__name__.lower()
            return _GATES.get(label, _UNKNOWN)
        return _UNKNOWN

    def _sink(self, index: int) -> Any:
        """The first activation that the output of a kernel goes through."""
        own = activation_of(self.steps[index].operation)
        if own is not None:
            return own or None
        queue, seen = list(self.children[index]), set()
        while queue:
            child = queue.pop(0)
            step = self.steps[child]
            if child in seen or step.opaque:
                continue
            seen.add(child)
            if self.weights[child]:
                continue
            activation = activation_of(step.operation)
            if activation:
                return activation
            name = class_name(step)
            if isinstance(step.operation, _NORMALIZATIONS) or name in _PASSING or name in _SUMS:
                queue.extend(self.children[child])
        return None

    def _is_cross(self, index: int) -> bool:
        """Whether the inputs of a query's attention layer have more than one source."""
        owner = self.steps[index].parents[:1]
        mixes = [child for child in self.children[index] if child > index]
        inputs = {
            self.steps[end].parents[:1]
            for child in mixes
            for end in self._last_kernels(child, stop_at_sums=False)
        }
        return any(other != owner for other in inputs)

    def _last_kernels(self, index: int, stop_at_sums: bool) -> Iterator[int]:
        """The kernels whose outputs reach a step with no other kernel in between."""
        queue, seen = [index], set()
        while queue:
            here = queue.pop()
            if here in seen:
                continue
            seen.add(here)
            step = self.steps[here]
            if self.weights[here]:
                yield here
                continue
            if stop_at_sums and class_name(step) in _SUMS and len(step.parents) > 1:
                continue
            parents = step.parents
            if class_name(step) in _PRODUCTS and len(parents) > 1:
                gates = {p for p in parents if self._source(p) in ("sigmoid", "hard_sigmoid")}
                parents = tuple(p for p in parents if p not in gates) or parents
            queue.extend(parents)

    def _find_branches(self) -> None:
        found = []
        for index, step in enumerate(self.steps):
            if class_name(step) == "Add" and len(step.parents) > 1:
                found += [(index, *branch) for branch in self._branches_into(step)]
        for number, (_, operand, members, length) in enumerate(found):
            branch = Branch(number, length)
            ends = {end for end in self._last_kernels(operand, stop_at_sums=False) if members >> end & 1}
            self.ends |= ends | set(self._scales_after(operand, members))
            for member in _bits(members):
                # Branches are found in order, so that an inner one comes before those around it.
                self.branches.setdefault(member, branch)

    def _branches_into(self, step: Step) -> Iterator[tuple[int, int, int]]:
        """The operands of a sum that are residual branches: their step, their members, their length."""
        common = functools.reduce(int.__and__, (self.ancestors[parent] for parent in step.parents))
        if not common:
            return
        fork = common.bit_length() - 1
        shortest, longest = self._ways(fork, max(step.parents))
        ways = [(shortest[parent], longest[parent], parent) for parent in step.parents]
        least, most, skip = min(ways)
        for short, long, operand in ways:
            longer = short > 0 if least == 0 else long > most
            if operand != skip and longer:
                after = sum(1 << index for index in shortest if index != fork)
                yield operand, self.ancestors[operand] & after, long

    def _ways(self, fork: int, last: int) -> tuple[dict[int, int], dict[int, int]]:
        """Kernels on the shortest and the longest way from a step to those after it."""
        shortest, longest = {fork: 0}, {fork: 0}
        for index in range(fork + 1, last + 1):
            parents = [parent for parent in self.steps[index].parents if parent in shortest]
            if parents:
                shortest[index] = min(shortest[p] for p in parents) + self.weights[index]
                longest[index] = max(longest[p] for p in parents) + self.weights[index]
        return shortest, longest

    def _scales_after(self, operand: int, members: int) -> Iterator[int]:
        """The normalizations and residual scales between the last kernel of a branch and its sum."""
        queue = [operand]
        while queue:
            here = queue.pop()
            if not members >> here & 1 or self.weights[here]:
                continue
            if known_class(self.steps[here].operation):
                yield here
            queue.extend(self.steps[here].parents)


def activation_of(operation: Any) -> Any:
    """The activation that ends a layer or operation: None if it has none to speak of, "" if it is linear."""
    if isinstance(operation, layers.Activation):
        operation = operation.activation
        return "" if operation is keras.activations.linear else _named(operation)
    if isinstance(operation, _ACTIVATION_LAYERS):
        plain = type(operation) is layers.ReLU and operation.max_value is None
        plain = plain and not operation.negative_slope and not operation.threshold
        return "relu" if plain else operation
    if isinstance(operation, layers.Layer):
        if known_class(operation) is None or isinstance(operation, layers.RNN | layers.Bidirectional):
            return None
        activation = getattr(operation, "activation", None)
        if activation is None:
            return "" if hasattr(operation, "activation") else None
        return "" if activation is keras.activations.linear else _named(activation)
    name = type(operation).__name__
    return _ACTIVATIONS.get(name) or (operation if name in _PARAMETRIC else None)


def _named(activation: Any) -> Any:
    name = getattr(activation, "__name__", "")
    return name if getattr(keras.activations, name or "?", None) is activation else activation


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, str) and one == other)


def _owners(operation: Any) -> Iterator[tuple[Any, int]]:
    """The layers that run within a step, and how many kernels of the step come before each."""
    if not isinstance(operation, layers.Layer):
        return
    yield operation, 0
    for layer in operation._flatten_layers(include_self=False):
        yield layer, 0
        if isinstance(layer, layers.StackedRNNCells):
            yield from ((cell, place) for place, cell in enumerate(layer.cells) if place)


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
