import itertools
import math

import keras
import numpy as np
import pytest
from scipy import integrate, stats

from keras_initx.gains import _moments, compute_gain, second_moments

# 1 / sqrt(E f(z)^2) and 1 / sqrt(E f'(z)^2), to six digits, by 40-point Gauss-Legendre panels with edges at
# the kinks, confirmed by Monte Carlo over 8e6 samples.
GAINS = {
    "celu": (1.245198, 1.223429),
    "elu": (1.245198, 1.223429),
    "exponential": (0.367879, 0.367879),
    "gelu": (1.533530, 1.481114),
    "hard_shrink": (1.015796, 1.273008),
    "hard_sigmoid": (1.897840, 6.008116),
    "hard_silu": (1.736657, 1.670076),
    "hard_swish": (1.736657, 1.670076),
    "hard_tanh": (1.392036, 1.210287),
    "leaky_relu": (1.386750, 1.386750),
    "linear": (1.000000, 1.000000),
    "log_sigmoid": (1.041867, 1.846229),
    "mish": (1.486848, 1.444755),
    "relu": (1.414214, 1.414214),
    "relu6": (1.414214, 1.414214),
    "selu": (1.000000, 0.966026),
    "sigmoid": (1.846229, 4.722646),
    "silu": (1.676532, 1.623320),
    "soft_shrink": (1.544361, 1.273008),
    "softplus": (1.041867, 1.846229),
    "softsign": (2.337533, 2.095781),
    "sparse_plus": (1.380337, 1.624322),
    "sparse_sigmoid": (1.624322, 2.420574),
    "squareplus": (0.816497, 1.859149),
    "swish": (1.676532, 1.623320),
    "tanh": (1.592537, 1.467414),
    "tanh_shrink": (2.338368, 1.988139),
}
# What keras.activations holds besides: gates, what is not element-wise, and what is no activation.
OTHERS = {"glu", "log_softmax", "softmax", "sparsemax", "threshold", "deserialize", "get", "serialize"}
# keras.ops compute in single precision on JAX and PyTorch, and TensorFlow rounds some constants to it.
SINGLE = 1e-7


def apply(name, values):
    outputs = keras.activations.get(name)(keras.ops.convert_to_tensor(values, dtype="float32"))
    return keras.ops.convert_to_numpy(outputs).astype("float64")


def expectation(function, points=()):
    """E f(z) by QUADPACK, told where the function breaks."""
    edges = [-14, *points, 14]
    pairs = itertools.pairwise(edges)
    return sum(
        integrate.quad(lambda z: function(z) * stats.norm.pdf(z), *pair, epsabs=1e-13)[0] for pair in pairs
    )


@pytest.mark.parametrize("name", GAINS)
def test_gains_are_those_of_the_table(name):
    assert compute_gain(name) == pytest.approx(GAINS[name][0], abs=1e-6)
    assert compute_gain(name, backward=True) == pytest.approx(GAINS[name][1], abs=1e-6)


def test_the_table_covers_every_activation_of_keras():
    assert {name for name in dir(keras.activations) if name[0] != "_"} == set(GAINS) | OTHERS


@pytest.mark.parametrize("name", ["celu", "hard_shrink", "relu", "sigmoid", "tanh"])
def test_gains_agree_with_sampling(name, rng):
    squares = apply(name, rng.normal(size=200_000)) ** 2
    error = squares.std() / math.sqrt(squares.size)
    assert second_moments(name)[0] == pytest.approx(squares.mean(), abs=5 * error)


def test_a_name_its_function_its_config_and_its_layer_have_one_gain():
    function = keras.activations.gelu
    config = keras.saving.serialize_keras_object(keras.layers.ELU(0.5))
    expected = compute_gain("gelu")
    assert compute_gain(function) == compute_gain(keras.activations.serialize(function)) == expected
    assert compute_gain(keras.layers.Activation("gelu")) == pytest.approx(expected, abs=1e-12)
    assert compute_gain(config) == compute_gain(keras.layers.ELU(0.5)) != compute_gain("elu")
    assert compute_gain(None) == compute_gain("linear") == 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (keras.activations.gelu, 1 / 3 + 1 / (2 * math.pi * math.sqrt(3))),
        (keras.ops.erf, 2 / math.pi * math.asin(2 / 3)),
        (keras.activations.squareplus, 3 / 2),
        (keras.activations.exponential, math.exp(2)),
        (lambda x: keras.ops.sqrt(keras.ops.absolute(x)), math.sqrt(2 / math.pi)),
    ],
    ids=["gelu", "erf", "squareplus", "exponential", "sqrt"],
)
def test_second_moments_with_a_closed_form(function, expected):
    assert second_moments(function)[0] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu"])
