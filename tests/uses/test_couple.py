import keras
import pytest
from keras import layers, ops

from keras_initx.walk import coupled


def told(model):
    coupling, failure = coupled(model)
    assert failure == ""
    return coupling


def build(function, *shape):
    entry = layers.Input(shape)
    return keras.Model(entry, function(entry))


def test_outputs_of_a_layer_are_the_inputs_of_the_next():
    one, two = layers.Dense(5), layers.Dense(5)
    coupling = told(build(lambda x: two(ops.relu(one(x))), 4))
    (inputs, made), (taken, outputs) = (coupling.units(layer.kernel) for layer in (one, two))
    assert made.key == taken.key == coupling.units(one.bias)[0].key
    assert len({inputs.key, made.key, outputs.key}) == 3
    assert "input" in inputs.marks
    assert "output" in outputs.marks


def test_a_residual_sum_makes_units_the_same():
    one, two, norm = layers.Dense(5), layers.Dense(5), layers.LayerNormalization()

    def body(x):
        x = one(x)
        return x + two(norm(x))

    coupling = told(build(body, 4))
    made = coupling.units(one.kernel)[1]
    assert made.key == coupling.units(two.kernel)[1].key == coupling.units(norm.gamma)[0].key
    assert "averaged" in made.marks
    assert not made.across


def test_a_concatenation_and_a_flatten():
    one, two, head = layers.Conv2D(3, 1), layers.Conv2D(5, 1), layers.Dense(2)
    coupling = told(build(lambda x: head(layers.Flatten()(layers.Concatenate()([one(x), two(x)]))), 4, 6, 2))
    inputs = coupling.units(head.kernel)[0]
    assert inputs.how == "product"
    assert [units.size for units in inputs.of] == [4, 6, 8]
    side = inputs.of[-1]
    assert side.how == "parts"
    assert [units.key for units in side.of] == [coupling.units(layer.kernel)[3].key for layer in (one, two)]


def test_heads_are_a_product():
    split, out = layers.Dense(12), layers.Dense(5)

    def body(x):
        heads = ops.reshape(split(x), (-1, 7, 3, 4))
        return out(ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, 3, 28)))

    coupling = told(build(body, 7, 5))
    made, taken = coupling.units(split.kernel)[1], coupling.units(out.kernel)[0]
    assert [units.size for units in made.of] == [3, 4]
    assert [units.size for units in taken.of] == [7, 4]
    assert made.of[1].key == taken.of[1].key


def test_units_stay_where_tensors_are_stacked_and_taken_apart():
    class Apart(layers.Layer):
        def call(self, x):
            first, second, third = ops.unstack(x, axis=1)
            return ops.stack([third, first + second], axis=1)

    one, two = layers.Dense(7), layers.Dense(4)
    entry = layers.Input((3, 5))
    coupling = told(keras.Model(entry, two(Apart()(one(entry)))))
    assert coupling.units(one.kernel)[1].key == coupling.units(two.kernel)[0].key
    assert "output" in coupling.units(two.kernel)[1].marks


def test_rows_of_words_and_of_positions():
    words, positions = layers.Embedding(11, 5), layers.Embedding(7, 5)

    class Placed(layers.Layer):
        def build(self, _):
            self.positions = positions
            positions.build()

        def call(self, x):
            return x + self.positions(ops.arange(7))

    entry = layers.Input((7,), dtype="int32")
    coupling = told(keras.Model(entry, Placed()(words(entry))))
    assert "rows" in coupling.units(words.embeddings)[0].marks
    assert "positions" in coupling.units(positions.embeddings)[0].marks
    assert coupling.units(words.embeddings)[1].key == coupling.units(positions.embeddings)[1].key


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_loop_takes_the_units_of_its_input(layer):
    one, two, loop = layers.Dense(3), layers.Dense(5), layer(4)
    coupling = told(build(lambda x: loop(layers.Concatenate()([one(x), two(x)])), 6, 2))
    inputs = coupling.units(loop.cell.kernel)[0]
    assert [units.key for units in inputs.of] == [coupling.units(dense.kernel)[1].key for dense in (one, two)]


@pytest.mark.parametrize(
    ("function", "across", "averaged"),
    [
        (lambda x: ops.mean(x, axis=-1), False, True),
        (lambda x: ops.max(x, axis=-1), False, True),
        (lambda x: ops.var(x, axis=-1), False, True),
        (lambda x: ops.sum(x, axis=-1), True, False),
        (lambda x: ops.softmax(x, axis=-1), True, None),
        (lambda x: ops.cumsum(x, axis=-1), True, None),
        (lambda x: ops.gelu(x), False, False),
        (lambda x: ops.mean(x, axis=1), False, False),
        (lambda x: x[..., :2], True, False),
        (lambda x: x * ops.arange(5, dtype="float32"), True, False),
        (lambda x: x * ops.ones(5), False, False),
        (lambda x: 3.0 * x, False, False),
    ],
)
def test_operations_that_take_all_units_together(function, across, averaged):
    dense = layers.Dense(5)
    units = told(build(lambda x: function(dense(x)), 6, 4)).units(dense.kernel)[1]
    assert bool(units.across) == across
    assert averaged is None or ("averaged" in units.marks) == averaged


def test_the_numbers_that_units_are_multiplied_by():
    dense = layers.Dense(5)
    units = told(build(lambda x: dense(x) * 3.5, 4)).units(dense.kernel)[1]
    assert units.numbers == {3.5}


def test_a_model_that_does_not_run_tells_nothing():
    class Broken(layers.Layer):
        def build(self, _):
            self.w = self.add_weight(shape=(3, 2))

        def call(self, x):
            raise RuntimeError("no")

    layer = Broken()
    layer.build((None, 3))
    layer.built = True
    coupling, failure = coupled(layer)
    assert failure != ""
    assert [units.size for units in coupling.units(layer.w)] == [3, 2]
