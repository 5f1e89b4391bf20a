import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
import keras_initx.calibration._pass as calibrate
from keras_initx import probe
from keras_initx.walk import iter_kernels

TOLERANCE = 1e-3  # what the package promises in float32


class Block(keras.layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.steps = [layers.Dense(width, "gelu"), layers.Dense(width, "tanh", bias_initializer="ones")]

    def call(self, inputs):
        x = inputs
        for step in self.steps:
            x = step(x)
        return inputs + x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.stem, self.blocks = layers.Dense(8, "relu"), {"a": Block(8), "b": Block(8)}
        self.head = layers.Dense(3)

    def call(self, inputs):
        x = self.stem(inputs)
        for block in self.blocks.values():
            x = block(x)
        return self.head(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 12, 12, 3), "float32"))
    return model


def sequential():
    return keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(
                8, 3, activation="relu", bias_initializer=keras.initializers.RandomNormal(stddev=2.0)
            ),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, activation=layers.LeakyReLU()),
            layers.Conv2D(8, 3, groups=2),
            layers.Conv2DTranspose(6, 3, activation="swish"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def functional():
    inputs = layers.Input((12, 12, 3))
    x = layers.Reshape((144, 3))(inputs)
    x = layers.Conv1D(8, 3, activation="relu", padding="same")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 8), activation="gelu", bias_axes="d")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Reshape((12, 12, 8, 1))(x)
    x = layers.Conv3D(4, 3, activation="elu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling3D()(x)))


def nested():
    inner = keras.Sequential(
        [layers.Input((12, 12, 3)), layers.Conv2D(6, 3, activation="relu"), layers.Flatten()]
    )
    inputs = layers.Input((12, 12, 3))
    return keras.Model(inputs, keras.Sequential([layers.Dense(9, "relu"), layers.Dense(2)])(inner(inputs)))


every_form = pytest.mark.parametrize("build", [sequential, functional, nested, subclassed])


@pytest.fixture
def images(rng):
    return (3 + 2 * rng.standard_normal((40, 12, 12, 3))).astype("float32")


def assert_calibrated(model, images, target=1.0, tolerance=TOLERANCE):
    stds = probe.preactivation_std(model, images)
    assert stds
    for path, std in stds.items():
        assert std == pytest.approx(target, abs=tolerance * target), path
    return stds


@every_form
@pytest.mark.parametrize("redraw", [False, True])
def test_all_pre_activations_have_unit_std_on_the_batch(build, redraw, images):
    model = build()
    report = initx.calibrate(model, images, "initx>LSUV", redraw=redraw)
    stds = assert_calibrated(model, images)
    assert [row.path for row in report.rows] == list(stds)
    assert all(row.std_after == pytest.approx(stds[row.path], rel=1e-4) for row in report.rows)
    assert (report.forward_passes, report.samples) == (1, 40)


@every_form
def test_weights_are_rescaled_and_nothing_else_changes(build, images):
    model = build()
    before = [ops.convert_to_numpy(v).copy() for v in model.weights]
    scale_of = {row.path: row.scale for row in initx.calibrate(model, images).rows}
    scales = {id(v): scale_of[s.path] for s in iter_kernels(model) if s.fans for v in (s.kernel, s.bias)}
    assert len(scale_of) == len({id(site.layer) for site in iter_kernels(model) if site.fans})
    for old, variable in zip(before, model.weights, strict=True):
        new = ops.convert_to_numpy(variable)
        np.testing.assert_allclose(new, old * scales.get(id(variable), 1.0), rtol=1e-6)


def test_scales_equal_a_layer_by_layer_loop_in_numpy(rng):
    """The paper's algorithm on dense layers: measure, divide, go on with the divided output."""
    widths, x = (20, 30, 10, 40), rng.standard_normal((100, 15)).astype("float32")
    model = keras.Sequential(
        [layers.Input((15,)), *(layers.Dense(w, "relu", bias_initializer="ones") for w in widths)]
    )
    model.layers[-1].bias.assign(np.zeros(40))  # ones on a head are a prior
    weights = [w.astype("float64") for w in model.get_weights()]
    flow, expected = x.astype("float64"), []
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        pre = flow @ kernel + bias
        expected.append(1 / pre.std())
        flow = np.maximum(pre / pre.std(), 0)
    report = initx.calibrate(model, x)
    np.testing.assert_allclose([row.scale for row in report.rows], expected, rtol=1e-4)


def test_redraw_makes_orthonormal_kernels_scaled_by_the_report(images):
    model = functional()
    report = initx.calibrate(model, images, "initx>LSUV", redraw=True, seed=1)
    scales = {row.path: row.scale for row in report.rows}
    query = next(layer for layer in model._flatten_layers() if layer.name == "query")
    kernel = ops.convert_to_numpy(query.kernel).reshape(8, 8)
    scale = scales[next(path for path in scales if path.endswith("query"))]
    np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), scale, rtol=1e-5)


