import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from keras_initx import calibrate, diagnose, probe
from keras_initx.walk import iter_kernels
from support.sampling import cases


def small_model():
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, activation="relu", name="first"),
            layers.Dense(4, activation=layers.ReLU(), name="second"),
            layers.Dense(3, name="third"),
        ]
    )


@settings(max_examples=cases(30), deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.sampled_from(["float32", "float64"]))
def test_moments_agree_with_numpy_however_large_the_mean(mean, std, dtype):
    values = (mean + std * np.random.default_rng(0).standard_normal((64, 50))).astype(dtype)
    got_mean, got_variance = probe.mean_and_variance(ops.convert_to_tensor(values))
    reference = values.astype("float64")
    eps = float(np.finfo("float32").eps)
    assert got_mean == pytest.approx(reference.mean(), rel=1e-4, abs=1e-5 * std)
    # What float32 can tell: its rounding of the values themselves has std eps * |mean|.
    assert got_variance == pytest.approx(reference.var(), rel=1e-3, abs=10 * (eps * abs(mean)) ** 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_moments_of_half_precision_do_not_overflow(dtype):
    values = ops.cast(ops.convert_to_tensor([300.0, -300.0] * 4096), dtype)
    mean, variance = probe.mean_and_variance(values)
    assert mean == pytest.approx(0, abs=1e-3)
    assert variance == pytest.approx(9e4, rel=1e-2)


def test_observer_sees_pre_activations_in_call_order_and_later_layers_see_what_it_returns(rng):
    model, inputs = small_model(), rng.standard_normal((7, 6)).astype("float32")
    seen = []

    def observe(site, output):
        seen.append((site.path, ops.convert_to_numpy(output)))
        return output * 0.0 + 1.0

    result = probe.run(model, inputs, list(iter_kernels(model)), observe)
    assert [path for path, _ in seen] == ["first", "second", "third"]
    assert (seen[0][1] < 0).any()
    third = model.layers[2]
    ones = np.ones((7, 4), "float32")
    expected = ones @ ops.convert_to_numpy(third.kernel) + ops.convert_to_numpy(third.bias)
    np.testing.assert_allclose(seen[2][1], expected, rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(result), 1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_removed_after_success_and_after_an_error(error, rng):
    model, inputs = small_model(), rng.standard_normal((7, 6)).astype("float32")
    before = ops.convert_to_numpy(model(inputs))

    def fail(site, output):
        raise error

    with pytest.raises(error):
        probe.run(model, inputs, list(iter_kernels(model)), fail)
    probe.preactivation_std(model, inputs)
    assert all("call" not in layer.__dict__ for layer in model.layers)
    assert [layer.activation is None for layer in model.layers] == [False] * 3
    np.testing.assert_array_equal(ops.convert_to_numpy(model(inputs)), before)


def test_a_users_own_hook_is_put_back(rng):
    model, inputs = small_model(), rng.standard_normal((7, 6)).astype("float32")
    layer = model.layers[0]
    own, original = (lambda x, **kwargs: original(x)), layer.call
    object.__setattr__(layer, "call", own)
    assert len(probe.preactivation_std(model, inputs)) == 3
    assert layer.__dict__["call"] is own


def test_enter_is_called_before_the_layer_runs(rng):
    model, events = small_model(), []
    inputs = rng.standard_normal((7, 6)).astype("float32")

    def observe(site, output):
        events.append(("observe", site.path))
        return output

    probe.run(
        model, inputs, list(iter_kernels(model)), observe, lambda site, _: events.append(("enter", site.path))
    )
    assert events[:3] == [("enter", "first"), ("observe", "first"), ("enter", "second")]


def test_preactivation_std_measures_without_changing_anything(rng):
    model, inputs = small_model(), rng.standard_normal((50, 6)).astype("float32")
    weights = model.get_weights()
    stds = probe.preactivation_std(model, inputs)
    first = inputs @ weights[0] + weights[1]
    assert stds["first"] == pytest.approx(first.std(), rel=1e-5)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


class AddsInPlace(layers.Layer):
    """Changes what its dense layer returned, in place where the backend can."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(5, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        outputs = self.dense(inputs)
        outputs += inputs
        return outputs


def test_what_a_layer_returned_may_be_changed_in_place(rng):
    """Signal and gradients of a sum by hand: y = x W + x, and the loss is half of its square."""
    model = keras.Sequential([layers.Input((5,)), AddsInPlace(name="sum")])
    x = rng.standard_normal((16, 5)).astype("float32")
    weight = ops.convert_to_numpy(model.layers[0].dense.kernel)
    pre = x @ weight
    (row,) = diagnose(
        model, x, np.zeros((16, 5), "float32"), lambda _, outputs: ops.sum(ops.square(outputs)) / 2
    ).rows
    gradient = pre + x
    assert row.preactivation_std == pytest.approx(pre.std(), rel=1e-4)
    assert row.signal_gradient == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert row.gradient_std == pytest.approx((x.T @ gradient).std(), rel=1e-3)
    assert probe.preactivation_std(model, x)["sum/dense"] == pytest.approx(pre.std(), rel=1e-4)


def test_a_layout_that_the_backend_cannot_run_is_one_sentence_with_the_cure(rng):
    """Whether it can depends on the processor, so that a layer raises what TensorFlow does."""

    class Refusing(layers.Layer):
        data_format = "channels_first"

        def compute_output_spec(self, inputs, **options):
            return keras.KerasTensor(inputs.shape, inputs.dtype)

        def call(self, inputs):
            raise NotImplementedError("The op currently only supports the NHWC tensor format on the CPU.")

    model = keras.Sequential([layers.Input((5,)), layers.Dense(3), Refusing(name="first")])
    x = rng.standard_normal((8, 5)).astype("float32")
    for verb in (calibrate, diagnose, probe.preactivation_std):
        with pytest.raises(ValueError, match="`first` with data_format='channels_first'.*ONEDNN_OPTS=1"):
            verb(model, x)
