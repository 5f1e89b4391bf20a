"""The direction and the bounds of every metric of Keras, by what computes it and not by its name."""

import inspect
import math

import keras
import numpy as np
import pytest
from keras.src.losses import ALL_OBJECTS_DICT as LOSS_IDENTIFIERS
from keras.src.metrics import ALL_OBJECTS_DICT as METRIC_IDENTIFIERS

import keras_initx as initx
from keras_initx.experiments import Sequential
from keras_initx.experiments._metrics import UNKNOWN, fact_of, logged_by

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def names(text):
    return text.split()


METRICS = {
    "max": names("""AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation
        CosineSimilarity F1Score FBetaScore IoU MeanIoU OneHotIoU OneHotMeanIoU PearsonCorrelation Precision
        PrecisionAtRecall R2Score Recall RecallAtPrecision SensitivityAtSpecificity
        SparseCategoricalAccuracy SparseTopKCategoricalAccuracy SpecificityAtSensitivity
        TopKCategoricalAccuracy TrueNegatives TruePositives binary_accuracy categorical_accuracy
        concordance_correlation pearson_correlation sparse_categorical_accuracy
        sparse_top_k_categorical_accuracy top_k_categorical_accuracy"""),
    "min": names("""BinaryCrossentropy CategoricalCrossentropy CategoricalHinge FalseNegatives FalsePositives
        Hinge KLDivergence LogCoshError MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
        MeanSquaredLogarithmicError Poisson RootMeanSquaredError SparseCategoricalCrossentropy
        SquaredHinge binary_crossentropy binary_focal_crossentropy categorical_crossentropy
        categorical_focal_crossentropy categorical_hinge hinge huber kl_divergence log_cosh
        mean_absolute_error mean_absolute_percentage_error mean_squared_error
        mean_squared_logarithmic_error poisson sparse_categorical_crossentropy squared_hinge"""),
    None: names("""Mean MeanMetricWrapper Metric Sum"""),
}
LOSSES = {
    "min": names("""BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
        CategoricalFocalCrossentropy
        CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber
        KLDivergence LogCosh Loss MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
        MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky
        binary_crossentropy binary_focal_crossentropy categorical_crossentropy
        categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge
        circle cosine_similarity ctc dice hinge huber kl_divergence log_cosh mean_absolute_error
        mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error poisson
        sparse_categorical_crossentropy squared_hinge tversky"""),
}
NO_METRICS = {"deserialize", "get", "serialize"}
ARGUMENTS = {  # what the constructor asks for, by its name
    **{"num_classes": 2, "target_class_ids": [0], "fn": lambda y, p: p},
    **dict.fromkeys(("precision", "recall", "sensitivity", "specificity"), 0.5),
}


def made(found):
    """A metric as `compile` makes it of what it is given."""
    if inspect.isclass(found):
        parameters = inspect.signature(found.__init__).parameters.values()
        asked = [p.name for p in parameters if p.name in ARGUMENTS and p.default is inspect.Parameter.empty]
        found = found(**{name: ARGUMENTS[name] for name in asked})
    return found if isinstance(found, keras.Metric) else keras.metrics.MeanMetricWrapper(found)


@pytest.mark.parametrize(("module", "expected"), [(keras.metrics, METRICS), (keras.losses, LOSSES)])
def test_every_public_name_of_keras_has_its_direction(module, expected):
    """A name that a new Keras adds fails here until somebody says which direction it has."""
    public = {name for name in vars(module) if not name.startswith("_")} - NO_METRICS
    assert public == {name for names in expected.values() for name in names}
    found = {
        direction: [name for name in names if fact_of(made(getattr(module, name))).direction == direction]
        for direction, names in expected.items()
    }
    assert found == expected


