"""Any shape, dtype and configuration gives a correct tensor or an error by the house rule."""

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_initx import initializers
from keras_initx.fans import compute_fans
from keras_initx.gains import compute_gain
from keras_initx.initializers import _variance
from support.sampling import cases

NAMES = initializers.names()
SEEDED = [name for name in NAMES if "seed" in initializers.get(name).get_config()]
DTYPES = st.sampled_from(["bfloat16", "float16", "float32", "float64"])
SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=6).map(tuple)
LAYOUTS = st.one_of(
    st.none(),
    st.sampled_from(["dense", "conv", "depthwise", "transposed", "embedding"]),
    st.builds(lambda n: {"kind": "gates", "gates": n}, st.integers(1, 4)),
    st.builds(lambda n: {"kind": "conv", "groups": n}, st.integers(1, 3)),
    st.builds(lambda n: {"kind": "transposed", "strides": n}, st.integers(1, 3)),
)
GAINS = st.floats(1e-3, 1e3)
# One of these fits each class.
CANDIDATES = [(6, 4), (8,), (4, 4), (3, 3, 4, 8)]


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def class_of(name):
    return getattr(initializers, name.removeprefix("initx>"))


def draw_or_refuse(initializer, shape, dtype):
    """Returns a kernel that was checked, or None for a refusal that was."""
    try:
        kernel = initializer(shape, dtype=dtype)
    except ValueError as error:
        message = str(error)
        assert "Received: " in message
        assert message.startswith("`") or "must have" in message
        return None
    assert tuple(kernel.shape) == shape
    assert np.isfinite(array(kernel)).all()
    return kernel


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=cases(12), deadline=None)
@given(shape=SHAPES, dtype=DTYPES)
def test_any_shape_is_drawn_or_refused(name, shape, dtype):
    draw_or_refuse(class_of(name)(), shape, dtype)


@pytest.mark.parametrize(
    "name",
    [
        "initx>HeScaled",
        "initx>OrthogonalScaled",
        "initx>DeltaOrthogonal",
        "initx>ConvOrthogonal",
        "initx>SparseNormal",
        "initx>IDInit",
        "initx>ZerO",
        "initx>Dirac",
        "initx>LooksLinear",
        "initx>Sinusoidal",
        "initx>SmallInit",
        "initx>EdgeOfChaos",
    ],
)
@settings(max_examples=cases(15), deadline=None)
@given(shape=SHAPES, layout=LAYOUTS, gain=GAINS)
def test_any_layout_is_fitted_or_refused(name, shape, layout, gain):
    draw_or_refuse(class_of(name)(gain=gain, layout=layout), shape, "float32")


@settings(max_examples=cases(60), deadline=None)
@given(
    shape=SHAPES,
    layout=LAYOUTS,
    gain=GAINS,
    mode=st.sampled_from(["fan_in", "fan_out", "fan_avg", "fan_geom"]),
    activation=st.sampled_from([None, "relu", "tanh", "gelu"]),
    distribution=st.sampled_from(["normal", "truncated_normal", "uniform"]),
)
def test_the_standard_deviation_is_that_of_the_declared_fans(
    shape, layout, gain, mode, activation, distribution
):
    initializer = initializers.RandomScaled(gain, activation, mode, distribution, layout=layout)
    asked = []
    original = _variance.draw_entries
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_variance, "draw_entries", lambda *args: asked.append(args[1]) or original(*args))
        if draw_or_refuse(initializer, shape, "float32") is None:
            with pytest.raises(ValueError, match="Received: "):
                compute_fans(shape, layout=layout)
            return
    fans = compute_fans(shape, layout=layout)
    n, m = fans.fan_in, fans.fan_out
    count = {"fan_in": n, "fan_out": m, "fan_avg": (n + m) / 2, "fan_geom": math.sqrt(n * m)}[mode]
    factor = gain * compute_gain(activation, backward=mode == "fan_out")
    assert math.isclose(asked[0], factor / math.sqrt(count or 1), rel_tol=1e-12)


@settings(max_examples=cases(40), deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=6).map(tuple),
    layout=LAYOUTS,
    gain=GAINS,
    preserve=st.booleans(),
)
def test_config_of_any_configuration_restores_the_same_draws(shape, layout, gain, preserve):
    first = initializers.OrthogonalScaled(gain, preserve, layout=layout, seed=5)
    config = json.loads(json.dumps(keras.initializers.serialize(first)))
    kernel = draw_or_refuse(first, shape, "float32")
    again = draw_or_refuse(keras.initializers.get(config), shape, "float32")
    assert (kernel is None) == (again is None)
    if kernel is not None:
        np.testing.assert_array_equal(array(kernel), array(again))


def compiled(function):
    """The function as its backend compiles it; PyTorch runs eagerly."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(function)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def shape_for(initializer):
    for shape in CANDIDATES:
        try:
            initializer(shape)
        except ValueError:
            continue
        return shape
    raise AssertionError("no candidate shape fits")


@pytest.mark.parametrize("name", SEEDED)
def test_an_int_seed_gives_the_same_eagerly_compiled_and_reloaded(name, tmp_path):
    initializer = class_of(name)(seed=6)
    shape = shape_for(initializer)
    eager = array(initializer(shape))
    # Compilers may fuse products and so round differently in the last bits.
    np.testing.assert_allclose(array(compiled(lambda: initializer(shape))()), eager, rtol=1e-4, atol=1e-6)
    # A layer that keeps the initializer and never calls it, whatever shapes that is for.
    holder = keras.layers.Dense(3, use_bias=False, bias_initializer=initializer)
    keras.Sequential([keras.layers.Input((2,)), holder]).save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras").layers[-1].bias_initializer
    np.testing.assert_array_equal(array(restored(shape)), eager)


# Of one size and different shapes. Gate biases are left out: their signs repeat a pattern.
PAIRS = [((64, 48), (48, 64)), ((3, 16, 8), (3, 8, 16))]


@pytest.mark.parametrize("name", sorted(set(SEEDED) - {"initx>ChronoBias", "initx>UniformGateBias"}))
def test_streams_of_different_shapes_are_uncorrelated(name):
    """In Keras the values of one int seed are the same, in another order."""
    initializer = class_of(name)(seed=7)
    (one, other) = PAIRS[draw_or_refuse(initializer, PAIRS[0][0], "float32") is None]
    first, second = array(initializer(one)).ravel(), array(initializer(other)).ravel()
    # Mirrored kernels have a quarter of independent entries.
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size / 4)