@pytest.mark.parametrize("stddev", [0.3, 1, 5.0])
def test_closed_forms_are_the_integrals_that_they_replace(name, stddev):
    function = keras.activations.get(name)
    assert second_moments(name, stddev) == pytest.approx(
        second_moments(lambda x: function(x), stddev), rel=SINGLE
    )


def test_second_moments_of_a_signal_that_has_not_unit_size():
    assert second_moments("relu", 3) == (4.5, 0.5)
    for stddev in (0.1, 0.7, 3.0):
        falloff = math.exp(-2 * stddev**2)
        sine = second_moments(keras.ops.sin, stddev)
        assert sine == pytest.approx(((1 - falloff) / 2, (1 + falloff) / 2), rel=1e-6)
        exponential = second_moments("exponential", stddev)
        assert exponential == pytest.approx((math.exp(2 * stddev**2),) * 2, rel=1e-9)
    assert second_moments("hard_tanh", 100.0)[1] == pytest.approx(2 * stats.norm.cdf(0.01) - 1, abs=1e-10)


@pytest.mark.parametrize(
    "place", [0.3337, 0.25, 0.501, -math.pi]
)  # also on and just beside an edge of a panel
def test_kinks_and_jumps_are_found_wherever_they_are(place):
    kink = expectation(lambda z: (abs(z - place) + z) ** 2, [place])
    slope = 4 * stats.norm.sf(place)
    assert second_moments(lambda x: abs(x - place) + x) == pytest.approx((kink, slope), abs=1e-10)
    jump = second_moments(lambda x: x + keras.ops.cast(x > place, "float64"))
    expected = expectation(lambda z: (z + (z > place)) ** 2, [place])
    assert jump == pytest.approx((expected, 1), abs=1e-10)


def test_steps_have_no_slope_and_roots_an_infinite_one():
    steps = second_moments(lambda x: keras.ops.round(8 * x))
    edges = (np.arange(-120, 120) + 0.5) / 8
    mass = np.diff(stats.norm.cdf(edges))
    assert steps == (pytest.approx(np.sum(np.arange(-119, 120) ** 2 * mass), abs=1e-8), 0)
    assert second_moments(lambda x: keras.ops.sqrt(keras.ops.absolute(x)))[1] == math.inf


def test_functions_that_round_to_single_precision_are_integrated_to_it():
    moments = second_moments(lambda x: keras.ops.tanh(keras.ops.cast(x, "float32")))
    assert moments == pytest.approx(second_moments("tanh"), rel=1e-6)
    kinked = second_moments(lambda x: abs(keras.ops.cast(x, "float32") - 0.3337))
    assert kinked == pytest.approx((1 + 0.3337**2, 1), rel=1e-4)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.25, 1.5])
def test_layers_count_with_their_own_slopes(slope):
    expected = math.sqrt(2 / (1 + slope**2))
    prelu = keras.layers.PReLU(alpha_initializer=keras.initializers.Constant(slope), shared_axes=[1, 2])
    for layer in (keras.layers.LeakyReLU(slope), keras.layers.ReLU(negative_slope=slope), prelu):
        assert compute_gain(layer) == pytest.approx(expected, rel=SINGLE)
        assert compute_gain(layer, backward=True) == pytest.approx(expected, rel=SINGLE)
    assert compute_gain(keras.layers.LeakyReLU()) < compute_gain("leaky_relu")


def test_a_layer_with_all_its_parameters():
    def reference(z):
        return 6.0 if z > 6 else z if z >= 0.3 else 0.1 * (z - 0.3)

    layer = keras.layers.ReLU(max_value=6.0, negative_slope=0.1, threshold=0.3)
    expected = expectation(lambda z: reference(z) ** 2, [0.3, 6])
    assert second_moments(layer)[0] == pytest.approx(expected, rel=SINGLE)
    own = keras.layers.Activation(lambda x: abs(x - 0.3))
    assert second_moments(own) == pytest.approx((1.09, 1), abs=1e-9)


def test_the_layer_itself_is_neither_built_nor_changed():
    layer = keras.layers.PReLU()
    compute_gain(layer)
    assert not layer.built
    assert not layer.weights
    assert layer.dtype_policy.name == "float32"
    layer.build((None, 3))
    layer.set_weights([np.ones(3)])
    assert compute_gain(layer) == pytest.approx(math.sqrt(2))  # as initialized