@pytest.mark.parametrize("identifiers", [METRIC_IDENTIFIERS, LOSS_IDENTIFIERS])
def test_every_identifier_has_the_direction_of_what_it_stands_for(identifiers):
    directions = {
        name: next((way for way, names in table.items() if found.__name__ in names), "none")
        for name, found in identifiers.items()
        for table in [METRICS if identifiers is METRIC_IDENTIFIERS else LOSSES]
    }
    directions.pop("LossFunctionWrapper", None)  # takes a function, and is no public name
    assert {name: fact_of(made(identifiers[name])).direction for name in directions} == directions


def test_nothing_contradicts_what_keras_says_of_its_own_metrics():
    told = {"up": "max", "down": "min"}
    checked = 0
    for found in set(METRIC_IDENTIFIERS.values()):
        metric = made(found)
        if says := getattr(metric, "_direction", None):
            assert fact_of(metric).direction == told[says], metric
            checked += 1
    assert checked > 30


def test_bounds_hold_for_random_predictions():
    rng = np.random.default_rng(0)
    for name in (name for names in METRICS.values() for name in names):
        fact = fact_of(made(getattr(keras.metrics, name)))
        if fact.lower is None and fact.upper is None:
            continue
        classes = 8 if "topk" in name.lower().replace("_", "") else 2  # it asks for five of them
        p = rng.dirichlet([0.5] * classes, 64).astype("float32")
        y = np.eye(classes, dtype="float32")[rng.integers(0, classes, 64)]
        metric = made(getattr(keras.metrics, name))
        if "sparse" in name.lower():
            y = y.argmax(axis=-1)[:, None]
        elif name in ("IoU", "MeanIoU"):
            y, p = y.argmax(axis=-1), p.argmax(axis=-1)
        metric.update_state(*map(keras.ops.convert_to_tensor, (y, p)))
        value = float(np.mean(keras.ops.convert_to_numpy(metric.result())))
        assert (-math.inf if fact.lower is None else fact.lower) - 1e-6 <= value, name
        assert value <= (math.inf if fact.upper is None else fact.upper) + 1e-6, name


def recall_of_a_user(y_true, y_pred):
    return keras.ops.mean(keras.ops.multiply(y_true, y_pred))


class Decibels(keras.metrics.MeanSquaredError):
    """Makes of an error what is better if it is more; what Keras says of the error is inherited."""

    def result(self):
        return -10 * keras.ops.log(super().result())


class Said(keras.metrics.Metric):
    _direction = "down"

    def result(self):
        return 0.0


class Argmax(keras.metrics.MeanIoU):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, keras.ops.argmax(y_pred, axis=-1))


class Own(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred - y_true, axis=-1)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        (keras.metrics.AUC(name="default_loss_auc"), "max"),
        (keras.metrics.MeanSquaredError(name="accuracy"), "min"),
        (keras.metrics.Mean(name="accuracy"), None),
        (keras.metrics.MeanMetricWrapper(recall_of_a_user, name="mse"), None),
        (keras.metrics.MeanMetricWrapper(keras.losses.Dice()), "min"),
        (keras.metrics.MeanMetricWrapper(Own()), "min"),
        (keras.metrics.CosineSimilarity(), "max"),
        (keras.metrics.MeanMetricWrapper(keras.losses.cosine_similarity), "min"),
        (Decibels(), None),
        (Said(), "min"),
        (Argmax(2), "max"),
    ],
)
def test_a_direction_comes_from_the_class_and_what_it_wraps(metric, direction):
    assert fact_of(metric).direction == direction


def two_outputs():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")])
    named = [keras.metrics.AUC(name="loss_of_mine"), "mse", recall_of_a_user, "mse"]
    model.compile("sgd", ["mse", "mae"], metrics=[named, ["mae"]], weighted_metrics=[["mse"], []])
    return model


def evaluated(model, outputs=1):
    x, y = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")
    return model.test_on_batch(x, [y] * outputs if outputs > 1 else y, return_dict=True)


