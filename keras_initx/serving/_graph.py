"""What a signature does, read from its graph without running it."""

from collections.abc import Iterable
from typing import Any

__all__ = ["Graph"]

_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}
# They have no outputs either, and change nothing.
_SPEAKS_ONLY = {"Assert", "PrintV2"}


class Graph:
    """The operations of a SavedModel.

    Args:
        meta_graph: TensorFlow's `MetaGraphDef`.
    """

    def __init__(self, meta_graph: Any) -> None:
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = {
            function.signature.name: function for function in meta_graph.graph_def.library.function
        }
        self._definitions = {op.name: op for op in meta_graph.meta_info_def.stripped_op_list.op}

    def python(self, tensors: Iterable[str]) -> list[str]:
        """Returns the operations on the way to some tensors that call Python code.

        The code itself is in the process that wrote the graph, and in no other one.

        Args:
            tensors: Names of tensors, such as `"add:0"`.
        """
        return sorted(self._reached(tensors) & _PYTHON)

    def writes(self, tensors: Iterable[str]) -> bool:
        """Tells whether an operation on the way to some tensors changes a variable, a table or a file.

        An operation that neither the graph nor this TensorFlow describes counts as one that does.

        Args:
            tensors: Names of tensors, such as `"add:0"`.
        """
        return any(self._writes(name) for name in self._reached(tensors))

    def _writes(self, name: str) -> bool:
        if name in self._functions or name in _SPEAKS_ONLY:
            return False
        # The graph does not describe what only the body of a loop or a branch uses.
        op = self._definitions.get(name) or _registered(name)
        if op is None:
            return True
        return (op.is_stateful and not op.output_arg) or any(arg.is_ref for arg in op.input_arg)

    def _reached(self, tensors: Iterable[str]) -> set[str]:
        """The operations on the way, with those of all functions that they may call."""
        found: set[str] = set()
        seen: set[str] = set()
        waiting = [tensor.partition(":")[0] for tensor in tensors]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._nodes:
                continue
            seen.add(name)
            node = self._nodes[name]
            self._enter(node, found)
            waiting.extend(source.lstrip("^").partition(":")[0] for source in node.input)
        return found

    def _enter(self, node: Any, found: set[str]) -> None:
        """Adds an operation, and those of the functions that it names."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            called = {one.op}
            for value in one.attr.values():
                called |= {value.func.name, *(function.name for function in value.list.func)}
            for name in (called & self._functions.keys()) - found:
                waiting.extend(self._functions[name].node_def)
                found.add(name)
            found.add(one.op)


def _registered(name: str) -> Any:
    """The definition of an operation of this process' TensorFlow, or None."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name)
