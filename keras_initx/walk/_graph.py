"""`trace`: a model as a graph of the layers and operations that run, each with operands and shape."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, tree

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Model, Variable
from keras_initx.layers import ResidualScale
from keras_initx.uses import affine
from keras_initx.walk._kernels import known_class
from keras_initx.walk._operations import activation_of, number_in
from keras_initx.walk._sites import _is_leaf, _kernels
from keras_initx.walk._trace import Step, trace_model

__all__ = ["Graph", "Node", "Operand", "input_specs", "numbers_of_node", "trace"]


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand of a node: a signal or a constant.

    Attributes:
        node: Number of the node that made the signal; None for a constant.
        shape: Shape of the signal, with batch axis; empty for a constant.
        value: Value of the constant: a number, an array or a variable; None for a signal.
    """

    node: int | None
    shape: tuple[int | None, ...] = ()
    value: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One layer or operation that ran.

    Attributes:
        kind: Name of the Keras class that defines the `call` that ran, such as `Dense`, `Add` (the layer or
            the operation) or `ResidualScale`. `input` for an input of the model. The full name for a class
            outside of Keras.
        operation: The layer or operation itself; None for an input.
        operands: The operands, in order.
        shape: Shape of the first output, with batch axis. An axis is None if the trace does not tell it.
        activation: The activation that the node is, or ends with, as `compute_gain` takes it; None for none.
        kernels: Variables of the kernels that run in the node, in the order of their layers. Of an operation,
            those of the weights to follow that it takes.
        opaque: Whether the node holds layers that the trace did not see.
    """

    kind: str
    operation: Any
    operands: tuple[Operand, ...]
    shape: tuple[int | None, ...]
    activation: Any = None
    kernels: tuple[Any, ...] = ()
    opaque: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of one symbolic run.

    Attributes:
        nodes: The nodes, each after the nodes of its operands.
        outputs: Numbers of the nodes that made the model's outputs.
        failure: The reason why there are no nodes; empty if there are.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    failure: str = ""


def trace(model: Model, weights: Sequence[Variable] = ()) -> Graph:
    """Returns the layers and operations that run in a built model, as a graph.

    The model runs once on symbolic input, which computes nothing and does not change the model.

    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Flatten()])
    >>> [(node.kind, node.activation, node.shape) for node in trace(model).nodes if node.kernels]
    [('Dense', 'relu', (2, 3))]

    Args:
        model: A built Keras model or layer.
        weights: Weights to follow to the operations of Keras that take them, where no layer of their own is a
            node.

    Returns:
        The graph. Layers made of other layers are seen through. A layer that is called twice is two nodes.
    """
    # The operations of a backend have no operands that a map could read.
    found = trace_model(model, _is_leaf, weights, backend=False)
    nodes: list[Node] = []
    for step in found.steps:
        nodes.append(_node(step, nodes))
    return Graph(tuple(nodes), found.outputs, found.failure)


def numbers_of_node(node: Node) -> tuple[float, float] | None:
    """Returns the numbers a and b of a node that makes a x + b of its one signal x; None for another node.

    >>> model = keras.Sequential([layers.Input((4,)), layers.Rescaling(0.5, offset=1.0)])
    >>> numbers_of_node(trace(model).nodes[-1])
    (0.5, 1.0)

    Args:
        node: A node of a graph. A weight among its operands is no number.
    """
    if node.kind == "Rescaling":
        values = number_in(node.operation.scale), number_in(node.operation.offset)
        return None if None in values else values  # type: ignore[return-value]  # both are numbers
    operands = [None if operand.node is not None else number_in(operand.value) for operand in node.operands]
    return affine(node.kind, *operands) if len(operands) == 2 else None


def input_specs(model: Model) -> list[tuple[tuple[int | None, ...], int | None]]:
    """Returns for each input a shape that the model runs on, and the smallest vocabulary of its embeddings.

    >>> layers = [keras.layers.Input((None,), dtype="int32"), keras.layers.Embedding(50, 4)]
    >>> [limit for _, limit in input_specs(keras.Sequential(layers))]
    [50]

    Args:
        model: A built Keras model.

    Returns:
        For each input a pair: the shape, with batch axis, and the number of integers that the embeddings take
        that look it up, or None if no embedding does. `keras_initx.data.take_pair` draws inputs from these.
    """
    graph = trace(model)
    limits: dict[int, int | None] = {n: None for n, node in enumerate(graph.nodes) if node.kind == "input"}
    for node in graph.nodes:
        if not isinstance(node.operation, layers.Embedding) or not node.operands:
            continue
        size = node.operation.input_dim
        # Keras casts indices before it looks them up.
        origin = node.operands[0].node
        while origin is not None and graph.nodes[origin].kind in ("Cast", "ConvertToTensor"):
            origin = graph.nodes[origin].operands[0].node
        if origin in limits:
            limits[origin] = min(size, limits[origin] or size)
    return [(graph.nodes[n].shape, limit) for n, limit in limits.items()]


def _node(step: Step, before: list[Node]) -> Node:
    operands = _operands(step, before)
    shapes = [operand.shape for operand in operands if operand.node is not None]
    operation = step.operation
    return Node(
        kind=_kind(operation),
        operation=operation,
        operands=operands,
        shape=_filled(step.shape, shapes[0] if shapes else ()),
        activation=None if operation is None else activation_of(operation) or None,
        kernels=_kernels_in(operation) or step.weights,
        opaque=step.opaque,
    )


def _operands(step: Step, before: list[Node]) -> tuple[Operand, ...]:
    found = []
    for leaf in tree.flatten(step.arguments):
        origin = getattr(leaf, "_initx_step", None)
        if origin is not None:
            found.append(Operand(origin, _filled(tuple(leaf.shape), before[origin].shape)))
        elif leaf is not None and not isinstance(leaf, keras.KerasTensor):
            found.append(Operand(None, (), leaf))
    # A tensor may come by a keyword or inside a structure, which `arguments` does not hold: parents tell it.
    given = {operand.node for operand in found}
    found += [Operand(parent, before[parent].shape) for parent in step.parents if parent not in given]
    return tuple(found)


def _filled(shape: tuple[int | None, ...], like: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Fills the sizes that a layer's output spec leaves open, as EinsumDense does, from its input's axes."""
    return tuple(like[axis] if size is None and axis < len(like) else size for axis, size in enumerate(shape))


def _kind(operation: keras.Operation | None) -> str:
    """The kind of a node; a subclass that overrides `call` is not the Keras class that it derives from."""
    if operation is None:
        return "input"
    if isinstance(operation, ResidualScale):
        return "ResidualScale"
    cls = type(operation)
    base = next((c for c in cls.__mro__ if c.__module__.startswith("keras.")), cls)
    if getattr(cls, "call", None) is getattr(base, "call", None) and base is not layers.Layer:
        return base.__name__
    return f"{cls.__module__}.{cls.__qualname__}"


def _kernels_in(operation: keras.Operation | None) -> tuple[Any, ...]:
    if not isinstance(operation, layers.Layer) or isinstance(operation, layers.TimeDistributed):
        return ()  # the layer in a TimeDistributed is a step of its own
    inner = [] if known_class(operation) else flatten_layers(operation, include_self=False)
    found = [kernel for layer in (operation, *inner) for kernel in _kernels(layer)]
    # A wrapper and the layer inside may both list a kernel; each counts once.
    return tuple({id(kernel): kernel for kernel in found}.values())