def test_redraw_is_repeatable_and_gives_equal_shapes_different_draws(images):
    model = functional()  # its biases are zero, so a second redraw starts from the same state
    roles = ("query", "key", "value")
    projections = {layer.name: layer for layer in model._flatten_layers() if layer.name in roles}

    def kernels(seed):
        initx.calibrate(model, images, "initx>LSUV", redraw=True, seed=seed)
        return [ops.convert_to_numpy(projections[role].kernel).copy() for role in roles]

    first, other, again = kernels(1), kernels(2), kernels(1)
    np.testing.assert_allclose(again, first, rtol=1e-5)
    assert abs(first[0] - other[0]).max() > 1e-2
    assert abs(first[0] - first[1]).max() > 1e-2
    assert abs(first[1] - first[2]).max() > 1e-2


@pytest.mark.parametrize("target", [0.1, 3.0])
def test_target_std(target, images):
    model = sequential()
    initx.calibrate(model, images, initx.initializers.LSUV(target_std=target))
    assert_calibrated(model, images, target)


def test_without_initializer_only_layers_whose_config_names_a_law_are_calibrated(images):
    model = keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(4, 3, name="plain"),
            layers.DepthwiseConv2D(3, depthwise_initializer="initx>LSUV", name="lsuv"),
            layers.Conv2D(4, 3, kernel_initializer=initx.initializers.LSUV(target_std=2.0), name="two"),
        ]
    )
    plain = ops.convert_to_numpy(model.layers[0].kernel).copy()
    report = initx.calibrate(model, images)
    assert [row.path for row in report.rows] == ["lsuv", "two"]
    stds = probe.preactivation_std(model, images)
    assert (stds["lsuv"], stds["two"]) == pytest.approx((1.0, 2.0), rel=TOLERANCE)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[0].kernel), plain)


def test_attention_that_names_the_law_is_calibrated_projection_by_projection(rng):
    x = rng.standard_normal((30, 5, 8)).astype("float32")
    inputs = layers.Input((5, 8))
    model = keras.Model(
        inputs, layers.MultiHeadAttention(2, 4, kernel_initializer="initx>LSUV")(inputs, inputs)
    )
    report = initx.calibrate(model, x)
    assert sorted(row.role for row in report.rows) == ["attention_output", "key", "query", "value"]
    assert_calibrated(model, x)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 2e-2), ("float64", 1e-6)]
)
def test_other_precisions(policy, tolerance, rng):
    """Half precision rounds each output by up to 2^-11 or 2^-8 of itself."""
    x = rng.standard_normal((64, 20)).astype("float32")
    model = keras.Sequential(
        [layers.Input((20,)), *(layers.Dense(20, "relu", dtype=policy) for _ in range(4))]
    )
    initx.calibrate(model, x)
    assert_calibrated(model, x, tolerance=tolerance)


def test_half_precision_kernel_survives_a_scale_beyond_its_range(rng):
    x = rng.standard_normal((64, 20)).astype("float32")
    model = keras.Sequential([layers.Input((20,)), layers.Dense(30, dtype="float16")])
    model.layers[0].kernel.assign(ops.cast(model.layers[0].kernel, "float16") * 1e-3)
    # Scaling the input makes the pre-activation, not the kernel, tiny: a scale near 1e5 exceeds float16's.
    report = initx.calibrate(model, x * 1e-2)
    assert report.rows[0].scale > 65504
    assert np.isfinite(ops.convert_to_numpy(model.layers[0].kernel).astype("float64")).all()


def test_gaussian_input_needs_no_data():
    model = keras.Sequential([layers.Input((8,)), layers.Dense(6, "relu"), layers.Dense(4)])
    report = initx.calibrate(model, None, seed=3)
    assert report.samples == 256
    assert_calibrated(model, initx.data.take_pair(model, None, 256, seed=3)[0])


