"""One optimizer with a factor for each variable steps as one plain optimizer for each variable does."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx.optimizers import KNOWN, Multiplier, Multipliers, ScaledRates, law_of, scale_rates
from support import forked

# Learning rate, epsilon and weight decay of each variable.
FACTORS = [(0.25, 0.5, 1.0), (4.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.25, 1.0, 1.0)]
SHAPES = [(6, 5), (5,), (5, 4), (4,)]
# Powers by which epsilon enters a squared gradient's root, read in Keras' code.
OPTIMIZERS = {
    "Adafactor": (keras.optimizers.Adafactor, {}, 0),
    "Adagrad": (keras.optimizers.Adagrad, {}, 2),
    "Adam": (keras.optimizers.Adam, {"amsgrad": True}, 1),
    "AdamW": (keras.optimizers.AdamW, {}, 1),
    "Adamax": (keras.optimizers.Adamax, {}, 1),
    "Lion": (keras.optimizers.Lion, {}, 0),
    "Muon": (keras.optimizers.Muon, {}, 1),
    "Nadam": (keras.optimizers.Nadam, {}, 1),
    "RMSprop": (keras.optimizers.RMSprop, {"momentum": 0.5, "centered": True}, 2),
    "SGD": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, 0),
    "ScheduleFreeAdamW": (keras.optimizers.ScheduleFreeAdamW, {}, 1),
}
EPSILON = 1e-3  # large, so that a factor of it is seen


def variables():
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=s).astype("float32"), name=f"v{n}") for n, s in enumerate(SHAPES)]


def gradients(step):
    rng = np.random.default_rng(step + 1)
    return [ops.convert_to_tensor(0.01 * rng.normal(size=shape).astype("float32")) for shape in SHAPES]


def factors_of(found, factors=FACTORS):
    return Multipliers.of(
        found, {id(v): Multiplier("", (), *factor) for v, factor in zip(found, factors, strict=True)}
    )


def values(found):
    return [np.array(ops.convert_to_numpy(v)) for v in found]


def close(one, other, tolerance=1e-6):
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_steps_are_those_of_a_plain_optimizer_for_each_variable(name):
    cls, options, power = OPTIMIZERS[name]
    options = options | ({"epsilon": EPSILON} if power else {})
    one, others = variables(), variables()
    optimizer = scale_rates(cls(0.1, **options), factors_of(one))
    plain = []
    for rate, epsilon, _ in FACTORS:
        scaled = {"epsilon": EPSILON * epsilon**power} if power else {}
        plain.append(cls(0.1 * rate, **options | scaled))
    for slot in [*plain, optimizer]:
        slot.weight_decay = None
        if name == "Muon":
            slot.adam_weight_decay = None
    for step in range(3):
        optimizer.apply(gradients(step), one)
        for slot, gradient, variable in zip(plain, gradients(step), others, strict=True):
            slot.apply([gradient], [variable])
    # Keras' two versions of Nadam on PyTorch differ: 1 - beta_2 in double or in single precision.
    torchs = name == "Nadam" and keras.backend.backend() == "torch"
    close(values(one), values(others), 2e-5 if torchs else 1e-6)


def test_each_known_optimizer_is_tested():
    assert sorted(KNOWN) == sorted(name.lower() for name in OPTIMIZERS)


def test_steps_are_those_of_numpy():
    one = variables()
    expected = values(one)
    optimizer = scale_rates(keras.optimizers.SGD(0.1, momentum=0.9), factors_of(one))
    moments = [np.zeros(shape) for shape in SHAPES]
    for step in range(3):
        optimizer.apply(gradients(step), one)
        for n, gradient in enumerate(gradients(step)):
            moments[n] = 0.9 * moments[n] - 0.1 * FACTORS[n][0] * ops.convert_to_numpy(gradient)
            expected[n] = expected[n] + moments[n]
    close(values(one), expected)


def test_the_first_step_of_adam_has_the_size_of_its_rate():
    one = variables()
    before = values(one)
    optimizer = scale_rates(keras.optimizers.AdamW(0.1, weight_decay=0.0, epsilon=1e-12), factors_of(one))
    optimizer.apply(gradients(0), one)
    for n, (old, new) in enumerate(zip(before, values(one), strict=True)):
        gradient = ops.convert_to_numpy(gradients(0)[n])
        np.testing.assert_allclose(new - old, -0.1 * FACTORS[n][0] * np.sign(gradient), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [keras.optimizers.AdamW, keras.optimizers.SGD, keras.optimizers.Muon])
@pytest.mark.parametrize("follows", [False, True])
def test_decay_is_that_of_the_optimizers_rate_or_follows_the_variables(cls, follows):
    one = variables()
    before = values(one)
    factors = [(0.25, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 1.0, 1.0)]
    optimizer = cls(
        0.1, weight_decay=0.2, **({"adam_weight_decay": 0.4} if cls is keras.optimizers.Muon else {})
    )
    optimizer.exclude_from_weight_decay(var_names=["v3"])
    optimizer = scale_rates(optimizer, factors_of(one, factors), scale_decay=follows)
    zeros = [ops.zeros(shape) for shape in SHAPES]
    optimizer.apply(zeros, one)
    for n, (old, new) in enumerate(zip(before, values(one), strict=True)):
        own = 0.4 if cls is keras.optimizers.Muon and len(SHAPES[n]) == 1 else 0.2
        factor = 0.0 if n == 3 else factors[n][2] * (factors[n][0] if follows else 1.0)
        np.testing.assert_allclose(new, old * (1 - 0.1 * own * factor), rtol=1e-5)
    assert optimizer.weight_decay == 0.2  # the settings themselves stay


def model(name="net"):
    stack = [layers.Dense(8, "relu", name="a"), layers.Dense(3, name="b")]
    built = keras.Sequential([layers.Input((4,)), *stack], name=name)
    rng = np.random.default_rng(0)
    built.set_weights([0.5 * rng.normal(size=w.shape) for w in built.get_weights()])
    return built


X = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
Y = np.random.default_rng(2).normal(size=(32, 3)).astype("float32")


def scaled(optimizer, rate=0.5):
    """A model, and an optimizer that multiplies each learning rate by one number."""
    built = model()
    factors = {id(v): Multiplier(learning_rate=rate) for v in built.trainable_variables}
    return built, scale_rates(optimizer, Multipliers.of(built.weights, factors))


def warmed(rate):
    return keras.optimizers.schedules.PolynomialDecay(rate, 12, rate / 8)


def halved(epoch, rate):
    return rate / 2


# Settings whose effect with all rates halved is that of half the learning rate.
SETTINGS = {
    "a schedule": (lambda rate: keras.optimizers.SGD(warmed(rate), momentum=0.9), {}),
    "clipnorm": (lambda rate: keras.optimizers.SGD(rate, clipnorm=0.1), {}),
    "clipvalue": (lambda rate: keras.optimizers.SGD(rate, clipvalue=0.01), {}),
    "global_clipnorm": (lambda rate: keras.optimizers.SGD(rate, global_clipnorm=0.1), {}),
    "averages": (lambda rate: keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=3), {}),
    "accumulation": (lambda rate: keras.optimizers.Adam(rate, gradient_accumulation_steps=2), {}),
    "loss scale": (lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate)), {}),
    "eagerly": (lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.0), {"run_eagerly": True}),
    "compiled": (lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.0), {"jit_compile": True}),
    "LearningRateScheduler": (
        lambda rate: keras.optimizers.Nadam(rate),
        {"callbacks": lambda: [keras.callbacks.LearningRateScheduler(halved)]},
    ),
    "ReduceLROnPlateau": (
        lambda rate: keras.optimizers.Lion(rate),
        {"callbacks": lambda: [keras.callbacks.ReduceLROnPlateau("loss", 0.1, patience=0, min_delta=9.0)]},
    ),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_of_keras_act_as_without_factors(name):
    make, options = SETTINGS[name]
    options = dict(options)
    callbacks = options.pop("callbacks", list)
    if keras.backend.backend() == "torch":
        options.pop("jit_compile", None)
    built, optimizer = scaled(make(0.04))
    plain = model()
    for one, its in ((built, optimizer), (plain, make(0.02))):
        one.compile(its, "mse", **options)
        one.fit(X, Y, 8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks())
    close(built.get_weights(), plain.get_weights(), 2e-6)
    assert np.isclose(
        float(ops.convert_to_numpy(built.optimizer.learning_rate)),
        2 * float(ops.convert_to_numpy(plain.optimizer.learning_rate)),
    )
    start = model().get_weights()
    assert all(
        np.abs(one - other).max() > 1e-4 for one, other in zip(built.get_weights(), start, strict=True)
    )


def test_mixed_precision_wraps_it():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        built, optimizer = scaled(keras.optimizers.Adam(0.01))
        built.compile(optimizer, "mse")
        built.fit(X, Y, 8, verbose=0)
        assert isinstance(built.optimizer, keras.optimizers.LossScaleOptimizer)
        assert isinstance(built.optimizer.inner_optimizer, ScaledRates)
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(weight).all() for weight in built.get_weights())


class Mine(keras.optimizers.SGD):
    """A user's class, registered below."""


