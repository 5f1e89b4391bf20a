"""MuP with each optimizer: the factors of learning rates, and the notes on what the model must do."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.optimizers import ScaledRates
from keras_initx.strategies import MuP


def mlp(width, name="net"):
    stack = [layers.Dense(width, "relu", name="in"), layers.LayerNormalization(name="norm")]
    stack += [layers.Dense(width, "relu", name="hidden"), layers.Dense(10, name="out")]
    return keras.Sequential([layers.Input((16,)), *stack], name=name)


def rates_by(optimizer, width=64, base=16, build=mlp):
    model = build(width)
    report = initx.initialize(model, MuP(base=build(base), optimizer=optimizer), seed=3)
    # The keys are the paths of the model's variables.
    assert set(report.learning_rates) <= {v.path for v in model.trainable_variables}
    return {row.path: row.learning_rate for row in report.rows if row.learning_rate != 1}


ADAM = {"hidden": 1 / 4, "out": 1 / 4}
SGD = {"in": 4, "in/bias": 4, "norm/gamma": 4, "norm/beta": 4, "hidden/bias": 4, "out": 1 / 4}
# Steps of equal singular values, times the root of the larger side: 16 by 64 over 16 by 16, and so on.
MUON = {"hidden": 1 / 2, "out": 1 / 4}
TABLE = {
    "adam": ADAM,
    "AdamW": ADAM,
    "adamax": ADAM,
    "nadam": ADAM,
    "rmsprop": ADAM,
    "adagrad": ADAM,
    "lion": ADAM,
    "sgd": SGD,
    "adafactor": {"hidden": 1 / 2},
    "muon": MUON,
}


@pytest.mark.parametrize("optimizer", sorted(TABLE))
def test_rates_of_each_optimizer(optimizer):
    assert rates_by(optimizer) == pytest.approx(TABLE[optimizer])


def test_an_optimizer_is_taken_by_class_and_object_too():
    assert rates_by(keras.optimizers.SGD(0.1, momentum=0.9)) == SGD
    assert rates_by(keras.optimizers.AdamW) == ADAM


# Factors of learning rates in `mup.optim` (microsoft/mup at 0518b39, read, not run), for a weight with so
# many sides that grow by 4. MuAdam: 1 / width_mult for two, 1 for fewer. MuSGD: for two
# 1 / fanin_fanout_mult_ratio, for one width_mult, for none 1. There MuReadout divides the logits by 4, with
# W = V / 4: of a rate of V, a step of W has 1 / 4 under Adam, and under SGD, whose gradient of V is a quarter
# of that of W, 1 / 16.
SIDES = {
    "in": 1,
    "in/bias": 1,
    "norm/gamma": 1,
    "norm/beta": 1,
    "hidden": 2,
    "hidden/bias": 1,
    "out": 1,
    "out/bias": 0,
}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_rates_are_those_of_the_authors_package(optimizer):
    theirs = {"adam": [1, 1, 1 / 4], "sgd": [1, 4, 1]}[optimizer]
    expected = {path: theirs[sides] for path, sides in SIDES.items()}
    expected["out"] *= 1 / 4 if optimizer == "adam" else 1 / 16
    found = rates_by(optimizer)
    assert {path: found.get(path, 1) for path in SIDES} == expected


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Muon(1.0),
        keras.optimizers.Muon(1.0, rms_rate=None),
        keras.optimizers.Muon(1.0, exclude_layers=["out"]),
    ],
    ids=["own scale", "no scale", "excluded"],
)
def test_muon_changes_spectral_norms_by_the_root_of_outputs_over_inputs(optimizer):
    """The quotient of the step at width 64 and at 16, of equal gradients of full rank."""
    norms = {}
    for width in (16, 64):
        model = mlp(width)
        report = initx.initialize(model, MuP(base=mlp(16), optimizer=optimizer), seed=3)
        plain = type(optimizer).from_config(
            optimizer.get_config() | {"weight_decay": None, "adam_weight_decay": None}
        )
        before = {v.path: np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables}
        # Identities in part: all their singular values are equal, so that Newton and Schulz agree.
        slopes = [
            ops.eye(*v.shape) if len(v.shape) == 2 else ops.ones(v.shape) for v in model.trainable_variables
        ]
        report.optimizer(plain).apply(slopes, model.trainable_variables)
        norms[width] = {
            v.path: np.linalg.norm(ops.convert_to_numpy(v) - before[v.path], 2)
            for v in model.trainable_variables
            if len(v.shape) == 2
        }
    growth = {path: norms[64][path] / norms[16][path] for path in norms[64]}
    expected = {"net/in/kernel": 2.0, "net/hidden/kernel": 1.0, "net/out/kernel": 0.5}
    if optimizer.exclude_layers:
        # AdamW moves the ten entries that have a gradient by the rate; theirs are 10 equal singular values.
        expected["net/out/kernel"] = 0.25
    # Newton and Schulz' five steps end within 0.7 to 1.2 of 1, by the first size, which the rank decides.
    assert growth == pytest.approx(expected, rel=0.3)


def test_adafactor_steps_relative_to_the_weights():
    """Its steps grow as Adam's are to: as 1 / 4 in hidden and output kernels, not at all at the input."""
    sizes = {}
    for width in (16, 64):
        model = mlp(width)
        report = initx.initialize(model, MuP(base=mlp(16), optimizer="adafactor"), seed=3)
        before = [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]
        optimizer = report.optimizer(keras.optimizers.Adafactor(0.01))
        optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
        sizes[width] = {
            v.path: np.abs(ops.convert_to_numpy(v) - old).mean()
            for v, old in zip(model.trainable_variables, before, strict=True)
        }
    growth = {path: sizes[64][path] / sizes[16][path] for path in sizes[64]}
    # The root mean square of the smallest kernel, 16 x 10, scatters by 1 / sqrt(2 * 160).
    near = {"net/in/kernel": 1.0, "net/hidden/kernel": 0.25, "net/out/kernel": 0.25, "net/hidden/bias": 1.0}
    assert {path: growth[path] for path in near} == pytest.approx(near, rel=5 / 320**0.5)