def problem_model():
    """A zero kernel, an unsupported layer, a frozen one, a shared one and one that the data never reaches."""
    inputs = layers.Input((6,), name="x")
    x = layers.Dense(6, name="good")(inputs)
    shared = layers.Dense(6, name="shared")
    x = shared(layers.ReLU()(shared(x)))
    x = layers.Dense(6, name="frozen", trainable=False)(x)
    x = layers.SimpleRNN(4, name="rnn")(layers.Reshape((6, 1))(x))
    outputs = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones", name="zero")(x)
    model = keras.Model(inputs, outputs)
    model.unused = layers.Dense(3, name="unused")
    model.unused.build((None, 6))
    return model


def test_what_cannot_be_calibrated_is_a_row_with_a_reason_and_one_warning(rng):
    model = problem_model()
    frozen, unused = model.get_layer("frozen"), model.unused
    before = [ops.convert_to_numpy(layer.kernel).copy() for layer in (frozen, unused)]
    with pytest.warns(UserWarning, match="kernels were left as they are or may be off") as caught:
        report = initx.calibrate(model, rng.standard_normal((50, 6)), "initx>LSUV", redraw=True)
    notes = {row.path: row.note for row in report.rows}
    assert notes["good"] == ""
    assert "zero variance" not in notes["zero"]  # redrawn, so no longer zero
    assert notes["shared"] == ""
    assert "frozen" in notes["frozen"]
    assert "never reached" in notes["unused"]
    assert notes["rnn/simple_rnn_cell"] == notes["rnn/simple_rnn_cell/recurrent_kernel"] == ""
    ours = [str(w.message) for w in caught if "left as they are" in str(w.message)]
    assert len(ours) == 1
    assert "`frozen`" not in ours[0]
    for layer, kernel in zip((frozen, unused), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), kernel)


def test_equal_layers_of_nested_models_get_streams_of_their_own(rng):
    def block(name):
        inputs = layers.Input((12,))
        return keras.Model(inputs, layers.Dense(12, "relu", name="d")(inputs), name=name)

    def kernels():
        model = keras.Sequential([layers.Input((12,)), block("b1"), block("b2")])
        initx.calibrate(model, np.eye(12, dtype="float32"), redraw=True, seed=1)
        return [w / np.linalg.norm(w) for w in model.get_weights()[::2]]

    first, again = kernels(), kernels()
    assert abs(first[0] - first[1]).max() > 1e-2
    np.testing.assert_allclose(first, again, rtol=1e-5)


def test_a_constant_first_call_does_not_decide_for_the_later_ones(rng):
    """Left padding makes the first step of a sequence constant."""
    steps = rng.standard_normal((50, 4, 6)).astype("float32")
    steps[:, 0] = 0
    inputs = layers.Input((4, 6))
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(5, name="d"))(inputs))
    (row,) = initx.calibrate(model, steps, tolerance=1e-3).rows
    outputs = steps @ model.get_weights()[0]
    assert outputs.std() == pytest.approx(1, rel=1e-3)
    assert row.std_after == pytest.approx(outputs.std(), rel=1e-4)
    assert row.iterations > 1


def test_a_shared_layer_that_is_on_target_in_all_its_calls_is_no_warning(rng):
    shared, inputs = layers.Dense(5, name="shared"), layers.Input((6,))
    model = keras.Model(inputs, layers.Add()([shared(inputs), shared(inputs)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (row,) = initx.calibrate(model, rng.standard_normal((50, 6))).rows
    assert row.std_after == pytest.approx(1, rel=1e-6)


def test_a_quantized_layer_is_a_row_with_its_reason(rng):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, name="d")])
    model.quantize("int8")
    with pytest.warns(UserWarning, match="`d`: the kernel is quantized"):
        (row,) = initx.calibrate(model, rng.standard_normal((50, 6))).rows
    assert row.iterations == 0


@pytest.mark.tensorflow
def test_a_model_whose_call_is_traced_is_refused_and_unharmed(rng):
    import tensorflow as tf

    class Traced(keras.Model):
        def __init__(self):
            super().__init__(name="traced")
            self.dense = layers.Dense(3, name="dense")

        @tf.function
        def call(self, inputs):
            return self.dense(inputs)

    model, x = Traced(), rng.standard_normal((8, 4)).astype("float32")
    model.dense.build((None, 4))
    model.built = True
    before = model.dense(x).numpy()
    with pytest.raises(ValueError, match="`model` must run eagerly. Received: `dense` runs inside a traced"):
        initx.calibrate(model, x)
    np.testing.assert_array_equal(model(x).numpy(), before)


