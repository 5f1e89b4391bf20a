import keras
import numpy as np
import pytest
from keras import layers

from keras_initx.data import Weighted, split_weights, take_pair

ONE = keras.Sequential([layers.Input((3,), name="x"), layers.Dense(2)])


def take_batch(model, data, samples, seed=None, drawn=()):
    return take_pair(model, data, samples, seed=seed, drawn=drawn)[0]


def two_inputs(as_dict=False):
    a, b = layers.Input((3,), name="a"), layers.Input((5,), name="b")
    outputs = layers.Dense(2)(layers.Concatenate()([a, b]))
    return keras.Model({"a": a, "b": b} if as_dict else [a, b], outputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def rows(count, width=3):
    return np.arange(count * width, dtype="float32").reshape(count, width)


def test_array_is_cut_to_its_first_rows():
    np.testing.assert_array_equal(take_batch(ONE, rows(10), 4), rows(4))
    np.testing.assert_array_equal(take_batch(ONE, rows(3), 4), rows(3))


@pytest.mark.parametrize("data", [rows(4).tolist(), keras.ops.convert_to_tensor(rows(4))])
def test_nested_lists_and_tensors_are_arrays(data):
    np.testing.assert_array_equal(take_batch(ONE, data, 4), rows(4))


@pytest.mark.parametrize("model", [ONE, Subclassed()])
@pytest.mark.parametrize("extra", [1, 2])
def test_targets_and_sample_weights_are_left_out(model, extra):
    data = (rows(6), *[np.zeros(6)] * extra)
    np.testing.assert_array_equal(take_batch(model, data, 4), rows(4))


@pytest.mark.parametrize("make", [tuple, list])
def test_several_inputs_come_as_tuple_or_list(make):
    batch = take_batch(two_inputs(), make([rows(6), rows(6, 5)]), 4)
    assert [leaf.shape for leaf in batch] == [(4, 3), (4, 5)]
    batch = take_batch(two_inputs(), ([rows(6), rows(6, 5)], np.zeros(6)), 4)
    assert [leaf.shape for leaf in batch] == [(4, 3), (4, 5)]


@pytest.mark.parametrize("as_dict", [True, False])
def test_dict_is_matched_by_input_name(as_dict):
    batch = take_batch(two_inputs(as_dict), {"b": rows(6, 5), "a": rows(6), "label": rows(6, 1)}, 4)
    leaves = [batch["a"], batch["b"]] if as_dict else batch
    assert [leaf.shape for leaf in leaves] == [(4, 3), (4, 5)]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return rows(12)[4 * index : 4 * index + 4], np.zeros(4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (rows(12)[i : i + 4] for i in range(0, 12, 4)),
        lambda: ((rows(12)[i : i + 4], np.zeros(4)) for i in range(0, 12, 4)),
        lambda: iter([rows(12)]),
        Batches,
    ],
)
def test_batches_are_joined_until_there_are_enough_rows(make):
    np.testing.assert_array_equal(take_batch(ONE, make(), 10), rows(10))


def test_no_more_batches_are_drawn_than_needed():
    def endless():
        while True:
            yield rows(4)

    assert take_batch(ONE, endless(), 10).shape == (10, 3)


def test_tf_data_is_an_iterable_of_batches():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((rows(12), np.zeros(12))).batch(5)
    np.testing.assert_array_equal(take_batch(ONE, data, 8), rows(8))


def test_none_is_unit_gaussian_input_and_repeats_for_a_seed():
    batch = take_batch(two_inputs(), None, 2000, seed=1)
    assert [leaf.shape for leaf in batch] == [(2000, 3), (2000, 5)]
    assert abs(batch[1].var() - 1) < 4 * np.sqrt(2 / 10_000)
    np.testing.assert_array_equal(batch[0], take_batch(two_inputs(), None, 2000, seed=1)[0])


def test_none_is_integers_below_their_limits_and_ones_for_all_others():
    inputs = [layers.Input((None,), dtype="int32"), layers.Input((4,), dtype="bool")]
    model = keras.Model(inputs, inputs)
    tokens, mask = take_batch(model, None, 100, 1, [((2, 9), 5)])
    assert tokens.shape == (100, 9)
    assert take_batch(model, None, 3)[0].shape == (3, 32)
    assert np.unique(tokens).tolist() == [0, 1, 2, 3, 4]
    assert mask.dtype == bool
    assert mask.all()


@pytest.mark.parametrize(
    "model", [Subclassed(), keras.Model(x := layers.Input((1,), dtype="string"), layers.Identity()(x))]
)
def test_none_needs_known_inputs_of_numbers(model):
    with pytest.raises(
        ValueError, match="`data` must be given unless the model is functional or Sequential .* Pass a batch"
    ):
        take_batch(model, None, 8)


@pytest.mark.parametrize("samples", [0, -1, 2.0, True, "8"])
def test_samples_must_be_a_positive_int(samples):
    with pytest.raises(ValueError, match="`samples` must be an int of at least 1. Received: samples="):
        take_batch(ONE, rows(4), samples)