keras.saving.register_keras_serializable("tests")(Mine)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.AdamW(0.01),
        lambda: keras.optimizers.SGD(warmed(0.1), momentum=0.9),
        lambda: keras.optimizers.Muon(0.01),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
        lambda: Mine(0.1),
    ],
    ids=["AdamW", "schedule", "Muon", "loss scale", "own class"],
)
def test_a_saved_model_goes_on_with_equal_steps(make, tmp_path):
    built = model()
    found = built.trainable_variables
    optimizer = scale_rates(make(), factors_of(found))
    built.compile(optimizer, "mse")
    built.fit(X, Y, 8, shuffle=False, verbose=0)
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(built.optimizer)
    # Keras gives the variables of a loaded model other paths.
    assert [v.path for v in loaded.trainable_variables] != [v.path for v in found]
    for one in (built, loaded):
        one.fit(X, Y, 8, shuffle=False, verbose=0)
    close(built.get_weights(), loaded.get_weights(), 1e-7)
    # A model that was loaded is saved, loaded and trained again.
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    for one in (loaded, again):
        one.fit(X, Y, 8, shuffle=False, verbose=0)
    close(loaded.get_weights(), again.get_weights(), 1e-7)


def test_a_model_is_saved_before_its_first_step_with_a_frozen_layer(tmp_path):
    built = model()
    optimizer = scale_rates(keras.optimizers.SGD(0.1), factors_of(built.trainable_variables))
    built.layers[0].trainable = False
    built.compile(optimizer, "mse")
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (built, loaded):
        one.fit(X, Y, 8, shuffle=False, verbose=0)
    close(built.get_weights(), loaded.get_weights(), 1e-7)
    assert [row.learning_rate for row in loaded.optimizer.multipliers.rows] == [1.0, 0.25]