def test_epsilon_falls_with_the_gradients():
    report = initx.initialize(mlp(64), MuP(base=mlp(16)), seed=3)
    found = {row.path: row.epsilon for row in report.multipliers.rows}
    grown = {
        "net/in/kernel",
        "net/in/bias",
        "net/norm/gamma",
        "net/norm/beta",
        "net/hidden/kernel",
        "net/hidden/bias",
    }
    assert {path for path, factor in found.items() if factor == 1 / 4} == grown
    assert found["net/out/kernel"] == found["net/out/bias"] == 1


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion", "Muon"])
def test_the_reports_optimizer_trains_the_model(name):
    model = mlp(64)
    optimizer = getattr(keras.optimizers, name)(0.01)
    report = initx.initialize(model, MuP(base=mlp(16), optimizer=optimizer), seed=3)
    applied = report.optimizer(optimizer)
    assert isinstance(applied, getattr(keras.optimizers, name))
    model.compile(applied, "mse")
    x = np.random.default_rng(0).normal(size=(32, 16))
    losses = model.fit(x, x[:, :10], 8, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_report_without_factors_gives_an_optimizer_that_steps_like_the_plain_one():
    one, other = mlp(16), mlp(16)
    x = np.random.default_rng(0).normal(size=(32, 16))
    for model in (one, other):
        report = initx.initialize(model, seed=3)
        optimizer = keras.optimizers.Adam(0.01)
        model.compile(report.optimizer(optimizer) if model is one else optimizer, "mse")
        model.fit(x, x[:, :10], 8, shuffle=False, verbose=0)
    assert report.learning_rates == {}
    assert isinstance(one.optimizer, ScaledRates)
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-7)


