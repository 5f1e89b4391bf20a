"""LinearProbe and ClassMeans on real models: the right head, a true accuracy, and nothing else moved."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.linear_model import Ridge

import keras_initx as initx
import keras_initx.datasets
from keras_initx.calibration import _features, _processes
from keras_initx.initializers import ClassMeans, LinearProbe, _linear_probe

DIGITS = keras_initx.datasets.read_digits()
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
both_laws = pytest.mark.parametrize("law", [LinearProbe(), ClassMeans()])


def convnet(*head, shape=(8, 8, 1)):
    """A body with everything that a pass might move, and a head."""
    keras.utils.set_random_seed(1)
    body = [
        layers.Rescaling(1 / 16),
        layers.Conv2D(16, 3, activation="relu", name="stem"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Conv2D(24, 3, strides=2, activation="relu"),
        layers.Flatten(),
    ]
    return keras.Sequential([layers.Input(shape), *body, *head])


def dense(units=10, activation=None, **options):
    return layers.Dense(units, activation, name="head", **options)


def values(model):
    return [np.array(ops.convert_to_numpy(weight.value)) for weight in model.weights]


def changed(model, before):
    pairs = zip(model.weights, before, values(model), strict=True)
    return [weight.path for weight, old, new in pairs if not np.array_equal(old, new)]


def features_of(model, x):
    body = keras.Model(model.inputs, model.layers[-2].output)
    return body.predict(x, verbose=0).astype("float64")


def small(rows=60, fan_in=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    return (rng.normal(size=(classes, fan_in))[y] * 2 + rng.normal(size=(rows, fan_in))).astype("float32"), y


def linear(*head, fan_in=6):
    return keras.Sequential([layers.Input((fan_in,)), *head])


@both_laws
@pytest.mark.parametrize("shots", [5, 140])
def test_the_stated_accuracy_is_that_of_rows_that_the_head_has_not_seen(law, shots):
    x, y = (np.concatenate(parts) for parts in zip(DIGITS.train, DIGITS.test, strict=True))
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    stated, found, trials = [], [], 1 if shots > 100 else 3
    model = convnet(dense(activation="softmax"))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    for trial in range(trials):
        turned = np.roll(np.arange(len(x)), 600 * trial)
        chosen = np.concatenate([turned[y[turned] == digit][:shots] for digit in range(10)])
        rest = np.setdiff1d(turned, chosen)
        report = initx.calibrate(model, (x[chosen], y[chosen]), law, include="head")
        stated.append(report.rows[0].held_out)
        found.append(model.evaluate(x[rest], y[rest], verbose=0)[1])
    share, seen = np.mean(found), 10 * shots * trials
    error = np.sqrt(share * (1 - share) * (1 / seen + 1 / len(rest)))
    # A left-out answer is of a head with one example less: few examples state too little, never too much.
    few = 0.04 if shots == 5 else 0.0
    assert -few - 3 * error < np.mean(stated) - share < 3 * error
    assert f"held-out accuracy {stated[-1]:.2f} (chance 0.1" in report.rows[0].head
    assert report.rows[0].head in str(report)
    assert report.samples == 10 * shots


def test_the_kernel_is_scikit_learns_ridge_regression_times_one_number():
    x, y = DIGITS.train
    model = convnet(dense(activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    before = values(model)
    features = features_of(model, x)
    initx.calibrate(model, (x, y), LinearProbe(regularization=0.3), include="head")
    reference = Ridge(alpha=0.3).fit(features, np.eye(10)[y]).coef_.T
    kernel, bias = model.get_layer("head").get_weights()
    scale = np.vdot(kernel, reference) / np.vdot(reference, reference)
    np.testing.assert_allclose(kernel / scale, reference, atol=1e-5 * np.abs(reference).max())
    prior = np.log((np.bincount(y) + 1) / (len(y) + 10))
    np.testing.assert_allclose(bias, prior - features.mean(0) @ kernel, atol=1e-3)
    assert [path.split("/")[-2] for path in changed(model, before)] == ["head", "head"]


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        ([dense()], SPARSE),
        ([dense(), layers.Softmax()], None),
        ([dense(), layers.Activation("softmax", dtype="float32")], "sparse_categorical_crossentropy"),
        ([dense(), layers.Activation("log_softmax")], None),
        ([dense(), layers.Reshape((1, 10)), layers.Flatten()], SPARSE),
    ],
)
@pytest.mark.parametrize("one_hot", [False, True])
def test_every_form_of_head_for_classes_gets_the_same_weights(head, loss, one_hot):
    x, y = (part[:200] for part in DIGITS.train)
    wanted = convnet(dense(activation="softmax"))
    initx.calibrate(wanted, (x, y), "initx>LinearProbe")
    keras.utils.set_random_seed(1)
    model = convnet(*(type(layer).from_config(layer.get_config()) for layer in head))
    report = initx.calibrate(model, (x, np.eye(10)[y] if one_hot else y), "LinearProbe", loss=loss)
    for found, other in zip(
        model.get_layer("head").get_weights(), wanted.layers[-1].get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-4)
    assert [row.path for row in report.rows] == ["head"]
    assert report.rows[0].note == ""


def test_several_labels_at_once():
    x, y = (part[:400] for part in DIGITS.train)
    model = convnet(dense(4, "sigmoid"))
    model.compile(loss="binary_crossentropy", metrics=["binary_accuracy"])
    row = initx.calibrate(model, (x, (y[:, None] >> np.arange(4)) & 1), "LinearProbe").rows[0]
    found = model.evaluate(DIGITS.test[0], (DIGITS.test[1][:, None] >> np.arange(4)) & 1, verbose=0)[1]
    assert row.held_out == pytest.approx(found, abs=3 * np.sqrt(found * (1 - found) * (1 / 400 + 1 / 360)))


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans(center=True)])
@pytest.mark.parametrize("label", [np.asarray, lambda even: even[:, None].astype("float32")])
def test_one_sigmoid_unit_takes_bools_and_columns(law, label):
    x, y = (part[:200] for part in DIGITS.train)
    row = initx.calibrate(convnet(dense(1, "sigmoid")), (x, label(y % 2 == 0)), law).rows[0]
    assert row.held_out > 0.65
    assert row.note == ""


def test_numbers():
    x, y = (part[:200] for part in DIGITS.train)
    model = convnet(dense(2))
    numbers = np.stack([y, y**2], axis=1).astype("float32")
    features, kernel = features_of(model, x), model.get_layer("head")
    row = initx.calibrate(model, (x, numbers), LinearProbe(regularization=0.5), loss="mse").rows[0]
    assert "held-out R2 0." in row.head
    fitted = Ridge(alpha=0.5).fit(features, numbers)
    np.testing.assert_allclose(
        kernel.get_weights()[0], fitted.coef_.T, atol=1e-5 * np.abs(fitted.coef_).max()
    )
    np.testing.assert_allclose(kernel.get_weights()[1], fitted.intercept_, rtol=1e-4, atol=1e-3)
    assert row.std_after == pytest.approx(np.std(fitted.predict(features)), rel=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 1, name="head"),
        layers.Conv2D(4, 3, strides=2, padding="same", name="head"),
        layers.EinsumDense("abcd,de->abce", (6, 6, 4), bias_axes="e", name="head"),
        layers.Dense(4, name="head"),
    ],
)
def test_each_position_is_a_row_of_its_own(layer):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6, 6, 3)).astype("float32")
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential(
        [layers.Input((6, 6, 3)), layers.Conv2D(5, 3, padding="same", activation="relu"), layer]
    )
    side = model.output_shape[1]
    hidden = ops.convert_to_numpy(ops.stop_gradient(model.layers[0](x)))[:, :: 6 // side, :: 6 // side]
    y = (hidden @ rng.normal(size=(5, 4))).argmax(-1)
    row = initx.calibrate(model, (x, y), LinearProbe(regularization=1.0), loss=SPARSE).rows[0]
    assert (row.note, row.held_out > 0.6) == ("", True)
    right = model.predict(x, verbose=0).argmax(-1) == y
    assert right.mean() > 0.6
    if side == 6:
        reference = Ridge(alpha=1.0).fit(hidden.reshape(-1, 5), np.eye(4)[y.ravel()]).coef_.T
        kernel = layer.get_weights()[0].reshape(5, 4)
        assert np.corrcoef(kernel.ravel(), reference.ravel())[0, 1] > 0.999999


def test_the_head_of_a_subclassed_model_is_found_by_its_output():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.head = layers.Dense(8, "relu", name="first"), layers.Dense(3, name="head")

        def call(self, x):
            hidden = self.first(x)
            if (
                float(ops.convert_to_numpy(ops.max(ops.stop_gradient(hidden)))) < 0
            ):  # no trace sees through this
                raise AssertionError
            return ops.softmax(self.head(hidden))

    x, y = small()
    model = Own()
    model(x)
    with pytest.warns(UserWarning, match="no output of the model is its pre-activation"):
        report = initx.calibrate(model, (x, y), "LinearProbe")
    first, head = report.rows
    assert (first.path, first.iterations, first.note[:22]) == ("first", 0, "no output of the model")
    assert head.held_out > 0.8


@pytest.mark.parametrize("form", ["list", "dict", "named"])
def test_each_output_has_its_targets_weights_and_loss(form):
    x, y = small()
    inputs = layers.Input((6,))
    one = layers.Softmax(name="one")(layers.Dense(3, name="classes")(inputs))
    two = layers.Dense(1, name="two")(inputs)
    outputs = {"a": one, "b": two} if form == "named" else [one, two]
    model = keras.Model(inputs, outputs)
    numbers, weights = x[:, 0] + 2 * x[:, 3], np.linspace(0.5, 1.5, 60)
    names = ("a", "b") if form == "named" else ("one", "two")
    given = [(y, numbers), (weights, np.ones(60)), (None, "mse")]
    parts = [list(pair) if form == "list" else dict(zip(names, pair, strict=True)) for pair in given]
    report = initx.calibrate(model, (x, *parts[:2]), "LinearProbe", loss=parts[2])
    assert {row.path: row.note for row in report.rows} == {"classes": "", "two": ""}
    classes, two = (next(row for row in report.rows if row.path == path) for path in ("classes", "two"))
    assert "accuracy" in classes.head
    assert two.held_out > 0.99
    alone = keras.Model(inputs, one)
    initx.calibrate(alone, (x, y, weights), "LinearProbe")
    assert initx.calibrate(alone, (x, y, weights), "LinearProbe").rows[0].held_out == classes.held_out
    with pytest.raises(ValueError, match="`targets` must be a list with a part for each of 2 outputs"):
        initx.calibrate(model, (x, y), "LinearProbe")
    with pytest.raises(ValueError, match="`targets` must be a list .* for output"):
        initx.calibrate(model, x, "LinearProbe", targets={names[0]: y})


def pooled():
    inputs = layers.Input((4, 6))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(3, name="head")(inputs)))


def summed():
    inputs = layers.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="head")(inputs) + layers.Dense(3, name="other")(inputs))


def test_a_sum_of_two_heads_is_no_head():
    model = summed()
    with pytest.raises(ValueError, match="LinearProbe needs a head: a kernel that makes the model's output"):
        initx.calibrate(model, small(), "LinearProbe")


def bent():
    return linear(dense(3, "tanh"))


def shared():
    layer, inputs = dense(3), layers.Input((6,))
    return keras.Model(inputs, [layer(inputs), layer(2 * inputs)])


def adapted():
    model = linear(dense(3))
    model.layers[0].enable_lora(2)
    return model


def frozen():
    model = linear(dense(3))
    model.layers[0].trainable = False
    return model


@pytest.mark.parametrize(
    ("build", "note"),
    [
        (pooled, "no output of the model is its pre-activation"),
        (bent, "no output of the model is its pre-activation"),
        (shared, "its kernel is used 2 times: a head is used once"),
        (adapted, "LoRA is enabled"),
        (frozen, "frozen: left as it is"),
    ],
)
def test_a_kernel_that_is_no_head_stays_and_its_row_says_why(build, note):
    model = build()
    x, y = small()
    x = np.repeat(x[:, None], 4, axis=1) if build is pooled else x
    before = values(model)
    with pytest.warns(UserWarning, match="left as they are"):
        rows = initx.calibrate(model, (x, [y, y] if build is shared else y), "LinearProbe").rows
    assert rows[0].note.startswith(note)
    assert not any(row.head for row in rows)
    assert not changed(model, before)
    if build is frozen:
        assert initx.calibrate(model, (x, y), "LinearProbe", frozen=True, loss=SPARSE).rows[0].held_out > 0.8


def test_a_head_that_another_head_feeds_waits_for_a_second_call():
    inputs = layers.Input((6,))
    first = layers.Dense(3, name="first")(inputs)
    model = keras.Model(
        inputs, [first, layers.Dense(3, name="second")(layers.Concatenate()([inputs, first]))]
    )
    x, y = small()
    with pytest.warns(UserWarning, match="another head feeds it"):
        report = initx.calibrate(model, (x, [y, y]), "LinearProbe", loss=[SPARSE, SPARSE])
    assert {row.path: row.iterations for row in report.rows} == {"first": 1, "second": 0}
    report = initx.calibrate(model, (x, [y, y]), "LinearProbe", include="second", loss=[SPARSE, SPARSE])
    assert report.rows[0].held_out > 0.8


@pytest.mark.parametrize(
    ("activation", "loss", "cure"),
    [
        (None, "sparse_categorical_crossentropy", "True"),
        ("softmax", SPARSE, "False"),
        ("sigmoid", keras.losses.BinaryCrossentropy(from_logits=True), "False"),
    ],
)
def test_a_loss_that_takes_the_other_of_logits_and_probabilities_is_named(activation, loss, cure):
    x, y = small(classes=3 if activation != "sigmoid" else 2)
    model = linear(dense(1 if activation == "sigmoid" else 3, activation))
    model.compile(loss=loss)
    with pytest.warns(UserWarning, match=f"compile it with from_logits={cure}"):
        row = initx.calibrate(model, (x, y), "LinearProbe").rows[0]
    assert row.held_out > 0.8


class Pairs(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.x[25 * index : 25 * index + 25], self.y[25 * index : 25 * index + 25]


@both_laws
def test_every_form_of_data_gives_the_same_head(law):
    x, y = small(100)
    found = []
    forms = {
        "arrays": lambda: ((x, y), None),
        "apart": lambda: (x, y.tolist()),
        "batches": lambda: (iter([(x[:30], y[:30]), (x[30:], y[30:])]), None),
        "targets apart": lambda: (iter([x[:30], x[30:]]), y),
        "dataset": lambda: (Pairs(x, y), None),
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        forms["tf.data"] = lambda: (tf.data.Dataset.from_tensor_slices((x, y)).batch(32), None)
    for form in forms.values():
        model = linear(dense(3, "softmax"))
        data, targets = form()
        report = initx.calibrate(model, data, law, targets=targets)
        assert report.samples == 100
        found.append(model.get_weights())
    for weights in found[1:]:
        for one, other in zip(weights, found[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@both_laws
def test_more_rows_than_are_kept_count_all_the_same(law, monkeypatch):
    x, y = small(700)
    weights = np.random.default_rng(0).uniform(0.1, 2, 700)
    heads = []
    for rows in (20_000, 100):
        monkeypatch.setattr(_features, "_ROWS", rows)
        model = linear(dense(3, "softmax"))
        own = LinearProbe(regularization=2.0) if isinstance(law, LinearProbe) else law
        row = initx.calibrate(model, (x, y, weights), own).rows[0]
        heads.append((model.get_weights()[0].astype("float64"), row.held_out))
    (whole, accuracy), (sampled, held) = heads
    # The sample has another temperature, and the same directions.
    scale = np.vdot(whole, sampled) / np.vdot(whole, whole)
    np.testing.assert_allclose(sampled / scale, whole, atol=1e-4 * np.abs(whole).max())
    assert held == pytest.approx(accuracy, abs=3 * np.sqrt(accuracy * (1 - accuracy) / 100))


def test_samples_bounds_the_rows():
    x, y = small(300)
    model, few = linear(dense(3, "softmax")), linear(dense(3, "softmax"))
    assert initx.calibrate(model, (x, y), "LinearProbe", samples=40).samples == 40
    initx.calibrate(few, (x[:40], y[:40]), "LinearProbe")
    np.testing.assert_array_equal(model.get_weights()[0], few.get_weights()[0])


def test_batches_of_a_fixed_size_are_filled_up():
    x, y = small(70)
    model = keras.Sequential([layers.Input(batch_shape=(32, 6)), dense(3, "softmax")])
    free = linear(dense(3, "softmax"))
    assert initx.calibrate(model, (x, y), "LinearProbe").samples == 70
    initx.calibrate(free, (x, y), "LinearProbe")
    np.testing.assert_allclose(model.get_weights()[0], free.get_weights()[0], rtol=1e-4, atol=1e-5)


@pytest.mark.tensorflow
def test_data_without_end_is_refused():
    import tensorflow as tf

    x, y = small(20)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5).repeat()
    model = linear(dense(3, "softmax"))
    with pytest.raises(ValueError, match="`samples` must be given for data without end"):
        initx.calibrate(model, data, "LinearProbe")
    assert initx.calibrate(model, data, "LinearProbe", samples=18).samples == 18


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision(policy):
    x, y = small(200)
    head = layers.Dense(3, "softmax", name="head", dtype=policy)
    model = linear(layers.Dense(16, "relu", dtype=policy), head)
    row = initx.calibrate(model, (x, y), "LinearProbe").rows[0]
    assert row.note == ""
    assert (
        keras.backend.standardize_dtype(head.kernel.dtype) == keras.dtype_policies.get(policy).variable_dtype
    )
    right = model.predict(x, verbose=0).argmax(-1) == y
    assert right.mean() == pytest.approx(row.held_out, abs=0.06)


@both_laws
def test_a_head_without_a_bias(law):
    x, y = small(200)
    row = initx.calibrate(linear(dense(3, "softmax", use_bias=False)), (x, y), law).rows[0]
    assert row.head.endswith(", no bias")
    assert row.held_out > 0.8


@both_laws
def test_a_layer_names_the_law_as_its_own(law):
    x, y = small()
    model = linear(layers.Dense(8, "relu"), dense(3, "softmax", kernel_initializer=law))
    assert not model.get_layer("head").get_weights()[0].any()
    report = initx.calibrate(model, (x, y))
    assert [row.path for row in report.rows] == ["head"]
    assert report.rows[0].held_out > 0.7
    mixed = linear(layers.Dense(8, "relu", kernel_initializer="initx>LSUV"), dense(3, kernel_initializer=law))
    with pytest.raises(ValueError, match="a law that makes heads, beside .'LSUV'.. Call `calibrate` once"):
        initx.calibrate(mixed, (x, y))


@both_laws
def test_bad_input_changes_nothing(law):
    x, y = small()
    model = linear(layers.Dense(4), dense(3, "softmax"))
    before, name = values(model), type(law).__name__
    for message, arguments in (
        (f"`targets` must be given: {name} makes heads from them", (x,)),
        (f"`data` must be given: {name} makes heads", ()),
        ("`targets` must be whole numbers from 0 to 2", ((x, y + 1),)),
        ("`targets` must hold a row for each of the 60 rows", ((x, y[:30]),)),
        ("`data` must be finite", ((x * np.nan, y),)),
        ("`sample_weight` must be positive somewhere", ((x, y, np.zeros(60)),)),
    ):
        with pytest.raises(ValueError, match=message):
            initx.calibrate(model, *arguments, initializer=law)
    with pytest.raises(ValueError, match=f"{name} needs a head: .*Include its last layer"):
        initx.calibrate(model, (x, y), law, exclude="head")
    with pytest.raises(ValueError, match=rf'makes a head .*Call `calibrate\(model, \(x, y\), "{name}"\)`'):
        initx.initialize(model, law)
    assert not changed(model, before)


def test_a_loss_may_be_compiled_for_another_output_alone():
    x, y = small()
    inputs = layers.Input((6,))
    parts = [layers.Dense(3, "softmax", name="one")(inputs), layers.Dense(1, name="two")(inputs)]
    model = keras.Model(inputs, parts)
    model.compile(loss={"two": "mse"})
    targets = {"one": y, "two": x[:, 0]}
    assert all(row.held_out > 0.8 for row in initx.calibrate(model, (x, targets), "LinearProbe").rows)


@pytest.mark.tensorflow  # on JAX several processes are real
def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(_processes, "_several", lambda: True)
    model = linear(dense(3, "softmax"))
    with pytest.raises(
        ValueError, match="Received: LinearProbe. Calibrate and save the model in one process"
    ):
        initx.calibrate(model, small(), "LinearProbe", seed=1)


def test_many_classes_are_held_out_in_part(monkeypatch):
    monkeypatch.setattr(_linear_probe, "_HELD_SCORES", 2**16)
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(400), 2)
    x = (rng.normal(size=(400, 16))[y] + 0.5 * rng.normal(size=(800, 16))).astype("float32")
    model = linear(dense(400, "softmax"), fan_in=16)
    row = initx.calibrate(model, (x, y), ClassMeans()).rows[0]
    right = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    # 2^16 scores are less than 500 rows, the least number. A class is answered from its other example.
    assert 0.05 < row.held_out < right
    assert row.held_out * 500 == pytest.approx(round(row.held_out * 500), abs=1e-6)


def labelled(examples, positions, seed=0):
    """Sequences with the classes of their positions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, positions, 4)).astype("float32")
    return x, (x @ np.random.default_rng(9).normal(size=(4, 3))).argmax(-1)


