"""What a law says of itself, over all names, and laws of a user's own of each kind."""

import pathlib
import re
import typing

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx import initializers, walk
from keras_initx.initializers import (
    LSUV,
    DataDependent,
    DataFilters,
    Head,
    HeadLaw,
    Law,
    ModelLaw,
    PCAFilters,
    WithinLayer,
    is_bias_initializer,
    is_law,
    needs_of,
)

NAMES = initializers.names()
LAWS = [name for name in NAMES if is_law(initializers.get(name))]
WORDS = {"gradients", "inputs", "loss", "targets"}
# name: needs, scope, weight
SAID = {
    "initx>ActNormData": ({"inputs"}, "unit", "kernel"),
    "initx>BetweenLayer": ({"gradients", "inputs"}, "model", "kernel"),
    "initx>ClassMeans": ({"inputs", "targets"}, "head", "kernel"),
    "initx>EVA": ({"inputs"}, "adapter", "kernel"),
    "initx>GradInit": (WORDS, "model", "kernel"),
    "initx>KMeansFilters": ({"inputs"}, "unit", "kernel"),
    "initx>LSUV": ({"inputs"}, "layer", "kernel"),
    "initx>LabelPrior": ({"inputs", "targets"}, "unit", "bias"),
    "initx>LoRAGA": (WORDS, "adapter", "kernel"),
    "initx>LinearProbe": ({"inputs", "targets"}, "head", "kernel"),
    "initx>MetaInit": (WORDS, "model", "kernel"),
    "initx>PCAFilters": ({"inputs"}, "unit", "kernel"),
    "initx>WeightNormData": ({"inputs"}, "unit", "kernel"),
    "initx>WithinLayer": ({"inputs"}, "unit", "kernel"),
}


@pytest.mark.tensorflow
def test_laws_say_what_they_need_and_what_they_set():
    assert {
        name: (set(law.needs), law.scope, law.weight)
        for name, law in ((name, initializers.get(name)) for name in LAWS)
    } == SAID
    assert set(typing.get_args(initializers._law.Need)) == WORDS


@pytest.mark.tensorflow
def test_the_table_of_laws_in_the_docs_says_the_same():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "calibration.md").read_text()
    head = "| law | needs | scope | effect on the pre-activation |\n| --- | --- | --- | --- |\n"
    rows = [line.split("|") for line in page.split(head)[1].split("\n\n")[0].splitlines()]
    told = {
        f"initx>{name}": (set(needs.strip().split(", ")), scope.strip())
        for _, names, needs, scope, *_ in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    laws = {name: initializers.get(name) for name in LAWS}
    assert told == {name: (set(law.needs), law.scope) for name, law in laws.items()}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SAID)))
def test_other_initializers_need_a_shape_alone(name):
    initializer = initializers.get(name)
    assert not is_law(initializer)
    assert needs_of(initializer) == needs_of(type(initializer)) == frozenset()
    assert is_bias_initializer(initializer) == (name == "initx>PriorBias")


@pytest.mark.tensorflow
def test_kerass_own_and_functions_are_no_laws():
    for other in (keras.initializers.HeNormal(), lambda shape, dtype=None: None, None, "LSUV"):
        assert not is_law(other)
        assert needs_of(other) == frozenset()


def site_of(layer, shape):
    model = keras.Sequential([layers.Input(shape), layer])
    return next(iter(walk.iter_kernels(model)))


@pytest.mark.tensorflow
def test_each_kind_refuses_the_kernels_that_it_cannot_set():
    dense, grouped = site_of(layers.Dense(4), (3,)), site_of(layers.Conv1D(4, 3, groups=2), (6, 4))
    assert [law.refuses(dense) for law in (LSUV(), WithinLayer(), PCAFilters())] == ["", "", ""]
    assert LSUV().refuses(grouped) == WithinLayer().refuses(grouped) == ""
    assert PCAFilters().refuses(grouped) == "filters are for dense layers and convolutions of one group"

    class Shared(layers.Layer):
        """Its 12 units share 4 biases, as those of a sub-pixel layer may."""

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 12))
            self.bias = self.add_weight(shape=(4,))

    layer = Shared()
    layer.build((None, 3))

    class Site:
        role, checked = "dense", False
        unit_axes = ((1,), (-1,))

    Site.layer, Site.kernel, Site.bias = layer, layer.kernel, layer.bias
    assert WithinLayer().refuses(Site) == "its units share the entries of its bias"
    Site.unit_axes = None
    assert WithinLayer().refuses(Site) == "the units of Shared are not known"
    assert LSUV().refuses(Site) == ""


DATA = np.random.default_rng(0).normal(2.0, 3.0, (200, 6)).astype("float32")


def net():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, "relu"), layers.Dense(2)])
    initx.initialize(model, seed=1)
    return model


def outputs_of(model):
    inner = keras.Model(model.inputs, model.layers[0].output)
    hidden = keras.ops.convert_to_numpy(inner(DATA))
    return hidden @ keras.ops.convert_to_numpy(model.layers[1].kernel) + keras.ops.convert_to_numpy(
        model.layers[1].bias
    )


class ToThree(DataDependent):
    def rescale(self, mean, std):
        return 3.0 / std, 0.0


class Rows(DataFilters):
    def filters(self, inputs, units):
        return inputs[:units].T


class Third(ModelLaw):
    needs = frozenset({"gradients", "inputs"})

    def search(self, task):
        yield np.where(task.is_kernel, 1 / 3, 1.0), (0.0,)


def test_a_users_law_of_a_layer_is_one_class():
    model = net()
    report = initx.calibrate(model, DATA, ToThree())
    found = outputs_of(model)
    assert report.rows[1].std_after == pytest.approx(found.std(), rel=1e-4) == pytest.approx(3.0, rel=1e-4)


def test_a_users_filters_are_one_class():
    model = net()
    report = initx.calibrate(model, DATA, Rows(), include=model.layers[0].name)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model.layers[0].kernel), DATA[:5].T, rtol=1e-5, atol=1e-6
    )
    assert report.rows[0].std_before is None


class Columns(HeadLaw):
    def solve(self, rows, bias=True):
        return Head(np.eye(*(rows.flat.shape[1], rows.units)), np.arange(rows.units), 0.5, "as told")


def test_a_users_law_of_heads_is_one_class():
    model = net()
    before = keras.ops.convert_to_numpy(model.layers[0].kernel)
    (row,) = initx.calibrate(model, (DATA, np.zeros(200)), Columns("categorical")).rows
    assert (row.path, row.head, row.held_out) == (model.layers[1].name, "as told", 0.5)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.layers[1].kernel), np.eye(5, 2))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.layers[1].bias), [0, 1])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.layers[0].kernel), before)


def test_a_users_law_of_the_model_is_one_class():
    model = net()
    before = [keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers]
    initx.calibrate(model, DATA, Third())
    for layer, old in zip(model.layers, before, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.kernel), old / 3, rtol=1e-5)


@pytest.mark.tensorflow
def test_the_base_does_nothing_by_itself():
    assert issubclass(DataDependent, Law)
    with pytest.raises(ValueError, match=r"`initializer` must be a data-dependent law.*with `initialize`"):
        initx.calibrate(net(), DATA, "he_normal")