@pytest.mark.parametrize(
    ("name", "gate"),
    [("glu", "sigmoid"), ("swiglu", "silu"), ("geglu", "gelu"), ("reglu", "relu"), ("bilinear", "linear")],
)
def test_gated_linear_units_are_what_they_multiply(name, gate, rng):
    assert compute_gain(name) == compute_gain(gate)
    forward, slope = second_moments(gate, 2.0)
    assert second_moments(name, 2.0) == (4 * forward, (forward + 4 * slope) / 2)
    value, z = 2 * rng.normal(size=(2, 200_000))
    squares = (value * apply(gate, z)) ** 2
    error = squares.std() / math.sqrt(squares.size)
    assert second_moments(name, 2.0)[0] == pytest.approx(squares.mean(), abs=5 * error)


def test_the_glu_function_is_the_gate_of_that_name():
    assert second_moments(keras.activations.glu, 2.0) == second_moments("glu", 2.0)


def test_pytorch_agrees_where_it_follows_the_law_and_not_where_it_is_a_heuristic():
    calculate_gain = pytest.importorskip("torch").nn.init.calculate_gain
    for name in ("linear", "relu"):
        assert compute_gain(name) == pytest.approx(calculate_gain(name), abs=1e-12)
    layer = keras.layers.LeakyReLU(0.1)
    assert compute_gain(layer) == pytest.approx(calculate_gain("leaky_relu", 0.1), rel=SINGLE)
    differences = {name: calculate_gain(name) - compute_gain(name) for name in ("tanh", "sigmoid", "selu")}
    assert differences == pytest.approx({"tanh": 0.074130, "sigmoid": -0.846229, "selu": -0.25}, abs=1e-6)


def test_results_are_kept_for_keras_functions_only():
    slope = [0.1]

    def leaky(x):
        return keras.ops.maximum(x, slope[0] * x)

    before = compute_gain(leaky)
    slope[0] = 0.5
    assert compute_gain(leaky) < before
    _moments._known_moments.cache_clear()
    compute_gain("silu")
    compute_gain(keras.activations.swish)
    assert _moments._known_moments.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("mixed_bfloat16", 1e-2)])
def test_a_gain_within_a_layer_that_is_built_traced_and_compiled(dtype, tolerance):
    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.gain = compute_gain(keras.layers.PReLU()) * compute_gain("softplus")
            self.built = True

        def call(self, x):
            return x * self.gain * compute_gain("mish") * compute_gain(lambda z: abs(z - 0.2))

    _moments._known_moments.cache_clear()
    layer = Scaled(dtype=dtype)
    model = keras.Sequential([keras.Input((3,)), layer])
    _moments._known_moments.cache_clear()
    expected = math.sqrt(2 / 1.04) * compute_gain("softplus") * compute_gain("mish")
    _moments._known_moments.cache_clear()
    assert model.predict(np.ones((1, 3)), verbose=0) == pytest.approx(
        np.full((1, 3), expected), rel=tolerance
    )
    assert not layer.weights
    assert keras.config.floatx() == "float32"


@pytest.mark.tensorflow
def test_a_gain_inside_a_tensorflow_function():
    import tensorflow as tf

    @tf.function
    def scale(x):
        return (
            x
            * compute_gain("mish")
            * compute_gain(lambda z: abs(z - 0.1))
            * compute_gain(keras.layers.ReLU(3))
        )

    _moments._known_moments.cache_clear()
    expected = compute_gain("mish") / math.sqrt(1.01) * compute_gain(keras.layers.ReLU(3))
    _moments._known_moments.cache_clear()
    assert scale(tf.ones(())).numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("gleu", r"Nearest: \['glu', 'gelu'"), ("zzz", r"Nearest: \['bilinear', 'celu', .* 'threshold'\]")],
)
def test_an_unknown_name_is_told_its_neighbours(name, nearest):
    with pytest.raises(
        ValueError, match=f"the name of a Keras activation or gate. Received: activation='{name}'. {nearest}"
    ):
        compute_gain(name)


@pytest.mark.parametrize("activation", [3, ["relu"], {"class_name": "Nope", "config": {}}])
def test_what_is_no_activation_is_refused(activation):
    with pytest.raises(
        ValueError, match="must be None, a name, a config, an activation layer or a callable. Received"
    ) as error:
        compute_gain(activation)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    "activation",
    [
        "softmax",
        "log_softmax",
        "sparsemax",
        keras.layers.Softmax(),
        keras.layers.Softmax(axis=1),
        keras.layers.Activation("softmax"),
        keras.layers.PReLU(alpha_initializer="random_uniform"),
        lambda x: keras.ops.cumsum(x, axis=-1),
        lambda x: x - keras.ops.mean(x),
        lambda x: x / keras.ops.max(x),
        lambda x: x - keras.ops.median(x),
        lambda x: x + keras.random.normal(keras.ops.shape(x), dtype="float64"),
    ],
)
def test_activations_that_are_not_element_wise_are_sent_to_calibrate(activation):
    with pytest.raises(
        ValueError,
        match=r"must be element-wise, not depend .* Received: .* calibrate\(model, data, \"initx>LSUV\"\)",
    ):
        compute_gain(activation)


