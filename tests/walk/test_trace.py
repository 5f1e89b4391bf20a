"""The trace: models of any form, and nothing left behind."""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx.walk import iter_kernels


class Counting(layers.Layer):
    """Draws random numbers, counts its calls and adds a loss."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros", name="n")
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        self.calls.assign(self.calls + 1)
        self.add_loss(ops.sum(x))
        return self.dense(x + keras.random.normal(ops.shape(x)[1:], seed=self.seeds))


def counting():
    inputs = layers.Input((4,))
    return keras.Model(inputs, layers.Dropout(0.3)(Counting()(layers.Dense(4, "relu")(inputs))))


def state(model):
    found = [model, *model._flatten_layers()]
    nodes = [(len(x._inbound_nodes), len(x._outbound_nodes), len(x._losses)) for x in found]
    return nodes, [np.array(ops.convert_to_numpy(v)).tolist() for v in model.variables]


def test_nothing_is_left_behind(tmp_path):
    model = counting()
    before, output = state(model), model.layers[1].output
    summaries = []
    model.summary(print_fn=lambda text, **_: summaries.append(text))
    list(iter_kernels(model))
    assert state(model) == before
    assert model.layers[1].output is output
    model.summary(print_fn=lambda text, **_: summaries.append(text))
    assert summaries[: len(summaries) // 2] == summaries[len(summaries) // 2 :]


def test_models_save_and_load_after_a_trace(tmp_path):
    inputs = layers.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4, "relu")(inputs)))
    list(iter_kernels(model))
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 6), "float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


class Raising(keras.Model):
    def __init__(self, error):
        super().__init__()
        self.dense, self.error, self.armed = layers.Dense(3), error, False

    def call(self, x):
        if self.armed:
            raise self.error
        return self.dense(x)


def test_an_exception_puts_the_methods_back():
    methods = keras.Operation.symbolic_call, layers.Layer.symbolic_call
    model = Raising(RuntimeError("no"))
    model(np.ones((1, 4)))
    model.armed = True
    (site,) = iter_kernels(model)
    assert site.fans.fan_in == 4
    assert site.note
    model.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        list(iter_kernels(model))
    assert (keras.Operation.symbolic_call, layers.Layer.symbolic_call) == methods


def test_another_thread_may_build_models_meanwhile():
    inside, built, failures = threading.Event(), threading.Event(), []

    class Waiting(layers.Layer):
        def call(self, x):
            if threading.current_thread() is not main or not inside.armed:
                return x
            inside.set()
            assert built.wait(20)
            return x

    def build():
        try:
            assert inside.wait(20)
            inputs = layers.Input((3,))
            other = keras.Model(inputs, ops.relu(layers.Dense(2, name="other")(inputs)))
            assert [type(layer).__name__ for layer in other.layers][:2] == ["InputLayer", "Dense"]
        except BaseException as error:
            failures.append(error)
        finally:
            built.set()

    main, inside.armed = threading.current_thread(), False
    inputs = layers.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(Waiting()(inputs)))
    inside.armed = True
    thread = threading.Thread(target=build)
    thread.start()
    found = list(iter_kernels(model))
    thread.join()
    assert not failures
    assert len(found) == 1


class Foreign(layers.Layer):
    """Computes with NumPy, as no symbolic input allows."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4, name="inner")

    def build(self, shape):
        self.dense.build(shape)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)

    def call(self, x):
        return self.dense(ops.convert_to_tensor(np.asarray(ops.convert_to_numpy(x)) ** 2))


def test_layers_that_cannot_run_on_symbols_are_opaque():
    foreign = Foreign()
    model = keras.Sequential([layers.Dense(4, "relu", name="first"), foreign, layers.Dense(2, name="last")])
    for layer in model.layers:
        layer.build((None, 4))
    model.build((None, 4))
    found = {site.path.rpartition("/")[2]: site for site in iter_kernels(model)}
    assert "did not see into" in found["inner"].note
    assert found["inner"].fans.fan_in == 4
    assert "not known" in found["last"].note
    assert found["first"].note == ""


def test_lambdas_are_seen_through():
    inputs = layers.Input((4,))
    x = layers.Lambda(lambda x: ops.relu(x))(layers.Dense(4)(inputs))
    *_, last = iter_kernels(keras.Model(inputs, layers.Dense(2)(x)))
    assert last.activation == "relu"


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = (layers.Dense(4, name=n) for n in ("left", "right", "head"))

    def call(self, first, second):
        return self.head(ops.relu(self.left(first) + self.right(second)))


class Listed(Two):
    def call(self, inputs):
        return super().call(inputs[0], inputs[1])


class Named(Two):
    def call(self, inputs):
        return super().call(inputs["a"], inputs["b"])


@pytest.mark.parametrize("build", [Listed, Named])
def test_subclassed_models_with_several_inputs(build):
    model, inputs = build(), [np.ones((2, 3)), np.ones((2, 5))]
    model(inputs if build is Listed else dict(zip("ab", inputs, strict=True)))
    depths = {site.path: (site.depth, site.activation) for site in iter_kernels(model)}
    assert depths == {"left": (0, None), "right": (0, None), "head": (1, "relu")}


def test_positional_inputs_of_which_keras_keeps_one_shape_are_noted():
    model = Two()
    model(np.ones((2, 3)), np.ones((2, 5)))
    assert all("was not traced" in site.note for site in iter_kernels(model))


def test_free_axes_and_integer_inputs():
    tokens = layers.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.Dense(2)(layers.Conv1D(3, 5, activation="relu")(x)))
    assert [site.depth for site in iter_kernels(model)] == [0, 1, 2]
    image = layers.Input((None, None, 3))
    model = keras.Model(image, layers.Conv2D(3, 3)(layers.Conv2D(3, 3, strides=2, activation="relu")(image)))
    assert [site.activation for site in iter_kernels(model)] == [None, "relu"]


def test_models_that_are_not_built_say_so():
    model = keras.Sequential([layers.Dense(3)])
    assert list(iter_kernels(model)) == []
    model = Two()
    model.left.build((None, 4))
    (site,) = iter_kernels(model)
    assert "not built" in site.note