@both_laws
@pytest.mark.filterwarnings("ignore:.*classes without an example")
@pytest.mark.parametrize("examples", [1, 60])
def test_positions_of_weight_0_take_no_place_of_others(law, examples):
    x, y = labelled(examples, 300)
    used = np.zeros((examples, 300))
    used[:, 137:140] = 1
    cut = slice(137, 140)
    long, short = (keras.Sequential([layers.Input((None, 4)), dense(3, "softmax")]) for _ in range(2))
    row = initx.calibrate(long, (x, y, used), law).rows[0]
    wanted = initx.calibrate(short, (x[:, cut], y[:, cut]), law).rows[0]
    for one, other in zip(long.get_weights(), short.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert (row.head, row.note) == (wanted.head, wanted.note)


def test_a_class_that_no_drawn_position_has_is_no_class_without_an_example():
    x, y = labelled(3, 5000)
    y[:, 70:] = np.minimum(y[:, 70:], 1)
    y[:, :70] = np.where(y[:, :70] > 1, 1, y[:, :70])
    y[0, 17] = 2
    model = keras.Sequential([layers.Input((None, 4)), dense(4, "softmax")])
    with pytest.warns(UserWarning, match="without an example: 3"):
        row = initx.calibrate(model, (x, y), "LinearProbe").rows[0]
    told = "classes without an example: 3; their columns are zero"
    assert row.note == f"{told}; classes of which no position was drawn: 2; their columns are zero"


@both_laws
@pytest.mark.parametrize("limit", [20_000, 100])
def test_rows_of_weight_0_do_not_count(law, limit, monkeypatch):
    monkeypatch.setattr(_features, "_ROWS", limit)
    x, y = small(90)
    more = np.concatenate([x, 5 + 3 * np.random.default_rng(0).normal(size=(400, 6)).astype("float32")])
    weights = np.concatenate([np.ones(90), np.zeros(400)])
    models = linear(dense(3, "softmax")), linear(dense(3, "softmax"))
    plain = initx.calibrate(models[0], (x, y), law).rows[0]
    labels = np.concatenate([y, np.zeros(400, int)])
    padded = initx.calibrate(models[1], (more, labels, weights), law).rows[0]
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert (plain.head, plain.std_after) == (padded.head, pytest.approx(padded.std_after, rel=1e-4))


def test_the_penalty_is_scikit_learns_with_weights_of_mean_1():
    x, y = small(60)
    weights = np.random.default_rng(0).integers(0, 4, 60).astype("float64")
    shares = weights / weights[weights > 0].mean()
    wanted = Ridge(alpha=20.0).fit(x, x[:, 0] * y, sample_weight=shares)
    for factor in (1, 5):
        model = linear(dense(1))
        initx.calibrate(model, (x, (x[:, 0] * y)[:, None], factor * weights), LinearProbe(20.0), loss="mse")
        np.testing.assert_allclose(model.get_weights()[0][:, 0], wanted.coef_, rtol=1e-4, atol=1e-5)
