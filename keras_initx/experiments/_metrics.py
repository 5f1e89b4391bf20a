"""What is known of the numbers that a model logs: whether less of one is better, and between what it lies."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
from keras import tree

from keras_initx._keras_internals import compiled_loss, loss_weights, metric_direction, wrapped_function
from keras_initx.checks import check_choice

__all__ = ["UNKNOWN", "Fact", "check_mode", "fact_of", "is_less_better", "logged_by"]


class Fact(NamedTuple):
    """What is known of a metric.

    Attributes:
        direction: `"max"` if more of it is better, `"min"` if less is; None if nobody knows.
        lower: What it cannot be below; None if that is not known.
        upper: What it cannot be above; None if that is not known.
        constant: Whether a prediction that is the same for all rows is bad by it. Recall, say, is then 1.
    """

    direction: str | None = None
    lower: float | None = None
    upper: float | None = None
    constant: bool = False


UNKNOWN = Fact()
_ACCURACY = Fact("max", 0.0, 1.0, constant=True)
_SHARE = Fact("max", 0.0, 1.0)
_CORRELATION = Fact("max", -1.0, 1.0)
_ERROR = Fact("min", 0.0, constant=True)
_OPEN = Fact("min")  # below zero where predictions are no probabilities, or targets are large

_ACCURACIES = ("accuracy", "binary accuracy", "categorical accuracy", "sparse categorical accuracy")
_TOP = ("top k categorical accuracy", "sparse top k categorical accuracy")
_CONFUSION = ("precision", "precision at recall", "recall", "recall at precision")
_OTHER_SHARES = ("sensitivity at specificity", "specificity at sensitivity", "f1 score", "f beta score")
_IOUS = ("io u", "binary io u", "mean io u", "one hot io u", "one hot mean io u")
_ERRORS = (
    *("mean absolute error", "mean absolute percentage error", "mean squared error"),
    *("mean squared logarithmic error", "root mean squared error", "log cosh", "log cosh error", "huber"),
    *("binary crossentropy", "categorical crossentropy", "sparse categorical crossentropy"),
    *("binary focal crossentropy", "categorical focal crossentropy"),
    *("categorical generalized cross entropy", "hinge", "squared hinge", "categorical hinge"),
)
# Public names of `keras.metrics` and `keras.losses`, functions and classes, without case and underscores.
_BOTH = {**dict.fromkeys(_ERRORS, _ERROR), "kl divergence": _OPEN, "poisson": _OPEN}
_METRICS = {
    **_BOTH,
    **dict.fromkeys((*_ACCURACIES, *_TOP, "auc"), _ACCURACY),
    **dict.fromkeys((*_CONFUSION, *_OTHER_SHARES, *_IOUS), _SHARE),
    **dict.fromkeys(("concordance correlation", "cosine similarity", "pearson correlation"), _CORRELATION),
    **dict.fromkeys(("false negatives", "false positives"), Fact("min", 0.0)),
    **dict.fromkeys(("true negatives", "true positives"), Fact("max", 0.0)),
    "r2 score": Fact("max", None, 1.0, constant=True),
}
_LOSSES = {
    **_BOTH,
    **dict.fromkeys(("circle", "ctc"), Fact("min", 0.0)),
    **dict.fromkeys(("dice", "tversky"), Fact("min", 0.0, 1.0)),
    "cosine similarity": Fact("min", -1.0, 1.0),  # Keras' loss is the negative of Keras' metric
}
_TABLES = [
    (module, {name.replace(" ", ""): fact for name, fact in table.items()})
    for module, table in ((keras.metrics, _METRICS), (keras.losses, _LOSSES))
]


def check_mode(metric: Any, mode: Any) -> None:
    """Refuses what is no name of a metric, and no direction."""
    if not isinstance(metric, str) or not metric:
        raise ValueError(f"`metric` must be the name of a metric. Received: metric={metric!r}.")
    check_choice("mode", mode, ("auto", "max", "min"))


def is_less_better(metric: str, mode: str, facts: Mapping[str, Fact]) -> bool:
    """Tells the direction of a log of the model; refuses to guess it."""
    direction = facts.get(metric, UNKNOWN).direction if mode == "auto" else mode
    if direction is None:
        raise ValueError(
            f"`mode` must be 'max' or 'min' for a metric whose direction Keras does not know. Received: "
            f"mode='auto', metric={metric!r}. Pass mode='min' if less of it is better, mode='max' if more is."
        )
    return direction == "min"


def logged_by(model: Any, metric: str = "loss") -> dict[str, Any]:
    """Returns what computes each log of a compiled model that has been evaluated: a metric, or a loss.

    Names decide nothing: users choose them, and Keras adds the outputs' names.

    Args:
        model: The model.
        metric: The log that a comparison is about. One number of several, `f1_score[0]`, is what the metric
            `f1_score` is.

    Returns:
        By the log's name a Keras metric; for the loss and the losses of single outputs, the losses that the
        model was compiled with.
    """
    compiled = compiled_loss(model)
    losses = list(getattr(compiled, "metrics", ()))
    found: dict[str, Any] = {}
    for one in model.metrics:
        if any(one is tracker for tracker in losses):
            found[one.name] = _Losses(model)
        elif isinstance(getattr(one, "metrics", None), list):
            found |= _named(one)
        else:
            found[one.name] = one
    if not isinstance(found.get("loss"), keras.Metric) or type(found["loss"]) is keras.metrics.Mean:
        found["loss"] = _Losses(model)  # Keras' own tracker, or that of a model with a step of its own
    whole = metric.partition("[")[0]
    return found if metric in found or whole not in found else {**found, metric: found[whole]}


class _Losses(NamedTuple):
    """Stands for a number that is the sum or one of the losses of a model."""

    model: Any


def _named(compiled: Any) -> dict[str, Any]:
    """The metrics of `compile` by the names that Keras gives them in the logs."""
    members = compiled.metrics
    try:
        for member in members:
            member.result = lambda member=member: member
        return compiled.result() if members else {}
    finally:
        for member in members:
            vars(member).pop("result", None)


def fact_of(logged: Any) -> Fact:
    """Tells what Keras or the table knows of a metric, by its class and what it wraps, not by its name.

    >>> fact_of(keras.metrics.AUC(name="default_loss_auc")).direction
    'max'
    >>> fact_of(keras.metrics.Mean(name="accuracy")).direction is None
    True

    Args:
        logged: A value of what `logged_by` returns.
    """
    if isinstance(logged, _Losses):
        return _fact_of_losses(logged.model)
    kinds = type(logged).__mro__
    fact = _first(kinds) if _first(kinds).direction else _fact_of_function(wrapped_function(logged))
    keras_says = metric_direction(logged)
    if fact.direction is None:
        return Fact(keras_says)
    counts = next(kind for kind in kinds if "result" in vars(kind))
    if counts.__module__.split(".")[0] != "keras":
        # A user's class makes another number of it, such as minus its logarithm: only the user knows.
        return Fact(keras_says if keras_says != fact.direction else None)
    return fact


def _first(kinds: Iterable[Any]) -> Fact:
    return next((fact for kind in kinds if (fact := _in_tables(kind)) is not UNKNOWN), UNKNOWN)


def _fact_of_function(wrapped: Any) -> Fact:
    """What a metric is of that takes the mean of a function or of a loss."""
    if isinstance(wrapped, keras.losses.Loss):
        fact = _first(type(wrapped).__mro__)
        return fact if fact.direction else Fact("min")
    return _in_tables(wrapped)


def _in_tables(found: Any) -> Fact:
    """The row of a class or function that is Keras' own."""
    name = getattr(found, "__name__", "")
    for module, table in _TABLES:
        if getattr(module, name, None) is found and name:
            return table.get(name.replace("_", "").lower(), UNKNOWN)
    return UNKNOWN


def _fact_of_losses(model: Any) -> Fact:
    """Less of a loss is better. It is bounded if it is a sum of Keras' own, and nothing else is added."""
    own = any(
        getattr(type(model), name) is not getattr(keras.Model, name) for name in ("compute_loss", "test_step")
    )
    losses = [_fact_of_loss(loss) for loss in tree.flatten(model.loss) if loss is not None]
    weights = loss_weights(model)
    negative = any(weight < 0 for weight in tree.flatten(weights) if weight is not None)
    if own or model.losses or negative or not losses or not all(fact.lower == 0 for fact in losses):
        return Fact("min")
    return Fact("min", 0.0, constant=all(fact.constant for fact in losses))


def _fact_of_loss(loss: Any) -> Fact:
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        return _ERROR  # Keras chooses one by the shapes
    found = keras.losses.get(loss)
    return _first(type(found).__mro__) if isinstance(found, keras.losses.Loss) else _in_tables(found)
