"""Calls an activation on NumPy points in float64, on any backend and inside any trace."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_initx._types import Tensor
from keras_initx.gains._activation import GATES, refusal

# Reach of the integrals in standard deviations. The Gaussian has a mass of 1e-44 outside.
REACH = 14
# Least number of points of a call. Calls are padded to this size or the next power of two, because JAX
# compiles a function anew for each shape.
_BATCH = 2048


@contextlib.contextmanager
def concrete() -> Iterator[None]:
    """Makes calls run at once, in float64 and without warnings, whatever is being traced around them.

    Keras may draw a layer's weights while a `tf.function` or a JAX program is traced. Inside a trace a tensor
    has no values yet, but the quadrature must look at values to decide which panels to halve.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        # An overflow shows as a value that is not finite, and is refused by name.
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        match keras.backend.backend():
            case "tensorflow":
                import tensorflow as tf

                stack.enter_context(tf.init_scope())
            case "jax":
                import jax

                stack.enter_context(jax.enable_x64(True))
                stack.enter_context(jax.ensure_compile_time_eval())
            case "torch":
                import torch

                stack.enter_context(torch.no_grad())
                # Keras traces on the meta device, and MPS has no float64.
                stack.enter_context(keras.device("cpu"))
        yield


def evaluate(function: Callable[..., Tensor], points: np.ndarray, received: object) -> np.ndarray:
    """Returns the function's values at the points, in float64 and in the points' shape.

    Args:
        function: A function of one tensor, or an activation layer.
        points: Points of any shape. An array of four axes is passed as it is. Other arrays are passed as one
            row of an image, because the slopes of PReLU may be shared over the axes of an image.
        received: The activation as the caller gave it, for errors.

    Raises:
        ValueError: If the function raises, changes the shape, or returns a value that is not finite.
    """
    shape = points.shape if points.ndim == 4 else (1, 1, 1, max(_BATCH, 1 << (points.size - 1).bit_length()))
    try:
        # A fresh copy for each call: PReLU builds itself for the first shape that it sees, and the caller's
        # layer must stay unbuilt.
        if isinstance(function, keras.layers.Layer):
            config = function.get_config() | {"dtype": "float64"}
            if callable(getattr(function, "activation", None)):  # Keras refuses to read a lambda back
                config["activation"] = function.activation
            function = type(function).from_config(config)
        outputs = function(keras.ops.convert_to_tensor(np.resize(points, shape), dtype="float64"))
        values = np.asarray(keras.ops.convert_to_numpy(outputs), dtype="float64")
    except Exception as error:
        cure = "Give a function of one tensor that uses keras.ops; fix further arguments in a lambda."
        raised = f"{type(error).__name__}: {error}".rstrip(".")
        rule = f"return values for a float64 tensor outside any trace. It raised {raised}"
        raise refusal(rule, received, cure) from error
    if values.shape != shape:
        cure = f"It makes {values.shape} of {shape}. Name a gated linear unit by one of {sorted(GATES)}."
        raise refusal("be element-wise", received, cure)
    values = values.reshape(-1)[: points.size].reshape(points.shape)
    if not np.isfinite(values).all():
        where = points[~np.isfinite(values)][0]
        cure = f"It is NaN or infinite at {where:.6g}. Clip its input."
        raise refusal(f"be finite within {REACH} standard deviations", received, cure)
    return values


def check_element_wise(call: Callable[[np.ndarray], np.ndarray], stddev: float, received: object) -> None:
    """Raises ValueError if an output entry depends on other input entries, or on chance.

    The test calls the function twice: on points, and on some of the points in another order and another
    shape. An element-wise function gives equal values at equal points.
    """
    rng = np.random.default_rng(0)
    points = stddev * np.sort(rng.normal(size=121))
    # The extremes and the median stay out: a function that subtracts one of them would go unnoticed with it.
    some = rng.permutation(np.arange(30, 111))
    values, again = call(points), call(points[some].reshape(3, 3, 3, 3)).reshape(-1)
    if not np.allclose(values[some], again, rtol=1e-5, atol=1e-6 * np.abs(values).max()):
        cure = 'Measure such an activation on data: calibrate(model, data, "initx>LSUV").'
        raise refusal("be element-wise, not depend on other entries or on chance", received, cure)
