"""What weights were made with counts where neither a config nor an attribute of their layer tells it."""

import copy
import gc
import inspect
import pickle
import warnings
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx._given import given_to, record
from keras_initx.walk import iter_kernels
from support import forked

WIDTH = 32
TABLE = np.arange(WIDTH, dtype="float32")


def full(shape, dtype=None):
    return ops.full(shape, 3.0, dtype)


class Secret(layers.Layer):
    """Has no config, and keeps its initializer under a name that tells nothing."""

    def __init__(self, begin, **options):
        super().__init__(**options)
        self.hidden = begin
        self.table = keras.Variable(TABLE, name="table")

    def build(self, shape):
        self.one = self.add_weight(shape=(shape[-1], WIDTH), initializer=self.hidden, name="one")
        self.other = self.add_weight(shape=(shape[-1], WIDTH), initializer=self.hidden, name="other")
        self.plain = self.add_weight(shape=(shape[-1], WIDTH), name="plain")
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(WIDTH,), initializer=full, name="shift")
        self.array = self.add_weight(shape=(WIDTH,), initializer=TABLE, name="array")
        self.count = self.add_weight(dtype="int32", trainable=False, name="count")

    def call(self, x):
        return ops.tanh(x @ self.one + x @ self.other + x @ self.plain) * self.scale + self.shift

    def get_config(self):
        raise NotImplementedError


def secretive(begin):
    return keras.Sequential([layers.Input((WIDTH,)), Secret(begin, name="own"), layers.Dense(2, name="head")])


def array(variable):
    return np.array(ops.convert_to_numpy(variable.value))


def trained(model):
    for variable in model.weights:
        variable.assign(variable + ops.cast(77, variable.dtype))
    return model


def drawn_anew(model, seed=0, initializer=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.initialize(model, initializer, seed=seed)
    assert report.kept == report.unseen == ()
    return {weight.name: array(weight) for weight in model.layers[0].weights}


def test_weights_of_a_layer_that_tells_nothing_start_over():
    # Seeded, and shared by two weights: both must have numbers of their own, and new ones for each seed.
    model = trained(secretive(keras.initializers.RandomNormal(stddev=2.0, seed=5)))
    found = drawn_anew(model)
    # The std of n normal numbers has the relative standard error 1 / sqrt(2 n).
    error = 4 / np.sqrt(2 * WIDTH**2)
    assert found["one"].std() == pytest.approx(2.0, rel=error)
    assert found["other"].std() == pytest.approx(2.0, rel=error)
    assert found["plain"].std() == pytest.approx(WIDTH**-0.5, rel=error)  # Keras' default, Glorot's
    for left, right in [("one", "other"), ("one", "plain")]:
        assert abs(np.corrcoef(found[left].ravel(), found[right].ravel())[0, 1]) < 4 / WIDTH
    assert set(found["scale"]) == {1.0}
    assert set(found["shift"]) == {3.0}
    np.testing.assert_array_equal(found["array"], TABLE)
    np.testing.assert_array_equal(found["table"], TABLE)
    assert found["count"] == 0
    again, other = drawn_anew(model), drawn_anew(model, seed=1)
    np.testing.assert_array_equal(found["one"], again["one"])
    assert abs(np.corrcoef(found["one"].ravel(), other["one"].ravel())[0, 1]) < 4 / WIDTH


def test_the_report_says_which_weights_do_not_follow_the_seed():
    report = initx.initialize(trained(secretive("he_normal")), None, seed=0)
    fixed = {row.path for row in report.rows if row.note == "draws the same for every seed"}
    assert fixed == {"own/shift", "own/array", "own/table"}


def test_a_strategy_draws_the_kernels_and_the_layer_the_rest():
    model = trained(secretive("ones"))
    found = drawn_anew(model, initializer="by_role")
    assert np.ptp(found["one"])
    assert set(found["scale"]) == {1.0}


@keras.saving.register_keras_serializable("tests")
class Saved(Secret):
    def __init__(self, **options):
        super().__init__("he_normal", **options)

    def build(self, shape):
        self.frequencies = keras.Variable(keras.random.normal((3,), seed=1), name="frequencies")
        super().build(shape)

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        if not cls.loading:
            raise RuntimeError("no copies")
        return cls(**config)


def test_a_model_from_a_file_starts_over(tmp_path, monkeypatch):
    Saved.loading = True
    model = keras.Sequential([layers.Input((WIDTH,)), Saved(name="own")])
    trained(model).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(model.layers[0].scale), 78.0)
    monkeypatch.setattr(Saved, "loading", False)
    with pytest.warns(UserWarning, match=r"left 1 of 9 weights, less than 1% .* `own/frequencies`"):
        report = initx.initialize(model, None, seed=0)
    assert report.kept == ("own/frequencies",)
    np.testing.assert_array_equal(array(model.layers[0].scale), 1.0)
    assert array(model.layers[0].one).max() < 1


