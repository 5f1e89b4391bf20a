"""The verb: what it draws, what it leaves, and that bad input changes nothing."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import ByRole, Draw


def values(model):
    return {v.path: np.array(keras.ops.convert_to_numpy(v), "float64") for v in model.weights}


def convnet(extra=False):
    stack = [
        layers.Input((12, 12, 3)),
        layers.Conv2D(8, 3, name="stem"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        *([layers.Conv2D(8, 1, name="extra")] if extra else []),
        layers.SeparableConv2D(8, 3, activation="relu", name="separable"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(8, activation="tanh", name="hidden"),
        layers.Dense(8, name="head"),
    ]
    return keras.Sequential(stack)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def by_name(model):
    return {
        f"{layer.name}/{v.name}": np.array(keras.ops.convert_to_numpy(v))
        for layer in model.layers
        for v in layer.weights
    }


@pytest.mark.parametrize("scheme", ["by_role", "initx>HeScaled", "he_normal", "orthogonal", None])
def test_the_same_seed_gives_the_same_weights_in_any_model_of_those_paths(scheme):
    one, other = convnet(), convnet()
    first = initx.initialize(one, scheme, seed=7)
    second = initx.initialize(other, scheme, seed=7)
    for name, value in by_name(one).items():
        np.testing.assert_array_equal(value, by_name(other)[name])
    assert [row.std for row in first.rows] == [row.std for row in second.rows]
    initx.initialize(other, scheme, seed=8)
    assert not np.array_equal(by_name(one)["head/kernel"], by_name(other)["head/kernel"])


def test_without_an_initializer_it_is_by_role():
    one, other = convnet(), convnet()
    report = initx.initialize(one, seed=7)
    initx.initialize(other, "by_role", seed=7)
    assert_equal(by_name(one), by_name(other))
    assert "by_role" in str(report)


@pytest.mark.parametrize("scheme", ["initx>HeScaled", "by_role", None])
def test_a_new_layer_changes_no_other_layers_draw(scheme):
    small, large = convnet(), convnet(extra=True)
    initx.initialize(small, scheme, seed=7)
    initx.initialize(large, scheme, seed=7)
    drawn, again = by_name(small), by_name(large)
    assert set(again) - set(drawn) == {"extra/kernel", "extra/bias"}
    for name in set(drawn) - {"separable/depthwise_kernel"}:
        np.testing.assert_array_equal(drawn[name], again[name], err_msg=name)
    # What feeds the separable layer is no ReLU any more: the same numbers with another gain.
    one, other = drawn["separable/depthwise_kernel"], again["separable/depthwise_kernel"]
    ratio = 2**0.5 if scheme == "by_role" else 1.0
    np.testing.assert_allclose(one, ratio * other, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["by_role", "glorot_uniform", None])
def test_query_key_and_value_differ_and_so_do_forward_and_backward(scheme):
    shared = keras.initializers.GlorotUniform(seed=1)  # Keras draws equal kernels from it
    inputs = layers.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4, kernel_initializer=shared, name="mha")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(4, kernel_initializer=shared), name="both")(x)
    model = keras.Model(inputs, x)
    same = values(model)
    query, key = (next(v for k, v in same.items() if f"{n}/kernel" in k) for n in ("query", "key"))
    np.testing.assert_array_equal(query, key)
    initx.initialize(model, scheme, seed=7)
    kernels = [v for k, v in values(model).items() if k.endswith("kernel")]
    for n, one in enumerate(kernels):
        for other in kernels[n + 1 :]:
            if one.shape == other.shape:
                # Independent draws: of a correlation's standard errors, six.
                assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 6 / one.size**0.5


def test_none_resets_every_variable_by_its_layers_own_initializer():
    inputs = layers.Input((6, 10))
    x = layers.LSTM(8, return_sequences=True, name="lstm")(inputs)
    x = layers.GRU(8, bias_initializer="ones", return_sequences=True, name="gru")(x)
    x = layers.EinsumDense("abc,cd->abd", (6, 400), kernel_initializer="he_normal", name="einsum")(x)
    x = layers.BatchNormalization(name="norm", gamma_initializer=keras.initializers.Constant(0.5))(x)
    x = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25), name="slopes")(x)
    model = keras.Model(inputs, x)
    for variable in model.weights:
        variable.assign(keras.ops.full(variable.shape, 9.0))
    report = initx.initialize(model, None, seed=3)
    found = by_name(model)
    np.testing.assert_array_equal(found["lstm/bias"], np.repeat([0.0, 1, 0, 0], 8))
    assert found["gru/bias"].shape == (2, 24)
    assert (found["gru/bias"] == 1).all()
    assert (found["norm/gamma"] == 0.5).all()
    assert (found["norm/moving_variance"] == 1).all()
    assert (found["norm/moving_mean"] == 0).all()
    assert (found["slopes/alpha"] == 0.25).all()
    kernel = found["einsum/kernel"]
    assert abs(kernel.var() * 8 / 2 - 1) < 4 * (2 / kernel.size) ** 0.5  # fan_in is 8
    assert not any(row.note for row in report.rows)
    assert len(report.rows) == len(model.weights)


def test_keras_initializers_keep_their_law_and_get_true_fans():
    layer = layers.DepthwiseConv2D(3, name="dw")
    model = keras.Sequential([layers.Input((9, 9, 500)), layer])
    for name, variance in (("he_normal", 2 / 9), ("lecun_uniform", 1 / 9), ("glorot_normal", 2 / 18)):
        initx.initialize(model, name, seed=1)
        drawn = by_name(model)["dw/kernel"]
        assert abs(drawn.var() / variance - 1) < 4 * (2 / drawn.size) ** 0.5
    assert drawn.max() < 2.28 * (1 / 9) ** 0.5  # cut at two standard deviations of the uncut normal


def test_a_layout_of_the_users_own_stays():
    model = keras.Sequential([layers.Input((50,)), layers.Dense(200, name="d")])
    own = initx.initializers.HeScaled(layout="embedding")
    report = initx.initialize(model, own, seed=1)
    drawn = by_name(model)["d/kernel"]
    assert abs(drawn.var() / 2 - 1) < 4 * (2 / drawn.size) ** 0.5  # fan_in 1
    assert report.rows[0].fans.fan_in == 50


def test_include_exclude_and_overrides_by_path_layer_pattern_and_role():
    model = convnet()
    before = by_name(model)

    def changed(**options):
        for name, value in before.items():
            layer, variable = name.split("/")
            next(v for v in model.get_layer(layer).weights if v.name == variable).assign(value)
        report = initx.initialize(model, "by_role", seed=1, **options)
        now = by_name(model)
        differs = {name for name in before if not np.array_equal(before[name], now[name])}
        assert differs <= {f"{r.path}/kernel" for r in report.rows} | {r.path for r in report.rows}
        return differs

    kernels = {name for name in before if "kernel" in name}
    assert changed() == kernels
    assert changed(include="head") == {"head/kernel"}
    assert changed(include="h*") == {"head/kernel", "hidden/kernel"}
    assert changed(include=["pointwise", "stem"]) == {"separable/pointwise_kernel", "stem/kernel"}
    assert changed(exclude=["separable", "dense"]) == {"stem/kernel"}
    assert changed(include="dense", exclude="head") == {"hidden/kernel"}
    assert changed(include="head", overrides={"head/bias": "ones"}) == {"head/kernel", "head/bias"}
    changed(overrides={"dense": "zeros", "head": "ones"})
    assert (by_name(model)["head/kernel"] == 1).all()
    assert (by_name(model)["hidden/kernel"] == 0).all()


def test_frozen_layers_are_left_unless_asked():
    model = convnet()
    model.get_layer("stem").trainable = False
    before = by_name(model)
    report = initx.initialize(model, "by_role", seed=1)
    (row,) = (row for row in report.rows if row.path == "stem")
    assert row.note == "frozen: left as it is"
    assert row.std is None
    np.testing.assert_array_equal(before["stem/kernel"], by_name(model)["stem/kernel"])
    initx.initialize(model, "by_role", seed=1, frozen=True)
    assert not np.array_equal(before["stem/kernel"], by_name(model)["stem/kernel"])


def test_the_base_of_an_adapter_is_left_with_a_reason():
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8, name="a"), layers.Dense(4, name="b")])
    model.get_layer("a").enable_lora(2)
    before = by_name(model)
    report = initx.initialize(model, "by_role", seed=1)
    notes = {row.path: row.note for row in report.rows}
    assert "LoRA" in notes["a"]
    assert not notes["b"]
    for name, value in before.items():
        if name in ("a/kernel", "a/bias"):
            np.testing.assert_array_equal(value, by_name(model)[name])


@pytest.mark.parametrize("scheme", ["by_role", "initx>HeScaled", None])
def test_an_unknown_layer_is_a_row_and_is_reset_by_its_own_initializer_only(scheme):
    class Odd(layers.Layer):
        def build(self, shape):
            self.mixing_initializer = keras.initializers.Constant(3.0)  # a name that misleads
            self.mixing = self.add_weight(shape=(shape[-1], 4), name="mixing", initializer="ones")

        def compute_output_shape(self, shape):
            return (*shape[:-1], 4)

        def call(self, inputs):
            return inputs @ self.mixing * float(ops.max(inputs))  # a value: it runs on no tensor without one

    model = keras.Sequential([layers.Input((6,)), Odd(name="odd"), layers.Dense(2, name="head")])
    model.get_layer("odd").mixing.assign(np.full((6, 4), 9.0))
    told = nullcontext() if scheme is None else pytest.warns(UserWarning, match="1 of 2 kernels are for, 75%")
    with told:
        report = initx.initialize(model, scheme, seed=1)
    row = next(row for row in report.rows if row.path == "odd/mixing")
    assert row.initializer == "Ones()"
    assert row.std is None
    assert (by_name(model)["odd/mixing"] == 1).all()
    if scheme == "by_role":
        assert "does not run on tensors without values" in row.note
        assert "walk.register; drawn by its layer's own" in row.note
        assert "odd/mixing" in str(report)


def test_the_optimizers_slots_start_over_and_its_learning_rate_stays(rng):
    model = convnet()
    model.compile(keras.optimizers.Adam(0.0123), "mse")
    report = initx.initialize(model, "by_role", seed=1)
    assert not report.optimizer_reset  # there are no slots yet
    data = rng.standard_normal((8, 12, 12, 3)).astype("float32"), rng.standard_normal((8, 8))
    model.fit(*data, verbose=0)
    model.optimizer.learning_rate.assign(0.5)
    assert int(model.optimizer.iterations) == 1
    report = initx.initialize(model, "by_role", seed=1)
    assert report.optimizer_reset
    assert "optimizer slots reset" in str(report)
    assert int(model.optimizer.iterations) == 0
    assert float(model.optimizer.learning_rate) == 0.5
    for slot in model.optimizer.variables:
        if slot.name not in ("iteration", "learning_rate"):
            assert not np.any(keras.ops.convert_to_numpy(slot)), slot.path
    model.fit(*data, verbose=0)


@pytest.mark.parametrize("freeze_first", [True, False])
def test_slots_start_over_whatever_was_frozen_or_unfrozen_since_the_optimizer_was_built(freeze_first, rng):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(5, name="body"), layers.Dense(3, name="head")])
    model.get_layer("body").trainable = not freeze_first
    model.compile("adam", "mse")
    model.fit(rng.standard_normal((8, 4)), rng.standard_normal((8, 3)), verbose=0)
    model.get_layer("body").trainable = freeze_first
    assert initx.initialize(model, "by_role", include="head", seed=1).optimizer_reset
    slots = [slot for slot in model.optimizer.variables if slot.name != "learning_rate"]
    assert len(slots) == 1 + 2 * (2 if freeze_first else 4)
    assert not any(np.any(keras.ops.convert_to_numpy(slot)) for slot in slots)


class Failing:
    def plan(self, sites, model=None):
        class Bad(keras.initializers.Initializer):
            def __call__(self, shape, dtype=None):
                raise KeyboardInterrupt

        plan = ByRole().plan(sites)
        return plan | {list(plan)[-1]: Draw(Bad())}


@pytest.mark.parametrize(
    ("scheme", "options", "error", "match"),
    [
        ("by_rol", {}, ValueError, "Nearest: 'by_role'"),
        ("initx>HeScald", {}, ValueError, "'initx>HeScaled'"),
        (42, {}, ValueError, "initializer"),
        ("by_role", {"seed": -1}, ValueError, "`seed` must be None or an int of at least 0"),
        ("by_role", {"seed": 1.5}, ValueError, "`seed`"),
        ("by_role", {"include": "haed"}, ValueError, "`include` must hold.*Received: 'haed'.*'head'"),
        ("by_role", {"exclude": ["stem", "nothing"]}, ValueError, "`exclude` must hold"),
        ("by_role", {"include": "head", "exclude": "head"}, ValueError, "must leave some weights"),
        ("by_role", {"overrides": {"haed": "zeros"}}, ValueError, "`overrides` must hold"),
        ("by_role", {"overrides": {"head": "nonsense"}}, ValueError, "must name an initializer"),
        ("initx>DeltaOrthogonal", {}, ValueError, "`hidden`.*cannot be drawn by DeltaOrthogonal"),
        (Failing(), {}, KeyboardInterrupt, ""),
    ],
)
def test_bad_input_and_interrupts_change_nothing(scheme, options, error, match):
    model = convnet()
    before = values(model)
    with pytest.raises(error, match=f"(?s){match}"):
        initx.initialize(model, scheme, **options)
    assert_equal(before, values(model))


def test_models_that_are_no_models_or_not_built_are_refused():
    with pytest.raises(ValueError, match="`model` must be a Keras model"):
        initx.initialize("model.keras", "by_role")
    with pytest.raises(ValueError, match="must be built"):
        initx.initialize(keras.Sequential([layers.Dense(3)]), "by_role")


def test_without_undo_the_weights_are_the_same():
    one, other = convnet(), convnet()
    initx.initialize(one, "by_role", seed=7)
    initx.initialize(other, "by_role", seed=7, transactional=False)
    for name, value in by_name(one).items():
        np.testing.assert_array_equal(value, by_name(other)[name])


def test_seed_none_follows_keras_global_seed_and_is_reported():
    one, other, again = convnet(), convnet(), convnet()
    keras.utils.set_random_seed(5)
    report = initx.initialize(one, "by_role")
    second = initx.initialize(other, "by_role")
    assert report.seed != second.seed
    initx.initialize(again, "by_role", seed=report.seed)
    np.testing.assert_array_equal(by_name(one)["head/kernel"], by_name(again)["head/kernel"])
    keras.utils.set_random_seed(5)
    assert initx.initialize(again, "by_role").seed == report.seed


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16"])
def test_half_precision(dtype):
    model = keras.Sequential(
        [
            layers.Input((5, 64)),
            layers.GRU(32, dtype="mixed_bfloat16", return_sequences=True),
            layers.Dense(256, activation="relu", dtype=dtype),
            layers.Dense(256, dtype=dtype),
        ]
    )
    initx.initialize(model, "by_role", seed=1)
    kernel = np.array(keras.ops.convert_to_numpy(keras.ops.cast(model.layers[-1].kernel, "float32")))
    assert abs(kernel.var() * 128 - 1) < 4 * (2 / kernel.size) ** 0.5 + 0.01


def test_report_as_data_and_as_a_table():
    report = initx.initialize(convnet(), "by_role", seed=7)
    table = str(report)
    assert "separable/depthwise_kernel" in table
    assert "weights drawn by by_role with seed 7" in table
    assert report.to_dict()["rows"][0]["fans"] == {"fan_in": 27, "fan_out": 72}
    assert report.learning_rates == {}


def test_an_initializer_is_not_refused_because_a_strategys_name_is_near():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    initx.initialize(model, "zeros", seed=0)
    assert not np.any(keras.ops.convert_to_numpy(model.layers[0].kernel))


def test_a_law_of_biases_draws_no_kernels():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(2, name="head")])
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=r"must draw kernels. Received: LabelPrior\(\), which draws biases"
    ) as told:
        initx.initialize(model, "LabelPrior")
    assert 'calibrate(model, (x, y), "LabelPrior")' in str(told.value)
    with pytest.raises(ValueError, match="PriorBias") as told:
        initx.initialize(model, initx.initializers.PriorBias(0.1))
    assert 'overrides={"head/bias": PriorBias(prior=0.1)}' in str(told.value)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    initx.calibrate(model, (x, np.repeat([0, 1], [6, 2])), "LabelPrior")
    initx.initialize(model, "by_role", overrides={"head/bias": initx.initializers.PriorBias(0.1)})
    np.testing.assert_allclose(model.get_weights()[3], np.log(0.1 / 0.9), rtol=1e-5)
