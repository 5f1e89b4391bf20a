"""Runs a model of any form on KerasTensors, and records which layer or operation feeds which.

Keras calls `symbolic_call` on every layer and operation that gets a KerasTensor. For the time of the run this
method is replaced by the recorder's `visit`, which handles a layer or operation in one of these ways:

    leaf                       a step: its output shape is computed, and its `call` does not run
    made of other layers       seen through: its `call` runs, and the layers and operations in it are steps
    `call` fails on symbols    the operations of the backend are steps, if it runs on the backend's tensors
                               without values; else it is one opaque step

Each output is a new KerasTensor with the number of its step in `_initx_step`; the inputs of a later step tell
its parents by this mark. The patch is global, since Keras has no other entry, but a context variable names
the recorder of this thread, and calls in other threads run as before.
"""

import contextlib
import contextvars
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers, tree

from keras_initx._keras_internals import (
    collected_losses,
    flatten_layers,
    without_nodes,
)
from keras_initx._types import Layer, Model, Tensor, Variable
from keras_initx.checks import first_line
from keras_initx.uses import kept_buffers, record
from keras_initx.walk._backend import of_backend
from keras_initx.walk._inputs import candidate_inputs, tensors_in
from keras_initx.walk._symbolic import made_of, plain, sized, symbolic, weights_in

__all__ = ["Step", "Trace", "trace_model"]

_RECORDER: contextvars.ContextVar["_Recorder | None"] = contextvars.ContextVar("recorder", default=None)
_PATCHING = threading.RLock()


@dataclasses.dataclass(eq=False)
class Step:
    """One layer or operation of the run.

    Attributes:
        operation: The layer or operation; None for an input of the model.
        parents: Indices of the steps that made its inputs.
        shape: Shape of its first output.
        opaque: Whether it holds layers that the trace did not see.
        arguments: Positional arguments, KerasTensors among them.
        weights: The weights among its operands, as they are or transposed, cast or cut, that the run was
            asked to follow.
        several: Whether it has several outputs.
        affine: The numbers a and b of an operation of the backend that makes a x + b of its one operand x.
    """

    operation: Any
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    opaque: bool = False
    arguments: tuple[Any, ...] = ()
    weights: tuple[Variable, ...] = ()
    several: bool = False
    affine: tuple[float, float] | None = None


@dataclasses.dataclass(eq=False)
class Trace:
    """The steps of a run, in the order in which they ran.

    Attributes:
        steps: The steps; each comes after its parents.
        outputs: Indices of the steps that made the model's outputs.
        failure: The reason why there are no steps; empty if there are.
    """

    steps: list[Step] = dataclasses.field(default_factory=list)
    outputs: tuple[int, ...] = ()
    failure: str = ""