@pytest.mark.tensorflow  # for the process that it starts: one suite of three
def test_a_model_that_is_older_than_the_package_keeps_what_nothing_tells(tmp_path):
    code = (
        "import keras, warnings\n"
        "class Old(keras.layers.Layer):\n"
        "    def __init__(self, begin, **options):\n"
        "        super().__init__(**options)\n"
        "        self.hidden = begin\n"
        "    def build(self, shape):\n"
        "        self.one = self.add_weight(shape=(4, 4), initializer=self.hidden, name='one')\n"
        "    def call(self, x):\n"
        "        return x @ self.one\n"
        "    def get_config(self):\n"
        "        raise NotImplementedError\n"
        "def model():\n"
        "    return keras.Sequential([keras.layers.Input((4,)), Old('ones', name='own')])\n"
        "old = model()\n"
        "import keras_initx as initx\n"
        "warnings.simplefilter('ignore')\n"
        "print(initx.initialize(old, None).kept, initx.initialize(model(), None).kept)\n"
    )
    # Forked from one that has imported Keras alone: this one has the package from the start.
    found = forked.run(["-c", code], cwd=tmp_path, preload="keras", check=True)
    assert found.stdout.splitlines()[-1] == "('own/one',) ()"


def test_calibrate_finds_the_law_of_a_layer_that_names_none():
    model = secretive("initx>LSUV")
    report = initx.calibrate(model, seed=0)
    assert [row.path for row in report.rows] == ["own/one", "own/other"]


def test_kernels_have_the_initializers_of_their_layers():
    (one, *_) = iter_kernels(secretive("he_normal"))
    assert type(one.initializer).__name__ == "HeNormal"


def test_the_record_changes_no_variable_and_holds_none():
    assert next(iter(inspect.signature(keras.Variable).parameters)) == "initializer"
    current = keras.Variable.__init__
    record()
    assert keras.Variable.__init__ is current
    with pytest.raises(ValueError, match="shape"):
        keras.Variable("zeros")
    variable = keras.Variable(initializer=lambda shape, dtype: ops.ones(shape, dtype), shape=(2,), name="v")
    assert (variable.name, array(variable).tolist()) == ("v", [1, 1])
    assert given_to(copy.deepcopy(variable)) is None
    assert vars(pickle.loads(pickle.dumps(vars(variable)["_initx_given"]))) == {"initializer": None}
    model = secretive("zeros")
    watched = [weakref.ref(weight) for weight in model.layers[0].weights]
    del model
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


class Mine(keras.Variable):
    """A user's variable."""


def test_what_is_kept_of_an_initializer():
    assert type(given_to(Mine("he_normal", shape=(2, 2)))).__name__ == "HeNormal"
    assert given_to(keras.Variable(0.5)) == 0.5
    assert given_to(keras.Variable(ops.ones((2,)))) is None
    begin = np.zeros(3, "float32")
    variable = keras.Variable(begin)
    variable.assign(np.ones(3))
    begin[:] = 2
    assert given_to(variable).tolist() == [0, 0, 0]
    large = np.zeros((1 << 20) + 1, "float32")
    assert given_to(keras.Variable(large)) is None
    assert given_to(keras.Variable(keras.initializers.Constant(large), shape=large.shape)) is None
