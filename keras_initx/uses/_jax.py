"""JAX: a trace that lets operations run as they would and shows each of them.

JAX sends every primitive to the current trace. This one evaluates it in the trace that was there before,
eager or abstract, and shows it. Compiled functions that take a weight, or the output of one's product, are
opened, and so are custom gradients: their primitives run one by one. Other compiled functions run as they
are, since JAX compiles each primitive that runs alone for each of its shapes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_initx._types import Tensor, Variable
from keras_initx.uses._jax_effects import TITLES, constant, effect, number, title
from keras_initx.uses._operations import Operation
from keras_initx.uses._tracker import Tracker

__all__ = ["constant", "effect", "gradient_at", "number", "shown", "title", "value_of"]

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_lin")


@contextlib.contextmanager
def shown(tracker: Tracker) -> Iterator[None]:
    """Shows a tracker each primitive that runs while the block is open."""
    from jax._src import core

    class Showing(core.Trace):
        def __init__(self, before: Any) -> None:
            super().__init__()
            self.before = before

        def stage_value(self, value: Any) -> Any:
            return _stage(tracker, value, self.before.stage_value(value))

        def process_primitive(self, primitive: Any, args: Sequence[Any], params: dict[str, Any], /) -> Any:
            return _run(self, tracker, primitive, args, params)

        def process_call(self, _: Any, function: Any, tracers: Any, __: Any, /) -> Any:
            with core.set_current_trace(self):
                return function.call_wrapped(*tracers)

        def process_custom_jvp_call(self, _: Any, function: Any, rule: Any, tracers: Any, **more: Any) -> Any:
            return self.process_custom("process_custom_jvp_call", _, function, (rule,), tracers, more)

        def process_custom_vjp_call(
            self, _: Any, function: Any, fwd: Any, bwd: Any, tracers: Any, **more: Any
        ) -> Any:
            return self.process_custom("process_custom_vjp_call", _, function, (fwd, bwd), tracers, more)

        def process_custom(
            self, name: str, primitive: Any, function: Any, rules: Any, tracers: Any, more: dict[str, Any]
        ) -> Any:
            own = function.debug_info.func_name
            if any(map(tracker.pieces, tracers)) or not (tracker.replaces or own in TITLES):
                return self.process_call(primitive, function, tracers, None)
            # Its gradient is its own, which its primitives do not have: ReLU has slope 0 at 0, max has 1/2.
            with core.set_current_trace(self.before):
                found = getattr(self.before, name)(primitive, function, *rules, tracers, **more)
                tracker.see(Operation(own, tracers, found, (primitive, {})))
            return found

    with core.set_current_trace(Showing(core.trace_ctx.trace)):
        yield


def _stage(tracker: Tracker, value: Any, staged: Any) -> Any:
    """Tells a tracker of a number or array that a tracer stands for from now on."""
    if "Tracer" not in type(value).__name__:
        tracker.see(Operation("convert_element_type", [value], [staged], (None, {})))
    return staged


def _run(trace: Any, tracker: Tracker, primitive: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Evaluates a primitive in the trace before, or opens it, and returns what the model is to go on with."""
    from jax._src import core

    whole = params.get("name") in TITLES and params["name"] not in tracker.opens
    if primitive.name in _CALLS and (not whole or any(map(tracker.pieces, args))):
        inner: Any = params.get("jaxpr") or params.get("call_jaxpr")
        if any(map(tracker.follows, (*args, *_constants(inner)))):
            jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            with core.set_current_trace(trace):
                return core.eval_jaxpr(jaxpr, consts, *args)
    if primitive.name in _OPENED and not tracker.replaces and any(map(tracker.pieces, args)):
        _OPENED[primitive.name](trace, tracker, args, params)
    with core.set_current_trace(trace.before):
        found = primitive.bind(*args, **params)
        outputs = list(found) if primitive.multiple_results else [found]
        name = params["name"] if primitive.name in _CALLS else primitive.name
        outputs = tracker.see(Operation(name, args, outputs, (primitive, params))) or outputs
    return outputs if primitive.multiple_results else outputs[0]


def _constants(jaxpr: Any) -> Iterator[Any]:
    """The arrays that a compiled function, or a function inside it, has from where it was written."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if hasattr(inner, "eqns"):
                    yield from _constants(inner)


def _open_scan(trace: Any, tracker: Tracker, args: Sequence[Any], params: dict[str, Any]) -> None:
    """Runs the body of a loop once."""
    from jax._src import core

    count = params["num_consts"] + params["num_carry"]
    with core.set_current_trace(trace.before):
        steps = [x[0] for x in args[count:]]
    tracker.enter_loop((one, None) for one in (*args[:count], *steps))
    tracker.enter_step(zip(steps, args[count:], strict=True))
    tracker.looped = True
    try:
        with core.set_current_trace(trace):
            core.eval_jaxpr(params["jaxpr"].jaxpr, params["jaxpr"].consts, *args[:count], *steps)
    finally:
        tracker.looped = False


def _open_cond(trace: Any, tracker: Tracker, args: Sequence[Any], params: dict[str, Any]) -> None:
    """Runs each branch of a choice once."""
    from jax._src import core

    tracker.looped = True
    try:
        with core.set_current_trace(trace):
            for branch in params["branches"]:
                core.eval_jaxpr(branch.jaxpr, branch.consts, *args[1:])
    finally:
        tracker.looped = False


# Operations that hold others. What a weight meets inside is a use of a loop, also in a choice.
_OPENED = {"cond": _open_cond, "scan": _open_scan}


def value_of(variable: Variable) -> Tensor:
    """The value of a weight as a tensor."""
    return variable.value


def gradient_at(operation: Operation, place: int, gradient: Tensor) -> Tensor:
    """The gradient at an input of a primitive that ran, from the gradient at its output."""
    import jax

    primitive, params = operation.raw
    inputs = list(operation.inputs)

    def run(signal: Tensor) -> Tensor:
        return primitive.bind(*inputs[:place], signal, *inputs[place + 1 :], **params)

    shape = jax.ShapeDtypeStruct(inputs[place].shape, inputs[place].dtype)
    (found,) = jax.linear_transpose(run, shape)(gradient)
    return found
