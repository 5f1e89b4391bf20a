"""The numbers of a report, against closed forms and against NumPy on the same weights."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.gains import second_moments
from keras_initx.recurrence import gate_stds
from support.model_table import BACKBONES, backbone, few_elsewhere

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 16)).astype("float32")
Y = RNG.integers(0, 4, 32)


def mlp(activation="tanh", width=16, depth=3, **compiled):
    model = keras.Sequential([layers.Input((16,))])
    for number in range(depth):
        model.add(layers.Dense(width, activation, bias_initializer="random_normal", name=f"h{number}"))
    model.add(layers.Dense(4, name="head"))
    if compiled:
        model.compile(**compiled)
    return model


def state(model):
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    return [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]


def numpy_pass(model, x, y):
    """Pre-activations, activations and gradients of cross-entropy of a tanh net, layer by layer."""
    weights = [layer.get_weights() for layer in model.layers]
    inputs, outputs, a = [], [], x.astype("float64")
    for number, (kernel, bias) in enumerate(weights):
        inputs.append(a)
        outputs.append(a @ kernel + bias)
        a = np.tanh(outputs[-1]) if number < len(weights) - 1 else outputs[-1]
    odds = np.exp(a - a.max(1, keepdims=True))
    slope = (odds / odds.sum(1, keepdims=True) - np.eye(4)[y]) / len(x)
    slopes, entering = [slope], [slope @ weights[-1][0].T]
    for number in range(len(weights) - 2, -1, -1):
        slopes.insert(0, entering[0] * (1 - np.tanh(outputs[number]) ** 2))
        entering.insert(0, slopes[0] @ weights[number][0].T)
    return inputs, outputs, slopes, entering


def test_each_number_is_that_of_numpy():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = mlp()
    report = initx.diagnose(model, X, Y, loss)
    inputs, outputs, slopes, entering = numpy_pass(model, X, Y)
    square, slope = second_moments("tanh")
    for number, row in enumerate(report.rows):
        kernel, bias = model.layers[number].get_weights()
        z, active = outputs[number], np.tanh(outputs[number]) if number < 3 else outputs[number]
        own = z if number < 3 else z - bias  # a head's bias may be a prior
        unit = own / np.linalg.norm(own, axis=1, keepdims=True)
        cosines = (unit @ unit.T)[~np.eye(32, dtype=bool)]
        feeding, derivative = (1.0, 1.0) if number == 0 else (square, slope)
        expected = np.sqrt(np.mean(inputs[number] ** 2) / feeding)
        back = np.linalg.norm(entering[number]) / np.linalg.norm(slopes[number]) * np.sqrt(derivative)
        wanted = {
            "preactivation_std": z.std(),
            "expected_std": expected,
            "forward_gain": np.sqrt(np.mean(own**2)) / expected,
            "kernel_gain": np.sqrt(kernel.shape[0] * np.mean(kernel**2) * feeding),
            "backward_gain": back,
            "activation_mean": active.mean(),
            "activation_std": active.std(),
            "activation_square": np.mean(active**2),
            "correlation": cosines.mean(),
            "weight_std": kernel.std(),
            "gradient_std": (inputs[number].T @ slopes[number]).std(),
            "saturated": np.mean(np.abs(active) > 0.95) if number < 3 else None,
        }
        for name, value in wanted.items():
            assert getattr(row, name) == (
                None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)
            ), name
    first, head = np.linalg.norm(entering[0]), np.linalg.norm(slopes[-1])
    assert report.backward_gain == pytest.approx(first / head, rel=1e-4)
    left = outputs[-1] - model.layers[-1].get_weights()[1]
    assert report.forward_gain == pytest.approx(np.sqrt(np.mean(left**2) / np.mean(X**2)), rel=1e-4)
    log_odds = outputs[-1] - np.log(np.exp(outputs[-1]).sum(1, keepdims=True))
    assert report.loss == pytest.approx(-np.mean(log_odds[np.arange(32), Y]), rel=1e-5)


def test_the_loss_given_is_that_of_the_compiled_model():
    model = mlp(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    compiled = initx.diagnose(model, (X, Y))
    given = initx.diagnose(model, X, Y, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert (compiled.loss_name, given.loss_name) == ("compiled", "given")
    assert compiled.loss == pytest.approx(given.loss, rel=1e-5)
    for one, other in zip(compiled.rows, given.rows, strict=True):
        assert one.gradient_std == pytest.approx(other.gradient_std, rel=1e-4)


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_a_linear_orthogonal_stack_multiplies_its_gains(gain):
    model = keras.Sequential([layers.Input((16,))])
    for number in range(4):
        model.add(layers.Dense(16, kernel_initializer=keras.initializers.Orthogonal(gain, seed=number)))
    report = initx.diagnose(model, X, jacobian=True)
    for row in report.rows:
        assert row.forward_gain == pytest.approx(gain, rel=1e-4)
        assert row.backward_gain == pytest.approx(gain, rel=1e-4)
        assert row.chi == pytest.approx(gain**2, rel=1e-4)
    assert report.forward_gain == pytest.approx(gain**4, rel=1e-4)
    assert report.backward_gain == pytest.approx(gain**4, rel=1e-4)
    assert report.chi_1 == pytest.approx(gain**2, rel=1e-4)
    np.testing.assert_allclose(report.jacobian.singular_values, gain**4, rtol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
def test_chi_1_is_that_of_the_table_of_gains(activation):
    width, depth = 256, 4
    model = mlp(activation, width, depth)
    initx.initialize(model, "by_role", seed=0)
    for layer in model.layers:
        layer.bias.assign(np.zeros(layer.bias.shape))
    report = initx.diagnose(model, X, seed=0)
    square, slope = second_moments(activation)
    # chi = fan_in E[w^2] E f'(z)^2; the law has fan_in E[w^2] = 1 / E f(z)^2, of width^2 independent entries
    # here; the pre-activations of later layers are about, not exactly, of unit size.
    for row in report.rows[1:depth]:
        assert row.chi == pytest.approx(slope / square, rel=0.1)


def test_nothing_is_changed_but_what_is_reported():
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", "sparse_categorical_crossentropy")
    images = RNG.normal(size=(32, 8, 8, 3)).astype("float32")
    for _ in range(2):
        before, built = state(model), model.optimizer.built
        report = initx.diagnose(model, images, Y)
        assert model.optimizer.built == built
        assert all(np.array_equal(one, other) for one, other in zip(before, state(model), strict=True))
        assert all("call" not in layer.__dict__ for layer in model._flatten_layers())
        assert report.rows[0].normalized
        assert not report.rows[1].normalized
        model.fit(images, Y, verbose=0)  # then on an optimizer with a state


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "by path"])
def test_the_update_ratio_is_that_of_a_step(optimizer):
    made = {
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5),
        "adam": keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5)),
        "adamw": keras.optimizers.AdamW(0.01, weight_decay=0.1),
        "by path": keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {"h1/.*": keras.optimizers.SGD(1.0)})
        ),
    }[optimizer]
    model = mlp(optimizer=made, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=32, verbose=0)
    report = initx.diagnose(model, X, Y)
    before = [
        layer.kernel.numpy() if hasattr(layer.kernel, "numpy") else np.array(layer.kernel)
        for layer in model.layers
    ]
    model.fit(X, Y, batch_size=32, verbose=0)
    for row, layer, old in zip(report.rows, model.layers, before, strict=True):
        moved = np.array(ops.convert_to_numpy(layer.kernel.value)) - old
        ratio = np.sqrt(np.mean(moved**2) / np.mean(old**2))
        assert row.update_ratio == pytest.approx(ratio, rel=1e-3), row.path


def test_freezing_after_a_fit_changes_no_other_layers_ratio():
    model = mlp(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=32, verbose=0)
    whole = [row.update_ratio for row in initx.diagnose(model, X, Y).rows]
    model.layers[0].trainable = False
    first, *rest = [row.update_ratio for row in initx.diagnose(model, X, Y).rows]
    assert first is None
    assert rest == pytest.approx(whole[1:], rel=1e-5)


def test_a_layer_unfrozen_after_a_fit_has_no_slots_and_no_ratio():
    model = mlp()
    model.layers[0].trainable = False
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=32, verbose=0)
    frozen = [row.update_ratio for row in initx.diagnose(model, X, Y).rows]
    model.layers[0].trainable = True
    first, *rest = [row.update_ratio for row in initx.diagnose(model, X, Y).rows]
    assert first is None
    assert rest == pytest.approx(frozen[1:], rel=1e-5)


@pytest.mark.parametrize("rate", [0.1, 4.0])
def test_what_a_step_keeps_is_what_training_shows(rate):
    model = mlp(optimizer=keras.optimizers.SGD(rate), loss=keras.losses.SparseCategoricalCrossentropy(True))
    report = initx.diagnose(model, X, Y)
    old = model.get_weights()
    model.fit(X, Y, batch_size=32, verbose=0)
    # SGD moves each weight by -rate times its gradient, which promises rate |g|^2.
    square = sum(np.sum((one - other) ** 2) for one, other in zip(old, model.get_weights(), strict=True))
    fall = report.loss - initx.diagnose(model, X, Y).loss
    assert report.step_kept == pytest.approx(fall / (square / rate), rel=1e-2, abs=1e-2)


def test_the_loss_after_a_step_is_taken_with_the_masks_of_before():
    """At a tiny rate all of the promise is kept; other masks would make other losses."""
    model = keras.Sequential(
        [layers.Input((16,)), layers.Dense(32, "tanh"), layers.Dropout(0.5), layers.Dense(4)]
    )
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(True))
    assert initx.diagnose(model, X, Y).step_kept == pytest.approx(1.0, abs=0.02)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="elsewhere masks come from the layer's seed")
def test_torchs_own_generator_is_left_as_it_was():
    import torch

    model = keras.Sequential([layers.Input((16,)), layers.Dropout(0.5), layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    state = torch.get_rng_state()
    initx.diagnose(model, X, Y)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_says_nothing_of_the_loss_without_targets_or_optimizer():
    assert initx.diagnose(mlp(optimizer="sgd", loss="mse"), X).step_kept is None
    assert initx.diagnose(mlp(), X, Y, keras.losses.SparseCategoricalCrossentropy(True)).step_kept is None


@pytest.mark.tensorflow
def test_loss_scaling_does_not_change_the_ratio():
    plain = mlp(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    scaled = keras.models.clone_model(plain)
    scaled.set_weights(plain.get_weights())
    scaled.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    targets = RNG.normal(size=(32, 4))
    for one, other in zip(
        initx.diagnose(plain, X, targets).rows, initx.diagnose(scaled, X, targets).rows, strict=True
    ):
        assert one.update_ratio == pytest.approx(other.update_ratio, rel=1e-4)


def test_frozen_kernels_have_no_gradient_and_uncompiled_models_no_update():
    model = mlp()
    model.layers[0].trainable = False
    rows = initx.diagnose(model, X).rows
    assert rows[0].gradient_std is None
    assert rows[1].gradient_std > 0
    assert all(row.update_ratio is None for row in rows)


def test_shared_layers_are_means_over_their_calls():
    shared = layers.Dense(16, name="shared")
    inputs = layers.Input((16,))
    model = keras.Model(inputs, layers.Dense(2)(shared(ops.tanh(shared(inputs)))))
    [row, _] = initx.diagnose(model, X).rows
    kernel, bias = shared.get_weights()
    first = X @ kernel + bias
    second = np.tanh(first) @ kernel + bias
    both = np.concatenate([first, second])
    assert row.preactivation_std == pytest.approx(both.std(), rel=1e-4)


def test_standalone_activations_behind_a_normalization_are_seen():
    model = keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(64, name="d"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(4),
        ]
    )
    [row, _] = initx.diagnose(model, X).rows
    z = X @ model.get_layer("d").get_weights()[0]
    active = np.maximum((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-3), 0)
    assert row.activation_std == pytest.approx(active.std(), rel=1e-3)
    assert row.normalized


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(8, name="one"), layers.Dense(2, name="two")

    def call(self, x):
        return self.two(keras.ops.relu(self.one(x)))


def test_subclassed_models_and_operations():
    model = Subclassed()
    model(X)
    report = initx.diagnose(model, X)
    assert [row.path for row in report.rows] == ["one", "two"]
    z = X @ model.one.get_weights()[0]
    assert report.rows[0].activation_std == pytest.approx(np.maximum(z, 0).std(), rel=1e-4)
    with pytest.raises(ValueError, match="`data` must be what"):
        initx.diagnose(model, X[:, :3])


def test_recurrent_cells_are_read_by_loops():
    inputs = layers.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8)(inputs)
    x = layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)], return_sequences=True)(x)
    rnn = layers.SimpleRNN(5, name="rnn_last")
    model = keras.Model(inputs, [layers.Dense(1)(rnn(x)), x])
    tokens = RNG.integers(0, 20, (32, 6))
    report = initx.diagnose(model, tokens, seed=0)
    cells = [row for row in report.rows if row.role in ("gates", "recurrent", "dense") and "rnn" in row.path]
    assert len(cells) == 6
    assert all(row.preactivation_std > 0 and row.gradient_std > 0 for row in cells)
    seen = np.array(ops.convert_to_numpy(model(tokens)[1]))
    _, stds = gate_stds(rnn.cell, seen)
    row = next(row for row in cells if row.path.startswith("rnn_last/simple_rnn_cell"))
    assert row.preactivation_std == pytest.approx(stds[0], rel=1e-4)


@pytest.mark.parametrize("name", few_elsewhere(BACKBONES, "Bert"))
def test_a_backbone(name):
    model = backbone(name)
    before = state(model)
    report = initx.diagnose(model, seed=0, samples=4)
    assert all(np.array_equal(one, other) for one, other in zip(before, state(model), strict=True))
    assert all(row.preactivation_std is not None or row.note for row in report.rows)
    assert all(row.nonfinite == 0 for row in report.rows)
    assert report.to_json()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_statistics_of_half_precision_are_float32(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = mlp()
    finally:
        keras.config.set_dtype_policy(previous)
    large = initx.diagnose(model, X * 3, seed=0)
    assert all(np.isfinite([row.preactivation_std, row.gradient_std]).all() for row in large.rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": X[:, :3]}, "`data` must have the structure"),
        ({"data": X, "targets": Y}, "`loss` must be given"),
        ({"data": X, "targets": Y[:5], "loss": "mse"}, "`targets` must hold a row"),
        ({"data": X, "seed": -1}, "`seed` must be None or an int"),
        ({"data": X * np.nan}, "`data` must be finite"),
        ({"data": X, "samples": 0}, "`samples` must be"),
        ({"data": X, "loss": "no such loss"}, "`loss` must be the name of a Keras loss"),
        ({"data": X, "training": "no"}, "`training` must be True or False. Received: training='no'"),
        ({"data": X, "jacobian": 1}, "`jacobian` must be True or False"),
        ({"data": X, "try_cures": None}, "`try_cures` must be True or False"),
        ({"data": X, "include": "h7"}, "`include` must hold roles, or patterns of paths"),
        ({"data": X, "exclude": ["h0", "h7"]}, "`exclude` must hold roles, or patterns of paths"),
        ({"data": X, "include": "h0", "exclude": "dense"}, "`include` and `exclude` must leave some weights"),
    ],
)
def test_bad_input(arguments, message):
    model = mlp()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        initx.diagnose(model, **arguments)
    assert all(np.array_equal(one, other) for one, other in zip(before, state(model), strict=True))


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="`model` must be built"):
        initx.diagnose(keras.Sequential([layers.Dense(1)]))


def test_integers_outside_the_vocabulary_are_refused():
    model = keras.Sequential([layers.Input((4,), dtype="int32"), layers.Embedding(20, 3), layers.Dense(2)])
    with pytest.raises(ValueError, match="`data` must hold integers from 0 to 19"):
        initx.diagnose(model, np.full((8, 4), 20))


COMMON = ("data", "targets", "loss", "include", "exclude", "samples", "training")


def test_the_arguments_that_calibrate_has_too_stand_in_the_same_order():
    for verb in (initx.calibrate, initx.diagnose):
        assert [name for name in inspect.signature(verb).parameters if name in COMMON] == list(COMMON)


@pytest.mark.parametrize(
    ("choice", "paths"),
    [
        ({"include": "h1"}, ["h1"]),
        ({"include": ["head", "h0"]}, ["h0", "head"]),
        ({"exclude": ("h0", "head")}, ["h1", "h2"]),
        ({"include": "dense", "exclude": "h1"}, ["h0", "h2", "head"]),
    ],
)
def test_a_choice_limits_the_rows_and_nothing_else(choice, paths):
    model = mlp()
    whole, part = initx.diagnose(model, X, seed=0), initx.diagnose(model, X, seed=0, **choice)
    assert [row.path for row in part.rows] == paths
    assert part.rows == tuple(row for row in whole.rows if row.path in paths)
    for name in ("loss", "forward_gain", "backward_gain", "chi_1", "samples"):
        assert getattr(part, name) == getattr(whole, name), name
