"""JAX: a trace that lets operations run as they would and shows each of them.

JAX sends every primitive to the current trace. This one evaluates it in the trace that was there before,
eager or abstract, and shows it. Compiled functions that take a weight, or the output of one's product, are
opened, and so are custom gradients: their primitives run one by one. Other compiled functions run as they
are, since JAX compiles each primitive that runs alone for each of its shapes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_initx._types import Tensor, Variable
from keras_initx.uses._operations import (
    Across,
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Inner,
    Move,
    Operation,
    Other,
    Reduce,
    Reshape,
    Shrink,
    Tile,
)
from keras_initx.uses._tracker import Tracker

__all__ = ["constant", "effect", "gradient_at", "number", "shown", "title", "value_of"]

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_lin")
# A convolution transposed turns its taps around, which moves no axis.
_COPIES = (
    "convert_element_type", "copy", "copy_p", "neg", "optimization_barrier", "reduce_precision",
    "stop_gradient",
)  # fmt: skip
# Operations on signals by Keras' names: primitives, and functions that JAX compiles whole.
_TITLES = {
    "_where": "Where", "logistic": "Sigmoid", "neg": "Negative", "soft_sign": "Softsign",
    "log_sigmoid": "LogSigmoid",
    **{name: name.title() for name in (
        "cos", "erf", "exp", "gelu", "pad", "relu", "relu6", "rsqrt", "selu", "sigmoid", "silu", "sin",
        "softmax", "softplus", "tanh", "tile",
    )},
}  # fmt: skip
_COMBINE = {"add": "adds", "sub": "adds", "add_any": "adds", "mul": "scales", "div": "divides"}
_OF_TWO = (
    "and", "atan2", "eq", "ge", "gt", "le", "lt", "max", "min", "ne", "or", "pow", "rem", "select_n", "xor",
)  # fmt: skip


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
            if any(map(tracker.pieces, tracers)) or not (tracker.replaces or own in _TITLES):
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

    whole = params.get("name") in _TITLES and params["name"] not in tracker.opens
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


def title(operation: Operation) -> str:
    """The class of Keras' operation that does the same to a signal; empty if `effect` tells it."""
    return _TITLES.get(operation.name, "")


def number(tensor: Any) -> float | None:
    """The number that an array of no axes holds; None if it is not known, or no number."""
    # A tracer has no value, not even that of a constant; a number or an array does.
    if "Tracer" in type(tensor).__name__ or tensor.ndim or tensor.dtype.kind not in "fiu":
        return None
    return float(np.asarray(tensor))  # not an operation of JAX, which the trace would see


def constant(tensor: Any) -> Any:
    """The value of a constant; None if it is not known."""
    return None if "Tracer" in type(tensor).__name__ else np.asarray(tensor)


def effect(operation: Operation) -> Effect:
    """What a primitive does to the axes of its operands."""
    name, (_, params) = operation.name, operation.raw
    if name == "dot_general":
        return _contract(operation)
    if name == "conv_general_dilated":
        return _convolve(params)
    if name == "gather":
        return _gather(operation)
    if name == "transpose":
        return Move(tuple(params["permutation"]))
    if name == "broadcast_in_dim":
        places = {place: own for own, place in enumerate(params["broadcast_dimensions"])}
        return Move(tuple(places.get(axis) for axis in range(len(params["shape"]))))
    if name in ("reshape", "squeeze", "expand_dims"):
        return Reshape()
    if name == "tile":
        return Tile()
    if name in _COPIES:
        return Move(tuple(range(len(operation.outputs[0].shape))))  # the input may be a Python number
    if name == "rev":
        return Move(tuple(range(len(operation.outputs[0].shape))), turned=tuple(params["dimensions"]))
    if name == "pad" and "padding_config" in params:
        sides = [(-1, -1) if inner else (n, m) for n, m, inner in params["padding_config"]]
        return Move(tuple(range(len(sides))), {a: pair for a, pair in enumerate(sides) if any(pair)})
    if name in _OPENED:
        return Inner()
    if name == "slice":
        steps = params["strides"] or (1,) * len(params["start_indices"])
        return Shrink(first={a: n for a, n in enumerate(params["start_indices"]) if steps[a] == 1})
    if name in ("dynamic_slice", "split"):
        return Shrink()
    if name.startswith("reduce_") and "axes" in params:
        return Reduce(tuple(params["axes"]))
    if name == "concatenate":
        return Concatenate(params["dimension"], len(operation.inputs))
    if name == "stack" and "axis" in params:
        return Concatenate(params["axis"], len(operation.inputs), stacked=True)
    if name in _COMBINE:
        return Combine(_COMBINE[name])  # type: ignore[arg-type]
    if name in _OF_TWO and len(operation.inputs) == 2:
        return Combine("other")
    return Other()


def _contract(operation: Operation) -> Contract:
    (left_sum, right_sum), (left_batch, right_batch) = operation.raw[1]["dimension_numbers"]
    left: list[Any] = [f"l{axis}" for axis in range(len(operation.inputs[0].shape))]
    right: list[Any] = [f"r{axis}" for axis in range(len(operation.inputs[1].shape))]
    for kind, pairs in (
        ("s", zip(left_sum, right_sum, strict=True)),
        ("b", zip(left_batch, right_batch, strict=True)),
    ):
        for number, (one, other) in enumerate(pairs):
            left[one] = right[other] = f"{kind}{number}"
    out = [f"b{number}" for number in range(len(left_batch))]
    out += [label for label in (*left, *right) if label[0] in "lr"]
    return Contract(tuple(left), tuple(right), tuple(out))


def _convolve(params: dict[str, Any]) -> Convolve:
    numbers = params["dimension_numbers"]
    outputs, inputs, *field = numbers.rhs_spec
    spread = tuple(params["lhs_dilation"])
    transposed = any(factor > 1 for factor in spread)
    return Convolve(
        tuple(field),
        inputs,
        outputs,
        numbers.out_spec[1],
        params["feature_group_count"],
        spread if transposed else tuple(params["window_strides"]),
        tuple(params["rhs_dilation"]),
        tuple(map(tuple, params["padding"])),
        transposed,
    )


def _gather(operation: Operation) -> Effect:
    _, params = operation.raw
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    table = operation.inputs[0].shape
    looked_up = tuple(numbers.start_index_map)
    whole = all(size == table[axis] for axis, size in enumerate(sizes) if axis not in looked_up)
    if len(looked_up) != 1 or tuple(numbers.collapsed_slice_dims) != looked_up or not whole:
        stay = [axis for axis, size in enumerate(sizes) if size == table[axis] and axis not in looked_up]
        kept = stay and tuple(stay) == tuple(numbers.offset_dims)
        return Across(tuple(axis for axis in range(len(table)) if axis not in stay)) if kept else Other()
    return Gather(looked_up[0], tuple(numbers.offset_dims))