def test_an_optimizer_that_steps_otherwise_is_refused():
    report = initx.initialize(mlp(64), MuP(base=mlp(16)), seed=3)
    report.optimizer(keras.optimizers.Lion())  # it steps as Adam does
    with pytest.raises(
        ValueError, match=r"Received: SGD, for multipliers of .*adam.*MuP\(base=base, optimizer=opt"
    ):
        report.optimizer(keras.optimizers.SGD())
    muon = initx.initialize(mlp(64), MuP(base=mlp(16), optimizer="muon"), seed=3)
    with pytest.raises(ValueError, match=r"Received: Muon, for multipliers of .*muon"):
        muon.optimizer(keras.optimizers.Muon(exclude_layers=["out"]))


def test_a_report_of_another_width_is_refused():
    report = initx.initialize(mlp(64), MuP(base=mlp(16)), seed=3)
    model = mlp(32)
    model.compile(report.optimizer(keras.optimizers.Adam()), "mse")
    with pytest.raises(
        ValueError, match=r"`net/in/kernel` has shape \(16, 64\), .*shape \(16, 32\).*Call `initialize`"
    ):
        model.optimizer.build(model.trainable_variables)


def test_rates_do_not_hang_on_which_weights_are_drawn():
    model = mlp(64)
    model.get_layer("hidden").trainable = False
    scheme = MuP(base=mlp(16))
    report = initx.initialize(model, scheme, seed=3, exclude="in", overrides={"out": "zeros"})
    assert report.learning_rates == {"net/hidden/kernel": 1 / 4, "net/out/kernel": 1 / 4}
    (row,) = (row for row in report.rows if row.path == "hidden")
    assert (row.note, row.learning_rate) == ("frozen: left as it is", 1 / 4)
    model.compile(report.optimizer(keras.optimizers.Adam()), "mse")
    model.fit(np.zeros((4, 16)), np.zeros((4, 10)), verbose=0)


def test_the_report_tells_the_factors_as_data():
    report = initx.initialize(mlp(64), MuP(base=mlp(16)), seed=3)
    rows = {row["path"]: row for row in report.to_dict()["multipliers"]}
    factors = {"learning_rate": 0.25, "epsilon": 0.25, "weight_decay": 1.0}
    assert rows["net/hidden/kernel"] == {"path": "net/hidden/kernel", "shape": [64, 64]} | factors
    assert "net/out/bias" not in rows


def attention(num_heads, key_dim, layer=layers.MultiHeadAttention):
    inputs = layers.Input((5, num_heads * key_dim))
    if layer is layers.MultiHeadAttention:
        attended = layer(num_heads=num_heads, key_dim=key_dim, name="attention")(inputs, inputs)
    else:
        attended = layer(key_dim, num_heads, num_heads, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2, name="out")(attended))


@pytest.mark.parametrize("layer", [layers.MultiHeadAttention, layers.GroupQueryAttention])
def test_heads_that_grow_in_width_are_told_with_a_cure(layer):
    base = attention(2, 8, layer)

    def notes(num_heads, key_dim):
        report = initx.initialize(attention(num_heads, key_dim, layer), MuP(base=base), seed=3)
        return [row.note for row in report.rows if "heads" in row.note]

    (note,) = notes(4, 16)
    assert "width 8 to 16" in note
    cure = eval(f"dict({re.search(r'num_heads=.*', note)[0]})")
    assert cure == {"num_heads": 8, "key_dim": 8}
    assert notes(**cure) == []


def language(width, between=lambda x: x):
    inputs = layers.Input((4,), dtype="int32")
    tokens = layers.ReversibleEmbedding(50, width, name="tokens")
    x = layers.Dense(width, name="hidden")(tokens(inputs))
    return keras.Model(inputs, tokens(between(x), reverse=True))