@pytest.mark.parametrize("seed", ["a", 1.5, -1])
def test_seed_must_be_an_int(seed):
    with pytest.raises(ValueError, match="`seed` must be None or an int of at least 0. Received: seed="):
        initx.calibrate(sequential(), None, seed=seed)


def test_zero_variance_leaves_the_layer_alone_and_warns(rng):
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones", name="zero"),
        ]
    )
    with pytest.warns(UserWarning, match="`zero`: zero variance"):
        report = initx.calibrate(model, rng.standard_normal((50, 6)))
    (row,) = report.rows
    assert (row.scale, row.std_before, row.iterations) == (1.0, 0.0, 0)
    np.testing.assert_array_equal(model.get_weights()[1], 1)


@every_form
@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_at_any_layer_leaves_the_weights_as_they_were(build, redraw, error, images, monkeypatch):
    model = build()
    before = [ops.convert_to_numpy(v).copy() for v in model.weights]
    measure, sites = probe.mean_and_variance, len(probe.preactivation_std(model, images))
    for stop in range(sites):
        calls = iter(range(sites))

        def failing(tensor, calls=calls, stop=stop):
            if next(calls) == stop:
                raise error
            return measure(tensor)

        monkeypatch.setattr(probe, "mean_and_variance", failing)
        with pytest.raises(error):
            initx.calibrate(model, images, "initx>LSUV", redraw=redraw)
        for old, variable in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)


def test_an_interrupt_while_weights_are_written_undoes_those_already_written(images, monkeypatch):
    model = sequential()
    before = model.get_weights()
    original, seen = calibrate.affine, []

    def failing(tensor, scale, shift=0.0):
        seen.append(scale)
        if len(seen) == 8:  # five outputs of the pass, then kernels and one bias
            raise KeyboardInterrupt
        return original(tensor, scale, shift)

    monkeypatch.setattr(calibrate, "affine", failing)
    with pytest.raises(KeyboardInterrupt):
        initx.calibrate(model, images)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_pre_activation_that_overflows_names_the_layer_and_changes_nothing(rng):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, name="ok"), layers.Dense(5, name="huge")])
    model.layers[1].kernel.assign(ops.full((5, 5), 1e38))
    before = model.get_weights()
    with pytest.raises(ValueError, match="`data` must keep every pre-activation finite.*`huge`"):
        initx.calibrate(model, 100 * rng.standard_normal((50, 6)).astype("float32"))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("bad", ["nan", "empty", "shape"])
def test_bad_data_changes_nothing(bad, images):
    model = sequential()
    before = model.get_weights()
    data = {"nan": np.full_like(images, np.nan), "empty": images[:0], "shape": images[:, :5]}[bad]
    with pytest.raises(ValueError, match="`data` must"):
        initx.calibrate(model, data, "initx>LSUV", redraw=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("bad", [np.zeros((4, 12, 12, 5)), [np.zeros((4, 3)), np.zeros((4, 3))], np.zeros(4)])
def test_data_that_a_subclassed_model_cannot_be_called_on_is_refused(bad):
    model = subclassed()
    before = model.get_weights()
    with pytest.raises(ValueError, match="`data` must be a batch that `subclassed` can be called on. Re"):
        initx.calibrate(model, bad, "initx>LSUV", redraw=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(3)]), Subclassed()])
def test_an_unbuilt_model_is_refused(model):
    with pytest.raises(ValueError, match=r"`model` must be built .* Call `model.build\(input_shape\)`"):
        initx.calibrate(model, np.ones((4, 3)))


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="`model` must be a Keras model. Received: model of type str"):
        initx.calibrate("model", np.ones((4, 3)))


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        ("initx>LSVU", "Nearest known: 'initx>LSUV'"),
        ("he_normal", r"must be a data-dependent law, one of .*'initx>LSUV'.* Received: 'he_normal'"),
    ],
)
def test_an_initializer_that_is_no_law_is_refused(initializer, message, images):
    with pytest.raises(ValueError, match=message):
        initx.calibrate(sequential(), images, initializer)


def test_report_is_a_table_and_a_dict(images):
    report = initx.calibrate(sequential(), images)
    lines = str(report).splitlines()
    assert lines[0].split() == ["path", "role", "std", "before", "scale", "std", "after"]
    assert len(lines) == len(report.rows) + 2
    assert "5 of 5 kernels calibrated on 40 rows, 1 forward pass" in lines[-1]
    assert report.to_dict()["rows"][0]["path"] == report.rows[0].path
