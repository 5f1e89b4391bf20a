import keras
import pytest
from keras import layers

from keras_initx.callbacks._depth import number_layers


def tags(model):
    return [tag for numbered in number_layers(model) for tag in numbered.weights]


def test_layers_are_numbered_as_they_run_not_as_they_were_made():
    last, first = layers.Dense(1, name="last"), layers.Dense(3, use_bias=False, name="first")

    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="root")
            self.last, self.first = last, first
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, inputs):
            return self.last(self.first(inputs)) * self.scale

    model = Model()
    model(keras.ops.ones((2, 4)))
    assert tags(model) == ["0_scale", "1_first/kernel", "2_last/kernel", "2_last/bias"]


def test_numbers_are_as_wide_as_the_greatest():
    model = keras.Sequential([layers.Input((2,))] + [layers.Dense(2, name=f"d{n}") for n in range(11)])
    assert [numbered.tag for numbered in number_layers(model)] == [f"{n:02d}_d{n}" for n in range(11)]


def test_all_weights_have_a_tag_of_their_own():
    class Twice(layers.Layer):
        def build(self, shape):
            self.one = self.add_weight(shape=(2, 2), name="w")
            self.two = self.add_weight(shape=(2, 2), name="w")

        def call(self, inputs):
            return inputs @ self.one @ self.two

    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.SpectralNormalization(layers.Dense(2, name="dense"), name="spectral"),
            Twice(name="twice"),
            layers.Dense(1, name="head"),
        ]
    )
    assert [tag.removesuffix("_1") for tag in tags(model)] == [
        "0_spectral/vector_u",
        "1_spectral/dense/kernel",
        "1_spectral/dense/bias",
        "2_twice/w",
        "2_twice/w_2",
        "3_head/kernel",
        "3_head/bias",
    ]
    owned = {id(v) for numbered in number_layers(model) for v in numbered.weights.values()}
    assert owned == {id(variable) for variable in model.weights}


@pytest.mark.parametrize(
    "wrapper", [layers.LSTM, lambda n, name: layers.Bidirectional(layers.GRU(n), name=name)]
)
def test_a_recurrent_layer_is_shown_in_place_of_its_cell(wrapper):
    model = keras.Sequential([layers.Input((5, 2)), wrapper(3, name="loop")])
    assert [numbered.tag for numbered in number_layers(model) if numbered.is_shown] == ["0_loop"]


def test_a_model_that_cannot_be_traced_keeps_the_order_in_which_keras_lists_it():
    class Data(layers.Layer):
        def call(self, inputs):
            return inputs if keras.ops.convert_to_numpy(inputs).any() else -inputs

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.data, self.two = layers.Dense(2, name="one"), Data(), layers.Dense(1, name="two")

        def call(self, inputs):
            return self.two(self.data(self.one(inputs)))

    model = Model()
    model(keras.ops.ones((2, 4)))
    assert [numbered.tag for numbered in number_layers(model) if numbered.is_shown] == ["0_one", "1_two"]