def tied_note(model):
    report = initx.initialize(model, MuP(base=language(16)), seed=3)
    (row,) = (row for row in report.rows if row.path == "tokens/embeddings")
    return row.note


def test_tied_logits_that_are_not_divided_are_told_with_a_cure():
    model = language(64)
    note = tied_note(model)
    assert note.startswith("divide the logits by the growth of the width")
    cured = eval(re.search(r"keras.Model.*", note)[0], {"keras": keras, "model": model})
    assert tied_note(cured) == ""


@pytest.mark.parametrize(
    "between", [lambda x: x / 4, lambda x: 0.25 * x, layers.Rescaling(0.25), lambda x: ops.divide(x, 4.0)]
)
def test_states_that_are_divided_before_tied_logits_are_seen(between):
    assert tied_note(language(64, between)) == ""


def test_a_division_by_another_number_is_told():
    assert "divide the logits" in tied_note(language(64, lambda x: x / 2))


def test_kernels_that_muon_leaves_to_adamw_are_told():
    base, model = attention(2, 8), attention(4, 8)
    report = initx.initialize(model, MuP(base=base, optimizer="muon"), seed=3)
    told = {
        row.path: row.learning_rate for row in report.rows if "leaves kernels of 3 axes to AdamW" in row.note
    }
    assert told == {f"attention/{part}": 1 / 2 for part in ("query", "key", "value", "attention_output")}


@pytest.mark.parametrize("rms_rate", [0.2, None])
def test_muon_moves_the_biases_of_heads_by_entries_of_one_size(rms_rate):
    """They have two axes, so that Keras' Muon takes them for matrices."""
    sizes = []
    for heads in (4, 16):
        optimizer = keras.optimizers.Muon(0.01, rms_rate=rms_rate, weight_decay=None)
        model = attention(heads, 4)
        report = initx.initialize(model, MuP(base=attention(4, 4), optimizer=optimizer), seed=3)
        bias = next(v for v in model.trainable_variables if v.path.endswith("query/bias"))
        before = np.array(ops.convert_to_numpy(bias))
        slopes = [ops.eye(*v.shape) if v is bias else ops.zeros(v.shape) for v in model.trainable_variables]
        report.optimizer(optimizer).apply(slopes, model.trainable_variables)
        change = ops.convert_to_numpy(bias) - before
        sizes.append(np.linalg.norm(change) / np.sqrt(change.size))
    assert sizes[1] / sizes[0] == pytest.approx(1, rel=0.01)


@pytest.mark.tensorflow
def test_models_of_keras_hub_are_told_the_same():
    import keras_hub

    def build(width, heads):
        sizes = {"vocabulary_size": 50, "num_layers": 2, "max_sequence_length": 8}
        backbone = keras_hub.models.GPT2Backbone(
            num_heads=heads, hidden_dim=width, intermediate_dim=2 * width, **sizes
        )
        return keras_hub.models.GPT2CausalLM(backbone)

    def notes(model):
        report = initx.initialize(model, MuP(base=build(16, 2)), seed=3)
        return [row.note for row in report.rows if row.note]

    tied, *heads = notes(build(64, 2))
    assert len(heads) == 2
    assert all("num_heads=8, key_dim=8" in note for note in heads)
    model = build(64, 8)
    assert notes(model) == [tied]
    assert notes(eval(re.search(r"keras.Model.*", tied)[0], {"keras": keras, "model": model})) == []


@pytest.mark.tensorflow
def test_the_cure_of_a_backbone_names_no_output_that_it_does_not_have():
    hub = pytest.importorskip("keras_hub")

    def build(width):
        sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": width, "intermediate_dim": width}
        return hub.models.BertBackbone(vocabulary_size=20, max_sequence_length=8, **sizes)

    report = initx.initialize(build(16), MuP(base=build(8)), seed=0)
    told = [row.note for row in report.rows if "divide the logits" in row.note]
    assert told == [
        "divide the logits by the growth of the width, 2, where the model makes them of this table"
    ]
