"""Which weight of the donor each weight takes, and everything that is refused."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import difference, randomized


def numpy(value):
    return keras.ops.convert_to_numpy(value)


def values(model):
    return [numpy(weight).copy() for weight in model.weights]


def mlp(width=8, classes=3, inputs=4):
    return keras.Sequential(
        [layers.Input((inputs,)), layers.Dense(width, "relu"), layers.Dense(classes, name="head")]
    )


X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def test_the_donor_stays_bitwise():
    donor = randomized(mlp(8))
    before = values(donor)
    initx.initialize(mlp(16), FromModel(donor, width="clone", noise=0.1), seed=1)
    for old, new in zip(before, values(donor), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_error_on_the_way_leaves_the_model_as_it_was(stop, monkeypatch):
    donor, model = randomized(mlp(8)), mlp(8)
    before, calls = values(model), []

    def broken(weight):
        calls.append(weight.path)
        if len(calls) == 3:
            raise stop("no")
        return numpy(weight.kernel)

    monkeypatch.setattr("keras_initx.donors._carry.value_of", broken)
    with pytest.raises(stop):
        initx.initialize(model, FromModel(donor), seed=1)
    assert len(calls) == 3
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_slots_of_the_optimizer_are_reset():
    donor, model = randomized(mlp()), mlp()
    model.compile("adam", "mse")
    model.fit(X, np.ones((5, 3)), verbose=0)
    report = initx.initialize(model, FromModel(donor), seed=1)
    assert report.optimizer_reset
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_donors_of_other_dtypes(dtype, policy):
    donor, model = (
        keras.Sequential([layers.Input((4,)), layers.Dense(8, dtype=name), layers.Dense(3, dtype=name)])
        for name in (dtype, policy)
    )
    randomized(donor)
    initx.initialize(model, FromModel(donor), seed=1)
    for old, new in zip(donor.weights, model.weights, strict=True):
        expected = numpy(keras.ops.cast(old, "float32"))
        np.testing.assert_array_equal(numpy(new), expected)
        assert new.dtype == "float32"


def test_the_adapters_of_a_donor_are_merged():
    donor, model = randomized(mlp()), mlp()
    donor.layers[0].enable_lora(2)
    randomized(donor, seed=3)
    initx.initialize(model, FromModel(donor), seed=1)
    assert difference(donor, model, X) < 1e-5


def test_a_quantized_donor_is_refused_with_the_cure():
    donor, model = randomized(mlp()), mlp()
    donor.quantize("int8")
    before = values(model)
    with pytest.raises(ValueError, match=r"must not be quantized.*Pass the model from before `quantize`"):
        initx.initialize(model, FromModel(donor), seed=1)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_donor_in_a_file(tmp_path):
    donor, model = randomized(mlp()), mlp()
    donor.save(tmp_path / "donor.keras")
    initx.initialize(model, FromModel(tmp_path / "donor.keras"), seed=1)
    np.testing.assert_array_equal(numpy(model(X)), numpy(donor(X)))


@pytest.mark.parametrize(
    ("donor", "match"),
    [
        (None, r"`donor` must be given.*Pass FromModel\(trained_model\)"),
        ("a.weights.h5", r"build the donor, call donor\.load_weights\(path\)"),
        ("a_saved_model", r"pass the \.keras file that its model was saved in"),
        ("missing.keras", r"`donor` must be a file that exists"),
        (3, r"`donor` must be a built Keras model or the path"),
        (keras.Sequential([layers.Dense(3)]), r"`donor` must be built and have weights"),
    ],
)
def test_what_is_no_donor(donor, match):
    with pytest.raises(ValueError, match=match):
        initx.initialize(mlp(), FromModel(donor))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": "wider"}, "`width`"),
        ({"depth": "half"}, "`depth`"),
        ({"new_rows": "ones"}, "`new_rows`"),
        ({"noise": -1.0}, "`noise` must not be negative"),
        ({"like": {"a": "b"}}, "`like` needs `vocabulary`"),
        ({"vocabulary": (["a"],)}, "`vocabulary` must be two lists of words"),
        ({"vocabulary": (["a", "a"], ["b"])}, "each word once"),
        ({"mapping": {"nothing": None}}, "`mapping` must have paths of the model as its keys"),
        ({"mapping": {"head": "nothing"}}, "`mapping` must have paths of the donor as its values"),
        ({"rows": {"head": [0]}}, "a number or None for each row"),
        ({"rows": {"head": [0, 1, 9]}}, "numbers of the donor's rows, from 0 to 2"),
    ],
)
def test_arguments_that_do_not_fit(options, match):
    model = mlp()
    before = values(model)
    with pytest.raises(ValueError, match=match):
        initx.initialize(model, FromModel(randomized(mlp()), **options))
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("width", "own", "cure"), [("select", 16, "clone"), ("clone", 4, "select")])
def test_the_wrong_way_names_the_other(width, own, cure):
    with pytest.raises(ValueError, match=rf"Pass FromModel\(donor, width='{cure}'\)"):
        initx.initialize(mlp(own), FromModel(randomized(mlp(8)), width=width))


def towers(count, norms):
    """Towers of the same layers, one after the other, with a normalization before each."""
    entry = x = layers.Input((4,))
    for _ in range(count):
        x = layers.LayerNormalization()(x) if norms else x
        x = layers.EinsumDense("ab,bc->ac", 4)(layers.Dense(4, "relu")(x))
    return keras.Model(entry, x)


@pytest.mark.parametrize("longer", ["donor", "model"])
def test_a_part_that_comes_twice_is_refused_and_the_printed_cure_runs(longer):
    short, long = towers(1, norms=False), towers(2, norms=True)
    donor, model = (long, short) if longer == "donor" else (short, long)
    randomized(donor)
    with pytest.raises(ValueError, match="must fit the model in one place") as error:
        initx.initialize(model, FromModel(donor))
    first = [layer.name for layer in long.layers if isinstance(layer, layers.Dense)]
    assert all(f"`{name}`" in str(error.value) for name in first)
    mapping = json.loads(re.search(r"mapping=(\{.*\})", str(error.value))[1])
    report = initx.initialize(model, FromModel(donor, mapping=mapping), seed=1)
    assert {row.path: row.source for row in report.rows if row.is_kernel and row.source} == mapping
    assert len(mapping) == 2


def test_a_weight_with_two_candidates_is_refused_and_the_printed_cure_runs():
    def build(names):
        entry = x = layers.Input((4,))
        for name in names:
            x = layers.Dense(4, "relu", name=name)(x)
        return keras.Model(entry, layers.EinsumDense("ab,bc->ac", 4, name="out")(layers.Flatten()(x)))

    donor = randomized(build(["stem", "left", "right"]))
    entry = layers.Input((4,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(4, "relu", name="stem")(entry))
    x = layers.Dense(4, "relu", name="middle")(x)
    model = keras.Model(entry, layers.EinsumDense("ab,bc->ac", 4, name="out")(x))
    with pytest.raises(ValueError, match="must have one counterpart for `middle`.*2 candidates") as error:
        initx.initialize(model, FromModel(donor))
    assert "`left`, `right`" in str(error.value)
    mapping = json.loads(re.search(r"mapping=(\{.*?\})", str(error.value))[1])
    report = initx.initialize(model, FromModel(donor, mapping=mapping), seed=1)
    assert {row.path: row.source for row in report.rows}["middle"] == "left"


def test_a_mapping_overrides_the_order():
    donor, model = randomized(mlp(4, 4)), mlp(4, 4)
    first, head = donor.layers[0].name, model.layers[1].name
    initx.initialize(model, FromModel(donor, mapping={model.layers[0].name: head, head: first}), seed=1)
    np.testing.assert_array_equal(numpy(model.layers[0].kernel), numpy(donor.layers[1].kernel))
    np.testing.assert_array_equal(numpy(model.layers[1].bias), numpy(donor.layers[0].bias))


def test_the_same_names_in_another_call_order():
    def build(order):
        entry = layers.Input((4,))
        made = {name: layers.Dense(4, name=name)(entry) for name in order}
        return keras.Model(entry, layers.Add()([made["left"], made["right"]]))

    donor, model = randomized(build(["left", "right"])), build(["right", "left"])
    initx.initialize(model, FromModel(donor), seed=1)
    for name in ("left", "right"):
        np.testing.assert_array_equal(
            numpy(model.get_layer(name).kernel), numpy(donor.get_layer(name).kernel)
        )


def test_a_frozen_layer_stays_and_its_row_says_so():
    donor, model = randomized(mlp()), mlp()
    model.layers[0].trainable = False
    before = numpy(model.layers[0].kernel)
    report = initx.initialize(model, FromModel(donor), seed=1)
    np.testing.assert_array_equal(numpy(model.layers[0].kernel), before)
    assert "frozen" in report.rows[0].note
    assert report.matched == pytest.approx(27 / 67)
    assert initx.initialize(model, FromModel(donor), seed=1, frozen=True).matched == 1


def body(width=8):
    return keras.Sequential([layers.Input((4,)), layers.Dense(width, "relu"), layers.Dense(width, "relu")])


def classifier(width=8):
    entry = layers.Input((4,))
    return keras.Model(entry, layers.Dense(3, name="logits")(body(width)(entry)))


def test_a_body_into_a_classifier_and_back():
    donor, model = randomized(body()), classifier()
    report = initx.initialize(model, FromModel(donor), seed=1)
    inner = model.layers[1]
    np.testing.assert_array_equal(numpy(inner(X)), numpy(donor(X)))
    (head,) = (row for row in report.rows if row.path == "logits")
    assert not head.source
    assert "the donor has no such layer" in head.note
    back = body()
    assert initx.initialize(back, FromModel(randomized(model, 5)), seed=1).matched == 1
    np.testing.assert_array_equal(numpy(back(X)), numpy(inner(X)))


class Subclassed(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.one, self.two = layers.Dense(width, "relu"), layers.Dense(3)

    def call(self, x):
        return self.two(self.one(x))


def test_subclassed_models():
    donor, model = Subclassed(8), Subclassed(16)
    donor(X), model(X)
    initx.initialize(model, FromModel(randomized(donor), width="clone"), seed=1)
    assert difference(donor, model, X) < 1e-4


def test_the_rest_is_drawn_by_another_initializer():
    donor, model = randomized(mlp(classes=3)), mlp(classes=5)
    report = initx.initialize(model, FromModel(donor, otherwise="zeros"), seed=1)
    assert not numpy(model.layers[1].kernel).any()
    (head,) = (row for row in report.rows if row.path == "head")
    assert "its 5 units have names, and the donor's 3 are others" in head.note


@pytest.mark.tensorflow
def test_compare_starts_from_a_donor():
    donor = randomized(mlp())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)

    def build():
        model = mlp()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    found = initx.compare(
        build, {"donor": FromModel(donor), "own": "none"}, (x, y), (x, y), epochs=1, seeds=2
    )
    assert {row.initializer for row in found.rows} == {"donor", "own"}
