"""What the report says is what a probe from outside reads in the finished model, or the row says why not."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from support.outside_probe import assert_reported, outside_stds


class Transposed(layers.Layer):
    """A decoder that multiplies with the transposed kernel of an encoder's layer."""

    def __init__(self, dense, **options):
        super().__init__(**options)
        self.dense = dense

    def call(self, inputs):
        return ops.relu(ops.matmul(inputs, ops.transpose(self.dense.kernel)))


class Borrowed(layers.Dense):
    """A dense layer on the kernel of another one."""

    def __init__(self, lender, units, **options):
        super().__init__(units, **options)
        self.lend = lambda: lender.kernel

    def build(self, shape):
        self._kernel, self.built = self.lend(), True
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="random_normal")


class Logits(layers.Layer):
    """Multiplies with the table of an embedding."""

    def __init__(self, table, **options):
        super().__init__(**options)
        self.table = table

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.table.embeddings))


class Standardized(layers.Conv2D):
    """Weight standardization in the operation that Keras' `call` leaves the convolution to."""

    def convolution_op(self, inputs, kernel):
        kernel = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, kernel / ops.std(kernel, axis=(0, 1, 2), keepdims=True))


class Normed(layers.Dense):
    """Columns of unit length, whatever the variable holds."""

    @property
    def kernel(self):
        return self._kernel / ops.norm(self._kernel, axis=0, keepdims=True)


class Circular(layers.Conv2D):
    """A convolution of its own that is linear in its kernel all the same."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(ops.concatenate([inputs, inputs[:, :2]], axis=1), kernel)


class Centering(layers.Wrapper):
    """Subtracts the mean from the kernel of what it wraps in each training call."""

    def call(self, inputs, training=False):
        if training:
            kernel = self.layer.kernel
            kernel.assign(kernel - ops.mean(kernel, axis=0, keepdims=True))
        return self.layer(inputs)


IMAGES = (6, 5, 2)


def sequential(shape, *found):
    return keras.Sequential([layers.Input(shape), *found, layers.Dense(3, name="head")])


def autoencoder():
    one, two = layers.Dense(8, "relu", name="one"), layers.Dense(4, "relu", name="two")
    x = inputs = layers.Input((12,))
    x = Transposed(one, name="last")(Transposed(two, name="first")(two(one(x))))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def lent():
    lender = layers.Dense(12, "relu", bias_initializer="random_normal", name="lender")
    x = inputs = layers.Input((12,))
    x = Borrowed(lender, 12, activation="relu", name="borrower")(lender(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def logits():
    table = layers.Embedding(20, 6, name="table")
    x = inputs = layers.Input((12,), dtype="int32")
    x = layers.Dense(6, "relu", name="one")(table(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(Logits(table, name="logits")(x)))


def replaced():
    """A method of one layer alone is put in the place of its class'."""
    layer = layers.Conv2D(4, 3, name="replaced")
    plain = layer.convolution_op
    layer.convolution_op = lambda inputs, kernel: plain(inputs, ops.abs(kernel) + 1)
    return sequential(IMAGES, layer)


