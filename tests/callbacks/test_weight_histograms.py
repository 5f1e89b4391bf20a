import keras
import numpy as np
import pytest
from keras import layers, ops
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_initx.callbacks import WeightHistograms
from keras_initx.summaries import buckets

INPUTS = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
TARGETS = INPUTS[:, :1] * 2


def model_of(name="net"):
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(5, name="d")], name="inner")
    model = keras.Sequential(
        [layers.Input((4,)), inner, layers.BatchNormalization(name="bn"), layers.Dense(1, name="head")],
        name=name,
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def written(folder):
    """{(tag, step): table} over the event files of a folder, later files last."""
    return {
        (value.tag, event.step): tensor_util.make_ndarray(value.tensor)
        for path in sorted(folder.glob("*.initx"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }


def shown(folder):
    """{(tag, step)} as TensorBoard shows them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tags = accumulator.Tags()["tensors"]
    return [(tag, event.step) for tag in tags for event in accumulator.Tensors(tag)]


def test_step_zero_is_the_initialization_and_step_e_the_state_after_e_epochs(tmp_path):
    model = model_of()
    states = [[ops.convert_to_numpy(v).copy() for v in model.weights]]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(
            [ops.convert_to_numpy(v).copy() for v in model.weights]
        )
    )
    model.fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[WeightHistograms(tmp_path), keep])
    read = written(tmp_path)
    assert sorted({step for _, step in read}) == [0, 1, 2]
    tags = [tag for tag, step in read if step == 0]
    assert tags == [
        "weights/0_inner/d/kernel",
        "weights/0_inner/d/bias",
        "weights/1_bn/gamma",
        "weights/1_bn/beta",
        "weights/1_bn/moving_mean",
        "weights/1_bn/moving_variance",
        "weights/2_head/kernel",
        "weights/2_head/bias",
    ]
    for step, weights in enumerate(states):
        for tag, weight in zip(tags, weights, strict=True):
            np.testing.assert_array_equal(read[tag, step], buckets(weight)[0])
    assert abs(states[0][0] - states[2][0]).max() > 0


def test_a_resumed_run_goes_on_from_its_epoch_in_a_file_of_its_own(tmp_path):
    model = model_of()
    model.fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    model.fit(INPUTS, TARGETS, initial_epoch=2, epochs=3, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    assert len(list(tmp_path.glob("*.initx"))) == 2
    assert sorted({step for _, step in written(tmp_path)}) == [0, 1, 2, 3]


@pytest.mark.parametrize("every", ["epoch", 3])
@pytest.mark.parametrize("same", [True, False])
def test_a_second_fit_goes_on_where_the_first_ended(tmp_path, every, same):
    def callback():
        return WeightHistograms(tmp_path, update_ratio=True, every=every)

    model, first = model_of(), callback()
    for _ in range(2):  # 6 batches each
        model.fit(
            INPUTS, TARGETS, 16, epochs=3, verbose=0, shuffle=False, callbacks=[first if same else callback()]
        )
    read = written(tmp_path)
    steps = [0, 1, 2, 3, 4, 5, 6] if every == "epoch" else [0, 3, 6, 9, 12]
    assert sorted(step for tag, step in shown(tmp_path) if tag == "weights/2_head/kernel") == steps
    assert sorted(step for tag, step in shown(tmp_path) if tag == "update_ratio/2_head/kernel") == steps[1:]
    assert read["update_ratio/2_head/kernel", steps[-1]] > 0


@pytest.mark.parametrize("every", ["epoch", 2])
def test_a_run_that_backup_and_restore_resumes_goes_on_from_there(tmp_path, every):
    def fit(stop_at):
        model = model_of()

        def stop(epoch, logs):
            if epoch == stop_at:
                raise KeyboardInterrupt

        callbacks = [
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            WeightHistograms(tmp_path, every=every),
            keras.callbacks.LambdaCallback(on_epoch_begin=stop),
        ]
        model.fit(INPUTS, TARGETS, 16, epochs=4, verbose=0, callbacks=callbacks)

    with pytest.raises(KeyboardInterrupt):
        fit(stop_at=2)
    fit(stop_at=None)
    steps = [0, 1, 2, 3, 4] if every == "epoch" else [0, 2, 4, 6, 8]
    assert sorted(step for tag, step in shown(tmp_path) if tag == "weights/2_head/bias") == steps


def test_every_n_batches_steps_count_batches(tmp_path):
    model, states = model_of(), {}
    count = iter(range(1, 100))

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            states[next(count)] = ops.convert_to_numpy(self.model.get_layer("head").kernel.value).copy()

    callbacks = [WeightHistograms(tmp_path, every=3), Keep()]
    model.fit(INPUTS, TARGETS, 8, epochs=2, verbose=0, callbacks=callbacks)  # 4 batches each
    read = written(tmp_path)
    assert sorted({step for _, step in read}) == [0, 3, 6]
    for step in (3, 6):
        np.testing.assert_array_equal(read["weights/2_head/kernel", step], buckets(states[step])[0])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras runs one batch at a time on torch")
def test_batches_that_run_several_at_a_time_are_counted_all(tmp_path):
    model = model_of()
    model.compile(keras.optimizers.SGD(0.01), "mse", steps_per_execution=2)
    model.fit(INPUTS, TARGETS, 4, verbose=0, callbacks=[WeightHistograms(tmp_path, every=3)])  # 8 batches
    assert sorted({step for _, step in written(tmp_path)}) == [0, 4, 6]


def test_batches_whose_gradients_are_accumulated_are_counted_all(tmp_path):
    model = model_of()
    sgd = keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)
    model.compile(keras.optimizers.LossScaleOptimizer(sgd), "mse")
    for _ in range(2):  # 3 batches each, of which the third makes no step
        model.fit(INPUTS[:12], TARGETS[:12], 4, verbose=0, callbacks=[WeightHistograms(tmp_path, every=1)])
    assert sorted({step for _, step in written(tmp_path)}) == [0, 1, 2, 3, 4, 5, 6]


def test_keras_waits_for_each_batch_only_where_steps_count_batches(tmp_path):
    plain = keras.callbacks.CallbackList([])._async_train  # some backends always wait
    assert keras.callbacks.CallbackList([WeightHistograms(tmp_path)])._async_train == plain
    assert not keras.callbacks.CallbackList([WeightHistograms(tmp_path, every=2)])._async_train


def test_a_callback_used_again_after_an_interrupted_fit_starts_at_step_zero(tmp_path):
    callback = WeightHistograms(tmp_path)

    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model_of().fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[callback, stop])
    model_of().fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[callback])
    latest = sorted(tmp_path.glob("*.initx"))[-1]
    steps = {e.step for e in EventFileLoader(str(latest)).Load() if e.summary.value}
    assert len(list(tmp_path.glob("*.initx"))) == 2
    assert steps == {0, 1}


def test_gradients_are_those_of_the_compiled_loss_at_that_step(tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callback = WeightHistograms(tmp_path, weights=False, gradients=True, data=(INPUTS, TARGETS))

    def expected():
        kernel, bias = model.get_weights()
        error = INPUTS @ kernel + bias - TARGETS
        return 2 / len(INPUTS) * INPUTS.T @ error, 2 * error.mean(0)

    before = expected()
    model.fit(INPUTS, TARGETS, verbose=0, callbacks=[callback])
    for step, gradients in enumerate((before, expected())):
        for name, gradient in zip(("kernel", "bias"), gradients, strict=True):
            table = written(tmp_path)[f"gradients/0_head/{name}", step]
            assert table[0, 0] == pytest.approx(gradient.min(), rel=1e-4)
            assert table[-1, 1] == pytest.approx(gradient.max(), rel=1e-4)
            assert table[:, 2].sum() == gradient.size


def test_activations_are_those_of_layers_with_kernels_and_of_activation_layers(tmp_path):
    shared = layers.Dense(4, "tanh", name="shared")
    inputs = layers.Input((4,))
    x = shared(layers.Dropout(0.5)(shared(inputs)))
    model = keras.Model(inputs, layers.Dense(1, name="head")(layers.ReLU(name="relu")(x)), name="net")
    model.compile("sgd", "mse")
    callback = WeightHistograms(tmp_path, weights=False, activations=True, data=INPUTS)
    first = ops.convert_to_numpy(shared(INPUTS))
    second = ops.convert_to_numpy(shared(first))
    model.fit(INPUTS, TARGETS, verbose=0, callbacks=[callback])
    read = {tag: table for (tag, step), table in written(tmp_path).items() if step == 0}
    assert list(read) == [
        "activations/0_shared",
        "activations/0_shared_2",
        "activations/1_relu",
        "activations/2_head",
    ]
    for tag, values in (("0_shared", first), ("0_shared_2", second), ("1_relu", np.maximum(second, 0))):
        np.testing.assert_allclose(read[f"activations/{tag}"][:, :2], buckets(values)[0][:, :2], atol=1e-5)


def test_update_ratios_are_of_the_change_since_the_last_step(tmp_path):
    model = model_of()
    before = {v.path: ops.convert_to_numpy(v.value).copy() for v in model.trainable_variables}
    model.fit(
        INPUTS, TARGETS, verbose=0, callbacks=[WeightHistograms(tmp_path, weights=False, update_ratio=True)]
    )
    read = written(tmp_path)
    assert {step for _, step in read} == {1}
    assert len(read) == len(before)
    kernel = model.get_layer("head").kernel
    after = ops.convert_to_numpy(kernel.value)
    change = np.sqrt(np.mean((after - before[kernel.path]) ** 2)) / np.sqrt(np.mean(after**2))
    assert read["update_ratio/2_head/kernel", 1] == pytest.approx(change, rel=1e-4)


def test_measuring_changes_neither_training_nor_states(tmp_path):
    def fit(callbacks):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                layers.Input((4,)),
                layers.GaussianNoise(0.1, seed=1),
                layers.Dense(8, "relu", kernel_regularizer="l2"),
                layers.BatchNormalization(),
                layers.Dropout(0.5, seed=2),
                layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
        history = model.fit(
            INPUTS, TARGETS, 8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks(model)
        ).history
        return [ops.convert_to_numpy(variable.value) for variable in model.variables], history

    everything = {"gradients": True, "activations": True, "update_ratio": True, "data": (INPUTS, TARGETS)}
    plain, losses = fit(lambda model: [])
    observed, same = fit(lambda model: [WeightHistograms(tmp_path, every=1, **everything)])
    assert losses == same
    for one, other in zip(plain, observed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_kinds_of_a_nested_functional_model_line_up(tmp_path):
    inner_inputs = layers.Input((5, 4))
    inner = keras.Model(inner_inputs, layers.LSTM(3, name="lstm")(inner_inputs), name="inner")
    inputs = layers.Input((5, 4))
    x = layers.TimeDistributed(layers.Dense(4, name="step"), name="times")(inputs)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    model = keras.Model(inputs, layers.Dense(1, name="head")(inner(x)))
    model.compile("sgd", "mse")
    sequences = np.random.default_rng(0).standard_normal((8, 5, 4)).astype("float32")
    pair = sequences, np.ones((8, 1), "float32")
    callback = WeightHistograms(
        tmp_path, gradients=True, activations=True, update_ratio=True, data=pair, bins=5
    )
    model.fit(*pair, verbose=0, callbacks=[callback])
    read = written(tmp_path)
    tags = {tag for tag, step in read if step == 1}
    by_kind = {
        kind: {tag.partition("/")[2] for tag in tags if tag.startswith(f"{kind}/")}
        for kind in ("weights", "gradients", "update_ratio", "activations")
    }
    assert by_kind["weights"] == by_kind["gradients"] == by_kind["update_ratio"]
    assert by_kind["activations"] == {
        "0_times",
        "2_attention/query",
        "3_attention/key",
        "4_attention/value",
        "5_attention/attention_output",
        "6_inner/lstm",
        "8_head",
    }
    assert {tag for tag in by_kind["weights"] if tag.startswith(("1", "7"))} == {
        "1_times/step/kernel",
        "1_times/step/bias",
        "7_inner/lstm/lstm_cell/kernel",
        "7_inner/lstm/lstm_cell/recurrent_kernel",
        "7_inner/lstm/lstm_cell/bias",
    }
    assert {read[tag, 1].shape for tag in tags if not tag.startswith("update_ratio")} == {(5, 3)}


def test_data_may_be_batches_that_bring_their_targets(tmp_path):
    batches = [(INPUTS[:16], TARGETS[:16]), (INPUTS[16:], TARGETS[16:])]
    callback = WeightHistograms(tmp_path, weights=False, gradients=True, activations=True, data=iter(batches))
    model_of().fit(INPUTS, TARGETS, verbose=0, callbacks=[callback])
    assert written(tmp_path)["activations/2_head", 1][:, 2].sum() == 32


def test_nan_weights_are_counted_not_drawn(tmp_path):
    model = model_of()
    model.get_layer("head").kernel.assign(ops.full((5, 1), float("nan")))
    model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    read = written(tmp_path)
    assert read["nonfinite_fraction/weights/2_head/kernel", 0] == 1
    assert read["weights/2_head/kernel", 0][:, 2].sum() == 0


def test_a_subclassed_model_is_logged_without_its_own_name_and_must_be_built(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="root")
            self.dense = layers.Dense(1, name="dense")

        def call(self, inputs):
            return self.dense(inputs)

    model = Model()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    # TensorFlow builds it in the first step only, JAX and torch before the first epoch.
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="`model` must be built before `fit` .* Call it on one batch"):
            model.fit(INPUTS, TARGETS, verbose=0, callbacks=[WeightHistograms(tmp_path)])
        assert not list(tmp_path.iterdir())
        model(INPUTS)
    model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    tags = sorted(tag for tag, step in written(tmp_path) if step == 0)
    assert [tag.rpartition("/")[2] for tag in tags] == ["bias", "kernel"]
    assert not any("root" in tag for tag in tags)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"log_dir": None}, TypeError, "`log_dir` must be a path. Received: log_dir=None"),
        ({"log_dir": ["runs"]}, TypeError, "`log_dir` must be a path"),
        ({"log_dir": "nosuch://runs"}, ValueError, "`log_dir` must be a folder, or a URL"),
        ({"weights": "all"}, TypeError, "`weights` must be True or False.* Received: weights='all'"),
        ({"gradients": 1}, TypeError, "`gradients` must be True or False"),
        ({"weights": False}, ValueError, "One of .*'weights'.* must be True. Received: weights=False"),
        ({"gradients": True}, ValueError, "`data` must be given if `gradients` is True.* Pass inputs"),
        ({"activations": True}, ValueError, "`data` must be given if `activations` is True"),
        (
            {"every": "batch"},
            ValueError,
            "`every` must be a positive int or \"epoch\". Received: every='batch'",
        ),
        ({"every": 0}, ValueError, "`every` must be a positive int"),
        ({"every": True}, ValueError, "`every` must be a positive int"),
        ({"bins": 2.5}, ValueError, "`bins` must be an int of at least 1. Received: bins=2.5"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        WeightHistograms(**{"log_dir": "runs"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradients": True, "data": INPUTS}, "`targets` must be given: `WeightHistograms.gradients=True.`"),
        (
            {"activations": True, "data": INPUTS[:, :3]},
            "`data` must have the structure of the model's inputs",
        ),
        ({"gradients": True, "data": INPUTS, "targets": TARGETS[:5]}, "`targets` must hold a row for each"),
    ],
)
def test_bad_data_stops_fit_before_it_trains(tmp_path, arguments, message):
    model = model_of()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(INPUTS, TARGETS, verbose=0, callbacks=[WeightHistograms(tmp_path, **arguments)])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.iterdir())


def test_a_remote_log_dir_holds_all_steps(tmp_path):
    url = f"file://{tmp_path}/run"
    model_of().fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[WeightHistograms(url)])
    assert sorted({step for _, step in written(tmp_path / "run")}) == [0, 1, 2]


class Gate(layers.Layer):
    def build(self, shape):
        self.open = self.add_weight(name="open", initializer="ones")

    def call(self, x):
        return x * self.open


def test_a_single_number_of_bfloat16_is_a_histogram(tmp_path):
    model = keras.Sequential([layers.Input((4,)), Gate(dtype="bfloat16", name="gate")])
    model.compile("sgd", "mse")
    model.fit(
        INPUTS,
        INPUTS,
        verbose=0,
        callbacks=[WeightHistograms(tmp_path, gradients=True, data=INPUTS, targets=INPUTS)],
    )
    read = written(tmp_path)
    assert read["weights/0_gate/open", 0][:, 2].sum() == 1
    assert read["gradients/0_gate/open", 0][:, 2].sum() == 1
