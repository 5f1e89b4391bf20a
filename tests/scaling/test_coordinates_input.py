"""What `coordinates` refuses, with the argument, the value and the cure."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import MuP
from support.widths import LABELS, X, loss, net

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def check(build=net, widths=(8, 16), initializer="MuP", data=(X, LABELS), **options):
    return initx.coordinates(
        build, widths, initializer, data, **{"loss": loss(), "steps": 1, "seeds": 1} | options
    )


@pytest.mark.parametrize(
    "widths", [[], [64], [128, 64], [64, 64], [0, 64], [-1, 64], [64.0, 128.0], "64,128", 64, None, [True, 2]]
)
def test_widths(widths):
    with pytest.raises(
        ValueError, match="`widths` must be two or more different positive ints, the smallest"
    ):
        check(widths=widths)


def several(width):
    hidden = [layers.Dense(8) for _ in range(width // 8)]
    return keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(10)])


def other_kind(width):
    layer = layers.Dense(width) if width == 8 else layers.EinsumDense("ab,bc->ac", (width,))
    return keras.Sequential([layers.Input((16,)), layer, layers.Dense(10)])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda width: net(32), "must use its width.*width=8 and width=16.*Dense"),
        (lambda width: net(min(width, 8)), "must use its width"),
        (lambda width: None, "must return a Keras model. Received: NoneType at width=8"),
        (several, "one structure at all widths"),
        (other_kind, "one structure at all widths.*in its place at width=16"),
        (lambda: net(8), "function of a width.*raised TypeError"),
        (net(8), "must be a function of a width"),
        (3, "must be a function of a width"),
        (lambda width: keras.Sequential([layers.Input((16,)), layers.ReLU()]), "model with kernels"),
    ],
)
def test_build(build, message):
    with pytest.raises(ValueError, match=f"`build` {message}|`build`.*{message}"):
        check(build)


def test_data_without_targets():
    with pytest.raises(ValueError, match="`data` must have targets.*pair"):
        check(data=X)


def test_no_loss():
    with pytest.raises(ValueError, match="`loss` must be given, or `build` must compile"):
        check(loss=None)


@pytest.mark.parametrize("loss", ["no such loss", 3])
def test_loss(loss):
    with pytest.raises(ValueError, match="`loss` must be"):
        check(loss=loss)


def test_targets_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`data` and `loss` must fit.*at width=8"):
        check(data=(X, np.zeros((32, 3))), loss="mse")


def test_the_base_of_another_model():
    with pytest.raises(ValueError, match="`base` must have the structure of the model.*at width=8"):
        check(initializer=MuP(base=several(8)))


def test_a_base_that_is_wider_than_the_smallest():
    with pytest.raises(ValueError, match="`base` must be no wider than the model.*at width=8"):
        check(initializer=MuP(base=net(16)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("samples", 0),
        ("seeds", 0),
        ("seeds", [1, 1]),
        ("seeds", [-1]),
        ("seeds", "2"),
    ],
)
def test_counts(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        check(**{name: value})


@pytest.mark.parametrize("optimizer", ["no such optimizer", 0.1, keras.optimizers.Adam])
def test_optimizer(optimizer):
    with pytest.raises(ValueError, match="`optimizer` must be a Keras optimizer"):
        check(optimizer=optimizer)


def test_initializer():
    with pytest.raises(ValueError, match="`initializer` must name.*Nearest: 'MuP'"):
        check(initializer="MupP")


def test_a_function_that_returns_something_else():
    with pytest.raises(ValueError, match="`initializer` must return the report.*returned int"):
        check(initializer=lambda model, seed: 3)


def test_limits_and_tables():
    report = check()
    for options in ({"max_slope": -1}, {"max_slope": None}, {"max_fall": "a"}, {"allow": "no_kind"}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            report.check(**options)
    assert len(report.to_dataframe()) == len(report.rows)
    assert len(report.to_dataframe("slopes")) == len(report.slopes)
    with pytest.raises(ValueError, match="`table` must be one of"):
        report.to_dataframe("none")