def test_it_is_serialized_pickled_and_copied_by_its_config():
    found = variables()
    optimizer = scale_rates(
        keras.optimizers.AdamW(0.1, weight_decay=0.3), factors_of(found), scale_decay=True
    )
    config = keras.optimizers.serialize(optimizer)
    assert config["registered_name"] == "initx>ScaledRates"
    assert config["config"]["optimizer"]["class_name"] == "AdamW"
    assert config["config"]["multipliers"][0]["learning_rate"] == 0.25
    made = [
        keras.optimizers.deserialize(config),
        pickle.loads(pickle.dumps(optimizer)),
        copy.copy(optimizer),
        copy.deepcopy(optimizer),
        type(optimizer).from_config(optimizer.get_config()),
    ]
    optimizer.apply(gradients(0), found)
    for other in made:
        assert type(other) is type(optimizer)
        others = variables()
        other.apply(gradients(0), others)
        close(values(others), values(found), 1e-7)


def test_variables_of_one_path_are_told_apart_in_the_model_and_by_their_order_in_a_copy():
    def build():
        return [keras.Variable([1.0], name="v"), keras.Variable([1.0], name="v")]

    found = build()
    factors = {id(found[1]): Multiplier(learning_rate=0.5)}
    multipliers = Multipliers.of(found, factors)
    assert multipliers.learning_rates == {"v (2)": 0.5}
    for others in (found, build()):
        optimizer = scale_rates(keras.optimizers.SGD(1.0), multipliers)
        optimizer.apply([ops.ones((1,))] * 2, others)
        assert [float(v) for v in np.concatenate(values(others))] == [0.0, 0.5]
    assert [row.learning_rate for row in multipliers.for_variables(found[1:])] == [0.5]
    with pytest.raises(ValueError, match="several variables have one path, with different multipliers: v"):
        scale_rates(keras.optimizers.SGD(1.0), multipliers).build(build()[1:])