class _Recorder:
    def __init__(self, is_leaf: Callable[[Layer], bool], backend: bool) -> None:
        self.steps: list[Step] = []
        self.is_leaf, self.backend = is_leaf, backend

    def add(
        self, operation: keras.Operation | None, inputs: Sequence[Any], outputs: object, opaque: bool = False
    ) -> Any:
        """Records a step and returns its outputs, marked as coming from it."""
        index, tensors = len(self.steps), tensors_in(outputs)
        arguments = tuple(inputs[0]) if operation is not None and inputs else ()
        shape = tuple(tensors[0].shape) if tensors else ()
        several = len(tensors) > 1
        self.steps.append(
            Step(operation, self.parents(inputs), shape, opaque, arguments, weights_in(inputs), several)
        )

        def mark(tensor: object) -> Any:
            if not isinstance(tensor, keras.KerasTensor):
                return tensor
            # A new tensor: some layers return their input itself, which has the mark of another step.
            marked = keras.KerasTensor(tensor.shape, tensor.dtype)
            marked._initx_step = index
            return marked

        return tree.map_structure(mark, outputs)

    def parents(self, inputs: object) -> tuple[int, ...]:
        found = (getattr(tensor, "_initx_step", None) for tensor in tensors_in(inputs))
        return tuple(dict.fromkeys(step for step in found if step is not None))

    def visit(self, operation: keras.Operation, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        opaque = False
        if isinstance(operation, layers.Layer) and not self.is_leaf(operation):
            before = len(self.steps)
            try:
                if isinstance(operation, layers.TimeDistributed):
                    return self._fold_time(operation, args)
                outputs = operation.call(*args, **kwargs)
                tensors = tensors_in(outputs)
                if tensors and all(hasattr(tensor, "_initx_step") for tensor in tensors):
                    return outputs
                if not tensors:  # values that depend on no input, such as positions
                    return self.add(operation, (args, kwargs), tree.map_structure(_spec, outputs))
            except Exception:  # a user's layer may raise anything on symbolic input
                pass
            # Some output came out without a mark, or the call failed: the steps inside tell half of the
            # truth.
            del self.steps[before:]
            opaque = bool(flatten_layers(operation, include_self=False)) or bool(operation.weights)
            if opaque and self.backend and (outputs := self._backend_steps(operation, tuple(args), kwargs)):
                return outputs[0]
        weights = () if isinstance(operation, layers.Layer) else weights_in((args, kwargs))
        if isinstance(operation, layers.Layer):
            with symbolic(()):  # the layer may compute with its weights
                outputs = operation.compute_output_spec(*args, **kwargs)
        else:
            given = tree.map_structure(plain, (tuple(args), kwargs)) if weights else (args, kwargs)
            outputs = operation.compute_output_spec(*given[0], **given[1])
        if weights and not self.parents((args, kwargs)):
            return tree.map_structure(lambda tensor: made_of(tensor, weights), outputs)
        if isinstance(operation, layers.EinsumDense):
            outputs = sized(operation, args[0].shape, outputs)
        return self.add(operation, (args, kwargs), outputs, opaque)

    def _backend_steps(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Records the operations of a layer that only the backend can run; returns its outputs in a tuple.

        The tuple is empty if the layer does not run, or an output comes from no operation on its inputs.
        """
        inputs = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
        try:
            with symbolic(()):
                ran, made = record(layer, args, kwargs, layer.variables)
                outputs = layer.compute_output_spec(*args, **kwargs)
        except Exception:  # a user's layer may raise anything on tensors without values
            return ()
        leaves = tree.flatten(outputs)
        if len(leaves) != len(made) or None in made:
            return ()
        numbers: list[Any] = [getattr(tensor, "_initx_step", None) for tensor in inputs]
        for one in ran[len(inputs) :]:
            numbers.append(len(self.steps))
            parents = tuple(dict.fromkeys(n for p in one.parents if (n := numbers[p]) is not None))
            self.steps.append(
                Step(
                    of_backend(one.name), parents, one.shape, False, (), one.kernels, one.several, one.affine
                )
            )
        for leaf, index in zip(leaves, made, strict=True):
            leaf._initx_step = numbers[index]  # type: ignore[index]
        return (outputs,)

    def _fold_time(self, operation: layers.TimeDistributed, args: Sequence[Any]) -> Any:
        """Runs the wrapped layer once, on one time step: TimeDistributed calls it for each step alike."""
        (whole,) = args[:1]
        one = keras.KerasTensor((whole.shape[0], *whole.shape[2:]), whole.dtype)
        outputs = operation.layer(self.add(operation, (args[:1], {}), one))
        return tree.map_structure(
            lambda t: self.add(
                operation, ((t,), {}), keras.KerasTensor((*whole.shape[:2], *t.shape[1:]), t.dtype)
            ),
            outputs,
        )


def trace_model(
    model: Model, is_leaf: Callable[[Any], bool], weights: Sequence[Variable] = (), backend: bool = True
) -> Trace:
    """Runs a built model on KerasTensors, and returns its steps.

    Weights, nodes, losses and seed generators of the model do not change.

    Args:
        model: A built Keras model or layer.
        is_leaf: Tells whether a layer is one step, and not seen through.
        weights: Weights to follow to the operations that take them, where no layer of their own is a step.
        backend: Whether a layer that only the backend can run is its operations; if not, it is opaque.

    Returns:
        The best trace over a few lengths of the axes that the model leaves open: in it, the opaque layers
        hold the fewest weights.
    """
    if not all(layer.built for layer in flatten_layers(model) if _makes_weights(layer)):
        return Trace(failure="a layer is not built yet: run the model on data first")
    best, least = Trace(failure="its input shapes are not known: build or call it first"), float("inf")
    for inputs in candidate_inputs(model):
        try:
            trace = _run(model, inputs, _Recorder(is_leaf, backend), weights)
        except Exception as error:  # a user's layer may raise anything on symbolic input
            if not best.steps:
                best = Trace(failure=f"it does not run on symbolic input ({first_line(error, kind=True)})")
            continue
        hidden = sum(len(step.operation.weights) for step in trace.steps if step.opaque)
        if hidden < least:
            best, least = trace, hidden
        if not least:
            break
    return best


def _makes_weights(layer: Layer) -> bool:
    return type(layer).build is not layers.Layer.build and not isinstance(layer, keras.Model)


def _run(
    model: Model,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    recorder: _Recorder,
    weights: Sequence[Variable],
) -> Trace:
    # Inputs are numbered in the order of `flatten`: `map_structure` visits a dict in an order that depends on
    # the backend.
    recorded = [recorder.add(None, (), spec) for spec in tree.flatten(inputs)]
    args, kwargs = tree.pack_sequence_as(inputs, recorded)
    # In the scope no variable changes: neither a seed generator's state nor a counter of a user's layer.
    with (
        _recording(recorder),
        _left_as_it_is(model),
        kept_buffers(model),
        keras.StatelessScope(),
        symbolic(weights),
    ):
        outputs = model(*args, **kwargs)
    return Trace(recorder.steps, recorder.parents(outputs))


def _spec(value: Tensor) -> keras.KerasTensor:
    return keras.KerasTensor(value.shape, value.dtype) if hasattr(value, "shape") else value


@contextlib.contextmanager
def _recording(recorder: _Recorder) -> Iterator[None]:
    """Sends the symbolic calls of this thread to the recorder; calls of other threads go on as before."""
    with _PATCHING, without_nodes(lambda: _RECORDER.get() is not None):
        originals = {cls: cls.symbolic_call for cls in (keras.Operation, layers.Layer)}

        def patch(cls: Any, original: Callable[..., Any]) -> None:
            def symbolic_call(self: Any, *args: object, **kwargs: object) -> Any:
                active = _RECORDER.get()
                return original(self, *args, **kwargs) if active is None else active.visit(self, args, kwargs)

            cls.symbolic_call = symbolic_call

        token = _RECORDER.set(recorder)
        try:
            for cls, original in originals.items():
                patch(cls, original)
            yield
        finally:
            for cls, original in originals.items():
                cls.symbolic_call = original
            _RECORDER.reset(token)


@contextlib.contextmanager
def _left_as_it_is(model: Model) -> Iterator[None]:
    """Removes the losses that a symbolic call leaves in layers."""
    lists = [collected_losses(layer) for layer in flatten_layers(model)]
    lengths = [len(entries) for entries in lists]
    try:
        yield
    finally:
        for entries, length in zip(lists, lengths, strict=True):
            del entries[length:]
