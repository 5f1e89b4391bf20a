"""What SignalMonitor writes is what diagnose reports, and limits end a training."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

import keras_initx as initx
from keras_initx.callbacks import SignalMonitor

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 8)).astype("float32"), RNG.integers(0, 3, 64)


def net():
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dropout(0.5, seed=1),
            layers.Dense(3, name="head"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def read(folder):
    """{(tag, step): value}, later files last."""
    return {
        (value.tag, event.step): tensor_util.make_ndarray(value.tensor)
        for path in sorted((folder / "signal").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }


def test_scalars_are_the_reports(tmp_path):
    model = net()
    before = initx.diagnose(model, X, Y, seed=0)
    monitor = SignalMonitor(tmp_path, (X, Y), images=False)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[monitor])
    after = initx.diagnose(model, X, Y, seed=0)
    found = read(tmp_path)
    assert sorted(monitor.reports) == [0, 1, 2]
    for step, report in ((0, before), (2, after)):
        # Dropout draws from the state of its generator, which moves in training and not in diagnose.
        assert found["gradient_std/0_hidden", step] == pytest.approx(report.rows[0].gradient_std, rel=1e-4)
        assert found["forward_gain/1_head", step] == pytest.approx(report.rows[1].forward_gain, rel=1e-4)
        assert found["model/backward_gain", step] == pytest.approx(report.backward_gain, rel=1e-4)
        assert found["model/verdicts", step] == len(report.verdicts)
    assert ("saturated/0_hidden", 0) not in found


def test_all_kernels_of_a_quantity_share_a_chart(tmp_path):
    model = net()
    model.fit(X, Y, verbose=0, callbacks=[SignalMonitor(tmp_path, (X, Y), images=False)])
    [content] = [value for (tag, _), value in read(tmp_path).items() if "custom_scalars" in tag]
    layout = layout_pb2.Layout.FromString(content.item())
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["forward_gain"] == ["^forward_gain/.*"]


def test_training_is_the_same_with_it(tmp_path):
    plain, watched = net(), net()
    watched.set_weights(plain.get_weights())
    plain.fit(X, Y, epochs=2, verbose=0, shuffle=False)
    monitor = SignalMonitor(tmp_path, (X, Y), every=1, images=False)
    watched.fit(X, Y, epochs=2, verbose=0, shuffle=False, callbacks=[monitor])
    assert sorted(monitor.reports) == list(range(5))
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("on_break", "epochs"), [("warn", 3), ("stop", 1)])
def test_a_limit_that_breaks_warns_or_stops(tmp_path, on_break, epochs):
    model = net()
    model.get_layer("hidden").kernel.assign(10 * np.array(model.get_layer("hidden").get_weights()[0]))
    monitor = SignalMonitor(tmp_path, (X, Y), limits={"max_gain": 2.0}, on_break=on_break, images=False)
    with pytest.warns(UserWarning, match="Step 0: .*\\nhidden: forward_gain"):
        history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[monitor])
    assert len(history.epoch) == epochs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_break": "explode"}, "`on_break` must be one of"),
        ({"limits": {"max_gain": 0.5}}, "`max_gain` must be at least 1"),
        ({"limits": {"max_dead": "few"}}, "`max_dead` must be"),
        ({"limits": {"gain": 2.0}}, "`limits` must be a dict with keys of .*max_verdicts"),
        ({"every": 0}, "`every` must be a positive int"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        SignalMonitor(tmp_path, (X, Y), **arguments)


def test_its_options_are_those_of_diagnose(tmp_path):
    expected = inspect.signature(initx.diagnose).parameters
    own = inspect.signature(SignalMonitor).parameters
    assert set(expected) - {"model"} <= set(own)
    others = {"data", "seed", "try_cures"}  # a monitor compares steps, and has no time for cures
    assert all(own[name].default == expected[name].default for name in set(expected) - {"model"} - others)
    with pytest.raises(TypeError, match="sample"):
        SignalMonitor(tmp_path, (X, Y), sample=8)


def test_maps_over_depth_and_steps(tmp_path):
    pytest.importorskip("matplotlib")
    model = net()
    model.fit(X, Y, verbose=0, callbacks=[SignalMonitor(tmp_path, (X, Y))])
    found = read(tmp_path)
    for name in ("preactivation_std", "gradient_std"):
        for step in (0, 1):
            _, _, png = found[f"signal_by_depth/{name}", step]
            assert png.startswith(b"\x89PNG")


def test_a_second_fit_goes_on(tmp_path):
    model = net()
    monitor = SignalMonitor(tmp_path, (X, Y), images=False)
    model.fit(X, Y, verbose=0, callbacks=[monitor])
    model.fit(X, Y, verbose=0, callbacks=[monitor])
    assert sorted(monitor.reports) == [0, 1, 2]
