"""Operations that a server cannot run: Python functions, and operations of other libraries."""

import re
from collections.abc import Iterable

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Model
from keras_initx.saved_model._endpoints import Endpoint, sentence

# These operations hold a number, under which the Python of this process has registered a function. The number
# means nothing in another process.
_PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")


def refuse_python(model: Model, endpoints: Iterable[Endpoint]) -> None:
    """Raises ValueError if a signature calls Python code.

    Args:
        model: The model that is exported.
        endpoints: Its signatures, which are traced.
    """
    for endpoint in endpoints:
        for op, name in _operations(endpoint):
            if op in _PYTHON:
                raise ValueError(
                    f"`model` and `signatures` must compute with operations that a server has. Received: "
                    f"{_owner(model, endpoint, name)}, which runs Python code (the operation {op}, of "
                    "tf.numpy_function or tf.py_function). Write it with keras.ops, or run it on the rows "
                    "before they are sent."
                )


def explain(model: Model, endpoints: Iterable[Endpoint], error: str) -> str:
    """Returns an error of the other process as a sentence, with the layer that caused it if this is known.

    Args:
        model: The model that is exported.
        endpoints: Its signatures, which are traced.
        error: The error, with its class and text.
    """
    if not (unknown := re.search(r"Op type not registered '(\w+)'", error)):
        return sentence(error)
    owners = (
        _owner(model, endpoint, name)
        for endpoint in endpoints
        for op, name in _operations(endpoint)
        if op == unknown[1]
    )
    return (
        f"{next(owners, f'`{model.name}`')} needs the operation {unknown[1]}, which TensorFlow alone does "
        "not have. Write it with keras.ops."
    )


def _operations(endpoint: Endpoint) -> Iterable[tuple[str, str]]:
    """Yields the type and the name of each operation, also of those in loops and functions."""
    graph = endpoint.concrete.graph.as_graph_def()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from ((node.op, node.name) for node in nodes)


def _owner(model: Model, endpoint: Endpoint, node: str) -> str:
    """Returns the innermost layer in the name of an operation, such as `dense` in `model/dense/MatMul`."""
    layers = {layer.name: layer for layer in flatten_layers(model) if layer is not model}
    for part in reversed(node.split("/")[:-1]):
        # TensorFlow adds a number to a name that it has used before: the second call of `dense` is `dense_1`.
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return f"the layer `{name}` ({type(layers[name]).__name__})"
    return f"the signature `{endpoint.key}`"
