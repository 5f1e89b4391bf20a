"""TensorFlow: its op callbacks, which see each operation that runs eagerly or joins a graph.

What a callback returns takes the place of the outputs in a graph. In eager mode TensorFlow ignores it, but
hands the callback the list of outputs that it is about to return: an entry that is replaced there is what the
caller gets.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from keras_initx._types import Tensor, Variable
from keras_initx.uses._operations import Operation
from keras_initx.uses._tensorflow_effects import constant, effect, number, title
from keras_initx.uses._tracker import Tracker

__all__ = ["constant", "effect", "gradient_at", "number", "shown", "title", "value_of"]


@contextlib.contextmanager
def shown(tracker: Tracker) -> Iterator[None]:
    """Shows a tracker each operation that this thread runs, or adds to a graph, while the block is open."""
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    thread, busy = threading.get_ident(), False
    outer = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def callback(
        op_type: Any, inputs: Any, attrs: Any, outputs: Any, *_: object, graph: object = None, **__: object
    ) -> Any:
        nonlocal busy
        if busy or threading.get_ident() != thread:
            return None
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        busy = True  # the tracker may run operations of its own
        tracker.looped = graph is not outer
        try:
            if tracker.looped:
                tracker.enter_loop(_arguments(graph, inputs))
            if name == "IdentityN":  # around a function with a gradient of its own
                for one, other in zip(inputs, outputs, strict=True):
                    tracker.see(Operation("Identity", [one], [other]))
                return None
            replaced = tracker.see(Operation(name, inputs, outputs, attrs))
        finally:
            busy = False
        if replaced is not None and graph is None:
            outputs[:] = replaced
        return replaced

    # Compiled functions within, such as Keras' grouped convolution, are opened.
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(callback)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(callback)
        tf.config.run_functions_eagerly(eagerly)


def _arguments(graph: Any, inputs: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The arguments of a graph within another among some tensors, each with the tensor that it captures."""
    captured = {id(inner): outer for outer, inner in graph.captures}
    return ((t, captured.get(id(t))) for t in inputs if getattr(t, "op", None) and t.op.type == "Placeholder")


def value_of(variable: Variable) -> Tensor:
    """The value of a weight as a tensor."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def gradient_at(operation: Operation, place: int, gradient: Tensor) -> Tensor:
    """The gradient at an input of an operation that ran, from the gradient at its output."""
    from tensorflow.python.eager import backprop

    name, attributes, inputs = operation.name, operation.raw, list(operation.inputs)
    given: tuple[Any, ...] = len(inputs), inputs, list(operation.outputs), [gradient], [], ""
    return backprop._gradient_function(name, attributes, *given)[place]
