"""Operations that only the process that exports could run."""

import re
from collections.abc import Iterable
from typing import Any

from keras_initx._keras_internals import flatten_layers
from keras_initx.saved_model._endpoints import Endpoint, sentence

# They name a function of this process's Python by a number.
_PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")


def refuse_python(model: Any, endpoints: Iterable[Endpoint]) -> None:
    """Raises ValueError for a trace that calls back into Python.

    Args:
        model: The model that is exported.
        endpoints: Its signatures, traced.
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


def explain(model: Any, endpoints: Iterable[Endpoint], error: str) -> str:
    """Returns what another process said of a SavedModel, with the layer that it means where that is known.

    Args:
        model: The model that is exported.
        endpoints: Its signatures, traced.
        error: What the process said.
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
    graph = endpoint.concrete.graph.as_graph_def()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from ((node.op, node.name) for node in nodes)


def _owner(model: Any, endpoint: Endpoint, node: str) -> str:
    """The innermost layer whose name is on the way to a node, as TensorFlow numbers names that come twice."""
    layers = {layer.name: layer for layer in flatten_layers(model) if layer is not model}
    for part in reversed(node.split("/")[:-1]):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return f"the layer `{name}` ({type(layers[name]).__name__})"
    return f"the signature `{endpoint.key}`"
