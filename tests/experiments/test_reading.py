"""What `fit` gets in a trial: all batches, in each epoch, in an order that the seed decides."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_initx.experiments import Sequential, compare
from keras_initx.experiments._reading import Counted, is_read_once, varies

QUIET = Sequential(progress=False)
ROWS, SIZE = 300, 60  # more than the 256 that the diagnosis sees
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
Y = np.arange(ROWS, dtype="float32")[:, None] / ROWS
HELD_OUT = X[:40], Y[:40]
with_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow"
)
with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


def seen(targets, outputs):
    return targets


def build():
    model = keras.Sequential([keras.layers.Input((3,), name="x"), keras.layers.Dense(1)])
    eagerly = keras.backend.backend() == "tensorflow"  # which is faster for a few steps
    model.compile(keras.optimizers.SGD(0.2), "mse", metrics=[seen], run_eagerly=eagerly)
    return model


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return ROWS // SIZE

    def __getitem__(self, index):
        return X[index * SIZE : (index + 1) * SIZE], Y[index * SIZE : (index + 1) * SIZE]


def generator():
    yield from (Batches()[index] for index in range(len(Batches())))


class Iterable:
    def __iter__(self):
        return generator()


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y))


def loader(**options):
    import torch

    rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(rows, SIZE, **options)


KINDS = {
    "arrays": lambda: (X, Y),
    "dict": lambda: ({"x": X}, Y),
    "PyDataset": Batches,
    "generator function": lambda: generator,
    "function of a generator": lambda: lambda: (batch for batch in generator()),
    "function of a PyDataset": lambda: Batches,
    "iterable": Iterable,
    "tf.data": pytest.param(lambda: dataset().shuffle(50).batch(SIZE), marks=with_tensorflow),
    "DataLoader": pytest.param(lambda: loader(shuffle=True), marks=with_torch),
}


class Count(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(batch)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_fit_gets_every_row_in_each_epoch_of_each_trial(make):
    """The mean of the targets that training saw is that of all rows, or some were left out or came twice."""
    steps = []
    found = compare(
        build,
        {"one": "zeros", "other": "zeros"},
        make(),
        HELD_OUT,
        seeds=1,
        epochs=2,
        batch_size=SIZE,
        runner=QUIET,
        callbacks=lambda trial: [Count(steps)],
    )
    assert len(steps) == 2 * 2 * (ROWS // SIZE)
    for result in found.results:
        assert not result.failure
        np.testing.assert_allclose(result.curves["seen"], [Y.mean()] * 2, rtol=1e-5)
        assert not result.notes
    # Losses depend on the order of the batches: equal ones are the same batches.
    one, other = (result.curves for result in found.results)
    assert one == other


@pytest.mark.tensorflow  # its code is the same on each backend
def test_validation_and_test_data_of_an_iterator_are_whole_too():
    found = compare(build, ["zeros"], (X, Y), generator, test=generator, seeds=1, epochs=2, runner=QUIET)
    result = found.results[0]
    np.testing.assert_allclose(result.curves["val_seen"], [Y.mean()] * 2, rtol=1e-5)
    assert result.test == pytest.approx(result.curves["val_loss"][-1], rel=1e-5)


@with_tensorflow
def test_shuffles_of_tf_data_begin_anew_for_each_trial():
    """A shuffle goes on where the trial before it left it, with a seed or without."""
    for make in (
        lambda: dataset().shuffle(ROWS).batch(SIZE),
        lambda: dataset().shuffle(ROWS, seed=5).batch(SIZE).prefetch(2),
        lambda: lambda: dataset().shuffle(ROWS).batch(SIZE),
    ):
        initializers = {"one": "zeros", "other": "zeros", "third": "zeros"}
        found = compare(build, initializers, make(), HELD_OUT, seeds=1, epochs=2, runner=QUIET)
        curves = [result.curves["loss"] for result in found.results]
        assert curves[0] == curves[1] == curves[2]
        assert not any(result.notes for result in found.results)


@with_tensorflow
def test_data_whose_order_cannot_be_repeated_is_told_and_the_cure_cures():
    import tensorflow as tf

    def nested():  # the state of a shuffle inside of a function cannot be saved
        starts = tf.data.Dataset.range(ROWS // SIZE)
        rows = starts.interleave(lambda start: dataset().skip(start * SIZE).take(SIZE).shuffle(SIZE))
        return rows.batch(SIZE)

    tf.random.set_seed(None)  # as in a program that seeds nothing
    with pytest.warns(UserWarning, match="`train` has other batches each time"):
        found = compare(build, ["zeros"], nested(), HELD_OUT, seeds=1, runner=QUIET)
    assert "Pass a function that makes the data" in str(found)
    assert found.results[0].notes
    # the cure
    found = compare(build, {"one": "zeros", "other": "zeros"}, nested, HELD_OUT, seeds=1, runner=QUIET)
    assert not any(result.notes for result in found.results)
    assert found.results[0].curves == found.results[1].curves


class Permuted(Batches):
    """It goes on with its own generator, whatever is seeded."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.on_epoch_end()

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self))

    def __getitem__(self, index):
        return super().__getitem__(self.order[index])


def test_two_readings_of_one_seed_are_compared():
    permuted = Permuted()
    assert varies(lambda: permuted)
    assert not varies(Permuted)
    assert not varies(Batches)
    assert varies(lambda: (np.random.normal(size=3) for _ in range(3)))  # noqa: NPY002
    assert not varies(lambda: iter([(np.array([np.nan]), np.array(["text"]))]))
    rng = np.random.default_rng(0)
    assert varies(lambda: iter(rng.normal(size=(3, 3))))


def test_what_fit_reads_once_is_told_from_what_it_reads_anew():
    assert is_read_once(generator())
    assert is_read_once(Iterable())
    assert not is_read_once(Batches())
    assert not is_read_once((X, Y))
    assert not is_read_once(X)


def test_batches_of_an_iterator_are_counted_and_opened_for_each_epoch():
    opened = []

    def rows():
        opened.append(None)
        return iter([[0], [1], [2]])

    batches = Counted(rows)
    assert len(batches) == 3
    asked = [0, 1, 0, 1, 2, 0, 1, 2, 2]  # Keras looks at the first ones, and at others again
    assert [batches[index][0] for index in asked] == asked
    assert len(opened) == 5
    with pytest.raises(
        ValueError, match=r"the same number of batches each time they are read. Received: 3 batches, where"
    ):
        Counted(rows, 4)[3]


@pytest.mark.tensorflow  # its code is the same on each backend
@pytest.mark.parametrize("make", [generator, lambda: [generator()] * 2], ids=["iterator", "same iterator"])
def test_data_that_only_the_first_trial_could_read_are_refused(make):
    data = make()
    train = data if not isinstance(data, list) else (lambda: data[0])
    with pytest.raises(ValueError, match=r"`train` must be data that each trial can read from the start"):
        compare(build, ["zeros"], train, HELD_OUT, seeds=1, runner=QUIET)
    # the cure: the function that makes it
    assert compare(build, ["zeros"], generator, HELD_OUT, seeds=1, runner=QUIET).results[0].ended_well