def penalized():
    """A model whose `call` reads a kernel for a loss."""

    class Penalized(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.head = layers.Dense(5, name="one"), layers.Dense(3, name="head")

        def call(self, inputs):
            x = self.one(inputs)
            return self.head(x) + ops.mean(self.one.kernel)

    model = Penalized()
    model(np.zeros((1, 12), "float32"))
    return model


READ = "reads its kernel, too: it fits its own layer alone"
SETS = "each training call sets its kernel anew"
MOVES = "the next training call moves what reaches it"
# The kernels with a note of each model, and how it begins or what it holds; all others meet the law.
PLANTED = {
    autoencoder: {"one": f"`last` {READ}", "two": f"`first` {READ}"},
    lent: {},
    logits: {"table/embeddings": "reads its table, too: left as it is"},
    replaced: {"replaced": "Conv2D has a `convolution_op` of its own, not linear"},
    penalized: {"one": READ},
    lambda: sequential(IMAGES, Standardized(4, 3, name="own")): {"own": "`convolution_op` of its own, not"},
    lambda: sequential((12,), Normed(4, name="own")): {"own": "Normed has a `kernel` of its own, not linear"},
    lambda: sequential(IMAGES, Circular(4, 3, name="own")): {},
    lambda: sequential((12,), Centering(layers.Dense(4, name="in"), name="c")): {"c/in": SETS, "head": MOVES},
}


def data_for(model, rng):
    (one,) = getattr(model, "inputs", None) or (keras.KerasTensor((None, 12)),)
    if one.dtype == "int32":
        return rng.integers(0, 20, size=(50, 12))
    shape = one.shape[1:]
    return rng.normal(1, 3, size=(50, *shape)).astype("float32")


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("build", PLANTED, ids=lambda build: build.__name__)
def test_what_is_planted_is_told_or_on_target(build, redraw, rng):
    model = build()
    x = data_for(model, rng)
    before = {site.path: ops.convert_to_numpy(site.kernel).copy() for site in initx.walk.iter_kernels(model)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = initx.calibrate(model, x, "initx>LSUV", redraw=redraw, seed=1, tolerance=1e-3)
    notes = {row.path: row.note for row in report.rows if row.note}
    assert notes.keys() == PLANTED[build].keys()
    assert all(part in notes[path] for path, part in PLANTED[build].items()), notes
    assert_reported(report, model, x)
    for row in report.rows:
        if row.iterations:
            assert row.std_after == pytest.approx(1, rel=2e-3), row
        else:
            kernel = next(s.kernel for s in initx.walk.iter_kernels(model) if s.path == row.path)
            np.testing.assert_array_equal(ops.convert_to_numpy(kernel), before[row.path])


def normalized():
    wrapped = (layers.Dense(n, "relu", name=name) for n, name in ((16, "a"), (12, "b")))
    model = sequential((8,), *(layers.SpectralNormalization(one, name=f"sn_{one.name}") for one in wrapped))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


@pytest.mark.parametrize("training", [False, True])
def test_what_a_training_call_sets_anew_is_left_and_said_so(training, rng):
    model, x = normalized(), rng.normal(0, 3, size=(64, 8)).astype("float32")
    before = [ops.convert_to_numpy(v).copy() for v in model.weights[:-2]]
    with pytest.warns(UserWarning, match="`sn_a/a`, `sn_b/b`: each training call sets its kernel anew"):
        report = initx.calibrate(model, x, training=training)
    for old, variable in zip(before, model.weights[:-2], strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)
    assert report.rows[-1].note.startswith(MOVES)
    if not training:
        assert_reported(report, model, x)


def test_the_cure_for_what_moves_is_a_few_training_calls(rng):
    model, x = normalized(), rng.normal(0, 3, size=(64, 8)).astype("float32")
    for _ in range(60):
        model(x, training=True)
    with pytest.warns(UserWarning, match="each training call sets its kernel anew"):
        report = initx.calibrate(model, x)
    assert report.rows[-1].note == ""
    model.fit(x, np.zeros((64, 3)), batch_size=64, verbose=0)  # at a rate of 0
    assert_reported(report, model, x, rel=2e-3)


def test_the_callback_says_it_too(rng):
    model, x = normalized(), rng.normal(0, 3, size=(64, 8)).astype("float32")
    callback = initx.callbacks.Calibrate(x)
    with pytest.warns(UserWarning, match="each training call sets its kernel anew"):
        model.fit(x, np.zeros((64, 3)), batch_size=64, verbose=0, callbacks=[callback])
    found = outside_stds(model, x)
    for row in callback.report.rows:
        assert row.note or row.std_after == pytest.approx(found[row.path], rel=1e-3)


@pytest.mark.parametrize(
    ("build", "passes"),
    [(lambda: sequential((12,), layers.Dense(5, "relu")), 1), (autoencoder, 3), (lent, None)],
)
def test_one_pass_where_all_is_keras_own_and_more_where_a_kernel_is_read_twice(build, passes, rng):
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = initx.calibrate(model, data_for(model, rng))
    assert report.forward_passes == passes if passes else report.forward_passes > 1


def test_a_kernel_of_two_layers_is_one_site_with_both_biases_scaled(rng):
    model, x = lent(), rng.normal(1, 3, size=(50, 12)).astype("float32")
    sites = list(initx.walk.iter_kernels(model))
    assert [site.path for site in sites] == ["lender", "head"]
    assert [one.path for one in sites[0].shared] == ["borrower"]
    biases = [ops.convert_to_numpy(model.get_layer(name).bias) for name in ("lender", "borrower")]
    (row, _) = initx.calibrate(model, x, tolerance=1e-3).rows
    for old, name in zip(biases, ("lender", "borrower"), strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(model.get_layer(name).bias), row.scale * old, rtol=1e-4
        )
    assert set(initx.probe.preactivation_std(model, x)) == {"lender", "borrower", "head"}


def test_a_law_that_cannot_be_met_by_passes_says_how_far_off_it_is(rng):
    """The layer's input shrinks as its kernel grows, so that no scale brings it nearer."""

    class Fed(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(6, use_bias=False, name="dense")

        def build(self, shape):
            self.dense.build(shape)

        def call(self, inputs):
            return self.dense(inputs / ops.sqrt(ops.mean(ops.square(self.dense.kernel))))

    model = sequential((6,), Fed(name="fed"))
    x = rng.normal(size=(50, 6)).astype("float32")
    with pytest.warns(UserWarning, match="`fed/dense`: .*% off the law, scaled 3 times: `fed` reads its"):
        report = initx.calibrate(model, x, max_iterations=2)
    assert_reported(report, model, x)


CONSTRAINTS = {
    "unit norm": keras.constraints.UnitNorm(),
    "not negative": keras.constraints.NonNeg(),
    "at most": keras.constraints.MaxNorm(0.1),
    "at most, and it is less": keras.constraints.MaxNorm(100),
    "a function": lambda kernel: 0.5 * kernel,
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("redraw", [False, True])
def test_a_kernel_that_its_constraint_sets_has_a_reason(name, redraw, rng):
    """A step of rate 0 changes what its row did not promise, and nothing else."""
    x, y = rng.normal(size=(64, 8)).astype("float32"), rng.normal(size=(64, 4)).astype("float32")
    hidden = layers.Dense(16, "relu", kernel_constraint=CONSTRAINTS[name], name="hidden")
    model = keras.Sequential([layers.Input((8,)), hidden, layers.Dense(4, name="head")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = initx.calibrate(model, x, redraw=redraw, seed=1)
    assert_reported(report, model, x)
    model.train_on_batch(x, y)
    after = outside_stds(model, x)
    for row in report.rows:
        kept = after[row.path] == pytest.approx(row.std_after, rel=1e-3)
        assert kept or "constraint" in row.note or "the next training step moves" in row.note
    assert bool(report.rows[0].note) is (name != "at most, and it is less")


def test_gates_that_a_constraint_sets_have_a_reason(rng):
    model = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4, recurrent_constraint="unit_norm")])
    before = model.get_weights()
    with pytest.warns(UserWarning, match="its constraint UnitNorm sets it anew after each training step"):
        report = initx.calibrate(model, rng.normal(size=(9, 5, 3)).astype("float32"))
    assert not report.calibrated
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("constraint", [None, "unit_norm"])
def test_a_drawn_kernel_that_its_constraint_will_change_is_told(constraint):
    layer = layers.Dense(16, kernel_constraint=constraint)
    report = initx.initialize(keras.Sequential([layers.Input((8,)), layer]), "by_role", seed=1)
    told = "its constraint UnitNorm changes it at the first training step"
    assert report.rows[0].note == (told if constraint else "")