def test_every_log_of_a_compiled_model_is_traced_to_what_computes_it():
    model = two_outputs()
    logs = evaluated(model, 2)
    logged = logged_by(model)
    assert set(logged) == set(logs)
    assert {name: fact_of(found).direction for name, found in logged.items()} == {
        **{"loss": "min", "a_loss": "min", "b_loss": "min", "a_loss_of_mine": "max", "a_mse": "min"},
        **{"a_recall_of_a_user": None, "a_mse_1": "min", "b_mae": "min", "a_weighted_mse": "min"},
    }
    assert evaluated(model, 2) == pytest.approx(logs)  # and the metrics still compute what they did


def test_one_number_of_a_metric_of_several_has_its_direction():
    model = net("accuracy", keras.metrics.F1Score())()
    model.test_on_batch(*DATA)
    assert fact_of(logged_by(model, "f1_score[0]")["f1_score[0]"]) == ("max", 0.0, 1.0, False)
    assert "other[0]" not in logged_by(model, "other[0]")


def single(loss, **more):
    layer = keras.layers.Dense(1, kernel_regularizer=more.pop("regularizer", None))
    model = more.pop("kind", keras.Sequential)([keras.layers.Input((3,)), layer])
    model.compile("sgd", loss, **more)
    evaluated(model)
    return fact_of(logged_by(model)["loss"])


class Stepped(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


def test_a_loss_is_bounded_where_nothing_else_is_in_it():
    assert single("mse")[:3] == ("min", 0.0, None)
    assert single(keras.losses.BinaryCrossentropy(from_logits=True))[:3] == ("min", 0.0, None)
    assert single("mse", loss_weights=[2.0])[:3] == ("min", 0.0, None)
    for open_ended in (
        single("poisson"),
        single("cosine_similarity"),
        single(Own()),
        single(recall_of_a_user),
        single("mse", regularizer="l2"),
        single("mse", loss_weights=[-1.0]),
        single("mse", kind=Stepped),
    ):
        assert open_ended == ("min", None, None, False)


def net(*metrics):
    def build():
        layers = [keras.layers.Input((3,)), keras.layers.Dense(2, "softmax")]
        model = keras.Sequential(layers)
        model.compile("sgd", "categorical_crossentropy", metrics=list(metrics), run_eagerly=True)
        return model

    return build


X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
DATA = (X, np.eye(2, dtype="float32")[(X.sum(axis=1) > 0).astype(int)])


def compare(build, **more):
    return initx.compare(build, ["zeros"], DATA, DATA, seeds=1, runner=Sequential(progress=False), **more)


def test_a_comparison_takes_the_direction_of_the_metric_and_says_it():
    found = compare(net("kl_divergence", keras.metrics.AUC(name="loss_auc")), metric="kl_divergence")
    assert found.minimize
    assert found.bounds["loss_auc"] == (0.0, 1.0)
    assert found.to_dict()["minimize"]
    for text in (str(found), found.to_markdown()):
        assert "validation kl_divergence (less is better)" in text
    found = compare(net(keras.metrics.AUC(name="loss_auc")), metric="val_loss_auc")
    assert not found.minimize
    assert "validation loss_auc (more is better)" in str(found)
    assert compare(net("poisson"), metric="poisson", mode="max").minimize is False


def test_a_direction_that_nobody_knows_is_asked_for(monkeypatch):
    monkeypatch.setattr("keras_initx.experiments._sequential.run_trial", pytest.fail)
    match = (
        "`mode` must be 'max' or 'min' for a metric whose direction Keras does not know. Received: "
        "mode='auto', metric='recall_of_a_user'. Pass mode='min' if less of it is better"
    )
    with pytest.raises(ValueError, match=match):
        compare(net(recall_of_a_user), metric="recall_of_a_user")
    monkeypatch.undo()
    assert compare(net(recall_of_a_user), metric="recall_of_a_user", mode="min").minimize


def test_what_is_in_no_table_is_unknown():
    assert fact_of(keras.metrics.Sum()) == UNKNOWN
    assert fact_of(object()) == UNKNOWN