def test_frozen_and_new_variables_of_the_model_are_no_other_model():
    built = model()
    multipliers = factors_of(built.trainable_variables)
    built.layers[0].trainable = False
    left = [*built.trainable_variables, keras.Variable([1.0], name="new")]
    optimizer = scale_rates(keras.optimizers.SGD(0.1), multipliers)
    optimizer.build(left)
    rows = zip(left, optimizer.multipliers.for_variables(left), strict=True)
    assert {v.name: row.learning_rate for v, row in rows} == {"kernel": 1.0, "bias": 0.25, "new": 1.0}


def test_multipliers_of_another_model_are_refused():
    multipliers = factors_of(model().trainable_variables)
    wider = keras.Sequential(
        [layers.Input((4,)), layers.Dense(16, name="a"), layers.Dense(3, name="b")], name="net"
    )
    other = keras.Sequential([layers.Input((4,)), layers.Dense(5, name="c")], name="other")
    with pytest.raises(
        ValueError, match=r"a model in which `net/a/kernel` has shape \(4, 8\).*\(4, 16\).*Call `init"
    ):
        scale_rates(keras.optimizers.SGD(), multipliers).build(wider.trainable_variables)
    with pytest.raises(
        ValueError, match="`net/a/kernel`, .*for a model with `other/c/kernel`.*Call `initialize`"
    ):
        scale_rates(keras.optimizers.SGD(), multipliers).build(other.trainable_variables)
    plain = Multipliers.of(model().weights, {})
    scale_rates(keras.optimizers.SGD(), plain).build(other.trainable_variables)  # nothing to apply


class Stepless(keras.optimizers.Optimizer):
    """A class that steps all variables by a method of its own."""

    def apply(self, grads, trainable_variables=None):
        """Does nothing."""


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (lambda: "adam", "must be a Keras optimizer.*Received: str"),
        (lambda: keras.optimizers.Adam, "must be a Keras optimizer.*Received: type"),
        (lambda: scale_rates(keras.optimizers.SGD(), Multipliers()), "must be a plain one.*ScaledSGD"),
        (lambda: Stepless(0.1), "must step each variable by its `update_step`.*Stepless"),
        (
            lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD())),
            "must step each variable by its `update_step`.*MultiOptimizer",
        ),
        (lambda: keras.optimizers.LossScaleOptimizer(Stepless(0.1)), "Stepless"),
    ],
)
def test_other_optimizers_are_refused(optimizer, told):
    with pytest.raises(ValueError, match=f"`optimizer` {told}" if told[0] == "m" else told):
        scale_rates(optimizer(), Multipliers())


def test_an_optimizer_of_ones_own_steps_as_the_user_says():
    class Signs(keras.optimizers.Optimizer):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, ops.sign(gradient) * ops.cast(learning_rate, variable.dtype))

    one, other = variables()[:2]
    factors = {id(one): Multiplier(learning_rate=0.5)}
    optimizer = scale_rates(Signs(0.1), Multipliers.of([one, other], factors, law_of("adam")))
    before = [np.array(v) for v in (one, other)]
    optimizer.apply([ops.ones(v.shape) for v in (one, other)], [one, other])
    moved = [np.array(v) - was for v, was in zip((one, other), before, strict=True)]
    np.testing.assert_allclose(moved[0], -0.05, rtol=1e-5)
    np.testing.assert_allclose(moved[1], -0.1, rtol=1e-5)
    with pytest.raises(ValueError, match="must step as the one"):
        scale_rates(Signs(0.1), Multipliers.of([one, other], factors, law_of("muon")))


