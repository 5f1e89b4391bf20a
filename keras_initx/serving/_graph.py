"""The effects of a signature, read from its graph without running it.

A graph is a list of operations. An operation may name functions (a layer, a loop's body, a branch), and each
function is a list of operations again. So a search walks back from the outputs, and into every named
function.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.framework.op_def_pb2 import OpDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

__all__ = ["Graph"]

_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}
# Stateful operations without outputs usually write. These two only print or fail.
_SPEAKS_ONLY = {"Assert", "PrintV2"}


class Graph:
    """The operations of a SavedModel.

    Args:
        meta_graph: TensorFlow's `MetaGraphDef`.
    """

    def __init__(self, meta_graph: "MetaGraphDef") -> None:
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = {
            function.signature.name: function for function in meta_graph.graph_def.library.function
        }
        self._definitions = {op.name: op for op in meta_graph.meta_info_def.stripped_op_list.op}

    def python(self, tensors: Iterable[str]) -> list[str]:
        """Returns the operations that call Python code, among all that the tensors depend on.

        A graph holds only a reference to such code. The code itself is in the process that wrote the graph.

        Args:
            tensors: Names of tensors, such as `"add:0"`.
        """
        return sorted(self._reached(tensors) & _PYTHON)

    def writes(self, tensors: Iterable[str]) -> bool:
        """Returns whether the tensors depend on an operation that changes a variable, a table or a file.

        An operation that neither the graph nor this TensorFlow describes counts as one that changes
        something.

        Args:
            tensors: Names of tensors, such as `"add:0"`.
        """
        return any(self._writes(name) for name in self._reached(tensors))

    def _writes(self, name: str) -> bool:
        # A function as such writes nothing: `_reached` also returns the operations inside of it.
        if name in self._functions or name in _SPEAKS_ONLY:
            return False
        # The graph does not describe operations that only a loop's body or a branch uses.
        op = self._definitions.get(name) or _registered(name)
        if op is None:
            return True
        return (op.is_stateful and not op.output_arg) or any(arg.is_ref for arg in op.input_arg)

    def _reached(self, tensors: Iterable[str]) -> set[str]:
        """Returns the kinds of all operations that the tensors depend on, inside of functions too."""
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
            # `^name` is an operation that must only have run before; `name:1` is its second output.
            waiting.extend(source.lstrip("^").partition(":")[0] for source in node.input)
        return found

    def _enter(self, node: "NodeDef", found: set[str]) -> None:
        """Adds the kind of an operation to `found`, and the operations of the functions that it names."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            # A function may be called as an operation of its own, or be named in an attribute.
            called = {one.op}
            for value in one.attr.values():
                called |= {value.func.name, *(function.name for function in value.list.func)}
            for name in (called & self._functions.keys()) - found:
                waiting.extend(self._functions[name].node_def)
                found.add(name)
            found.add(one.op)


def _registered(name: str) -> "OpDef | None":
    """Returns the definition of an operation in this process' TensorFlow, or None."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name)