@pytest.mark.parametrize("empty", [rows(0), [], {}, (), iter([]), iter([rows(0)])])
def test_empty_data_is_refused(empty):
    with pytest.raises(ValueError, match="`data` must"):
        take_batch(ONE, empty, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_counted(bad):
    data = rows(4)
    data[1, 1] = data[2, 0] = bad
    with pytest.raises(ValueError, match=r"`data` must be finite. Received: .*\(4, 3\) with 2 NaN or Inf"):
        take_batch(ONE, data, 8)


@pytest.mark.parametrize(
    ("model", "data", "why"),
    [
        (ONE, rows(4, 5), r"`x` takes the shape \(None, 3\)"),
        (ONE, np.zeros((4, 3, 1)), r"`x` takes the shape \(None, 3\)"),
        (ONE, np.array([["a", "b", "c"]]), "`x` takes the dtype float32"),
        (ONE, [rows(4), rows(4)], "takes 1 arrays, not 2"),
        (ONE, {"y": rows(4)}, r"the data lacks \['x'\]"),
        (two_inputs(), rows(4), "takes 2 arrays, not 1"),
        (two_inputs(), [rows(4), rows(4)], r"`b` takes the shape \(None, 5\)"),
        (two_inputs(True), {"a": rows(4)}, r"the data lacks \['b'\]"),
        (two_inputs(True), [rows(4), rows(4, 5)], "the model takes a dict"),
    ],
)
def test_data_that_does_not_fit_the_inputs_is_refused(model, data, why):
    with pytest.raises(ValueError, match=f"`data` must have the structure .*{why}.* Received: "):
        take_batch(model, data, 8)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="the same number of rows in each of its arrays"):
        take_batch(two_inputs(), [rows(4), rows(6, 5)], 8)


@pytest.mark.parametrize("kind", ["complex64", "datetime64[s]"])
def test_what_is_neither_number_nor_string_is_refused(kind):
    with pytest.raises(ValueError, match="`data` must hold real numbers or strings. Received: dtype="):
        take_batch(ONE, np.zeros((4, 3), kind), 8)


@pytest.mark.parametrize(
    "nothing", [range(5), {1, 2}, (None for _ in range(2)), 7, "text", np.float32(3), {"x": 3}, [None]]
)
def test_things_that_hold_no_batches_are_refused(nothing):
    with pytest.raises(ValueError, match="`data` must"):
        take_batch(ONE, nothing, 8)


def test_targets_come_with_pairs_or_apart():
    x, y = rows(9), np.arange(9)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    for data, expected in (
        ((x, y), y),
        ((x, y, None), y),
        (iter(batches), y[:6]),
        (map(list, batches), y[:6]),
        (x, None),
        (iter([x]), None),
    ):
        batch, targets = take_pair(ONE, data, 6)
        np.testing.assert_array_equal(keras.tree.flatten(batch)[0], x[:6])
        np.testing.assert_array_equal(targets, expected)
    _, targets = take_pair(ONE, (x, y), 6, targets={"a": -y})
    np.testing.assert_array_equal(targets["a"], -y)


def test_sample_weights_come_with_triples():
    x, y, weights = rows(9), np.arange(9), np.linspace(0, 1, 9)
    batches = [(x[:4], y[:4], weights[:4]), (x[4:], y[4:], weights[4:])]
    for data, size in (((x, y, weights), 9), (iter(batches), 6), (map(list, batches), 6)):
        _, found = take_pair(ONE, data, 6)
        assert isinstance(found, Weighted)
        labels, shares = split_weights(found)
        np.testing.assert_array_equal(labels, y[:size])
        np.testing.assert_array_equal(shares, weights[:size])
    _, found = take_pair(ONE, (x, y, weights), 6, targets=-y)
    np.testing.assert_array_equal(found.targets, -y)
    np.testing.assert_array_equal(found.weights, weights)
    for without in ((x, None), (x, None, None), (x, None, weights)):
        assert take_pair(ONE, without, 6)[1] is None


def test_a_torch_data_loader_brings_its_targets():
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.ones(10, 3), torch.arange(10))
    batch, targets = take_pair(ONE, torch.utils.data.DataLoader(pairs, batch_size=4), 6)
    assert keras.tree.flatten(batch)[0].shape == (6, 3)
    np.testing.assert_array_equal(targets, np.arange(6))


@pytest.mark.parametrize("targets", [[], (), {}, [0, 1], [[0], [1, 2], [3, 4], [5, 6]]])
def test_targets_that_are_too_few_or_of_no_shape_are_refused(targets):
    with pytest.raises(ValueError, match="`targets` must hold"):
        take_pair(ONE, rows(4), 4, targets)


def test_targets_may_be_a_list_of_numbers_as_data_may():
    np.testing.assert_array_equal(take_pair(ONE, rows(4), 4, [3, 1, 0, 2])[1], [3, 1, 0, 2])
    assert take_pair(ONE, rows(4), 4, [[3, 1], [0, 2], [0, 0], [1, 1]])[1].shape == (4, 2)
    partial = take_pair(ONE, rows(4), 4, [np.arange(4), None])[1]
    assert partial[1] is None


def test_a_batch_has_the_size_that_the_model_was_built_with():
    inputs = keras.layers.Input(batch_shape=(16, 3))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    assert take_batch(model, None, 256).shape == (16, 3)
    assert take_batch(model, rows(20), 16).shape == (16, 3)
    for samples, given in ((256, 20), (8, 20), (16, 12)):
        with pytest.raises(ValueError, match="`samples` must be 16.*Pass samples=16"):
            take_batch(model, rows(given), samples)