def test_a_built_optimizer_is_refused_and_a_switch_is_checked():
    optimizer = keras.optimizers.Adam()
    optimizer.build(variables())
    with pytest.raises(ValueError, match=r"`optimizer` must be a new one.*Adam.from_config\("):
        scale_rates(optimizer, Multipliers())
    with pytest.raises(ValueError, match="`scale_decay` must be True or False"):
        scale_rates(keras.optimizers.Adam(), Multipliers(), scale_decay="no")


def test_the_optimizer_itself_stays_as_it_is():
    optimizer = keras.optimizers.AdamW(0.1)
    before = optimizer.get_config()
    made = scale_rates(optimizer, Multipliers())
    assert made is not optimizer
    made.learning_rate = 0.5
    assert optimizer.get_config() == before
    assert made.name == optimizer.name


@pytest.mark.parametrize("optimizer", ["AdamW", "adamw", keras.optimizers.AdamW, keras.optimizers.Lion])
def test_laws_by_name_class_and_object(optimizer):
    assert law_of(optimizer).kind == "adam"


def test_laws_of_subclasses_and_loss_scales():
    assert law_of(Mine(0.1)).kind == "sgd"
    assert law_of(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adafactor())).kind == "adafactor"
    muon = law_of(keras.optimizers.Muon(rms_rate=None, exclude_layers=["out"]))
    assert muon != law_of("muon")
    assert not muon.by_shape
    assert law_of("muon").by_shape


MIRRORED = """
import json, keras, numpy as np, tensorflow as tf
from keras import layers
from keras_initx.optimizers import Multiplier, Multipliers, scale_rates
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
y = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")

def weights(scope, optimizer):
    with scope:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((4,)), layers.Dense(1, name="d")])
        rates = [Multiplier(learning_rate=0.5, epsilon=0.5, weight_decay=0.5), Multiplier(learning_rate=2.0)]
        factors = {id(v): r for v, r in zip(model.weights, rates)}
        optimizer = scale_rates(optimizer(), Multipliers.of(model.weights, factors), scale_decay=True)
        model.compile(optimizer, "mse")
    model.fit(x, y, 8, epochs=2, shuffle=False, verbose=0)
    return np.concatenate([np.ravel(w) for w in model.get_weights()]).tolist()

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
make = lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1)
alone = weights(tf.distribute.get_strategy().scope(), make)
print(json.dumps([alone, weights(mirrored.scope(), make)]))
"""


@pytest.mark.tensorflow
@pytest.mark.integration
def test_two_mirrored_devices_step_as_one():
    written = forked.run(["-c", MIRRORED], check=True)
    alone, together = json.loads(written.stdout.splitlines()[-1])
    np.testing.assert_allclose(alone, together, rtol=1e-5)


RESUME = """
import sys, keras, numpy as np
import keras_initx
model = keras.models.load_model(sys.argv[1])
model.fit(*np.load(sys.argv[2]).values(), 8, shuffle=False, verbose=0)
np.savez(sys.argv[3], *model.get_weights())
"""


@pytest.mark.tensorflow
@pytest.mark.integration
def test_another_process_that_imports_the_package_goes_on(tmp_path):
    built = model()
    built.compile(scale_rates(keras.optimizers.AdamW(0.01), factors_of(built.trainable_variables)), "mse")
    built.fit(X, Y, 8, shuffle=False, verbose=0)
    built.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", X, Y)
    files = [str(tmp_path / name) for name in ("model.keras", "data.npz", "weights.npz")]
    forked.run(["-c", RESUME, *files], preload="keras", check=True)
    built.fit(X, Y, 8, shuffle=False, verbose=0)
    with np.load(files[-1]) as found:
        close(built.get_weights(), found.values(), 1e-7)