@pytest.mark.parametrize(
    "activation", [lambda x: x[:, :, :, ::2], keras.ops.sum, keras.layers.Activation("glu")]
)
def test_a_changed_shape_is_refused(activation):
    with pytest.raises(
        ValueError, match=r"must be element-wise. Received: .* It makes \(.*\) of \(1, 1, 1, 2048\)"
    ):
        compute_gain(activation)


def test_a_function_that_raises_is_quoted():
    with pytest.raises(
        ValueError, match=r"It raised TypeError: threshold\(\) missing .* fix further arguments in a lambda"
    ):
        compute_gain("threshold")
    fixed = compute_gain(lambda x: keras.activations.threshold(x, 0.0, 0.0))
    assert fixed == pytest.approx(math.sqrt(2), rel=SINGLE)

    def broken(x):
        raise KeyError("slope")

    with pytest.raises(
        ValueError, match="outside any trace. It raised KeyError: 'slope'. Received: activation=<function"
    ) as error:
        compute_gain(broken)
    assert isinstance(error.value.__cause__, KeyError)


def test_a_function_that_uses_a_traced_value_is_refused():
    symbol = keras.Input((1,))
    with pytest.raises(ValueError, match="must return values for a float64 tensor outside any trace"):
        compute_gain(lambda x: symbol)


@pytest.mark.parametrize(("function", "place"), [(keras.ops.log, "-"), (lambda x: 1 / x, "0")])
def test_values_that_are_not_finite_are_located(function, place):
    with pytest.raises(
        ValueError, match=f"finite within 14 standard deviations. Received: .* NaN or infinite at {place}"
    ):
        compute_gain(function)


@pytest.mark.parametrize("factor", [0.24, 0.25, 1, 3])
def test_an_infinite_second_moment_is_refused(factor):
    with pytest.raises(ValueError, match=r"must have a finite E f\(z\)\^2 within 14 standard deviations"):
        compute_gain(lambda x: keras.ops.exp(factor * x**2))


def test_an_infinite_second_moment_at_a_pole_or_for_a_large_signal_is_refused():
    with pytest.raises(ValueError, match=r"must have a finite E f\(z\)\^2"):
        compute_gain(lambda x: 1 / (x - 0.3337))
    with pytest.raises(
        ValueError, match=r"finite E f\(z\)\^2 .* Received: activation='exponential'. .* a smaller `stddev`"
    ):
        second_moments("exponential", 6.0)
    finite = second_moments(lambda x: keras.ops.exp(0.1 * x**2))[0]
    assert finite == pytest.approx(1 / math.sqrt(0.6), rel=1e-6)


def test_half_precision_inside_is_refused():
    with pytest.raises(
        ValueError, match="smooth but for some kinks and jumps, .* without casts to half precision"
    ):
        compute_gain(lambda x: keras.ops.cast(keras.ops.cast(x, "float16"), "float64"))


def test_no_gain_exists_without_a_signal_or_a_slope():
    with pytest.raises(
        ValueError, match="not have f = 0 almost everywhere: no gain exists. Received: activation=<"
    ):
        compute_gain(lambda x: 0 * x)
    assert compute_gain(keras.ops.sign) == pytest.approx(1, abs=1e-9)
    for step in (keras.ops.sign, lambda x: (x + 0.1) - x):
        with pytest.raises(
            ValueError, match="not have f' = 0 almost everywhere: no gain exists. .* Use the forward gain"
        ):
            compute_gain(step, backward=True)
    with pytest.raises(ValueError, match=r"must have a finite E f'\(z\)\^2"):
        compute_gain(lambda x: keras.ops.sqrt(keras.ops.absolute(x)), backward=True)


@pytest.mark.parametrize("stddev", [0, -1.0, math.inf, math.nan, "1", True, None])
def test_a_stddev_that_is_none_is_refused(stddev):
    with pytest.raises(
        ValueError, match=f"`stddev` must be a positive, finite number. Received: stddev={stddev!r}"
    ):
        second_moments("relu", stddev)
