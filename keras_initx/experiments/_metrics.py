"""Facts about the numbers that a model logs: whether less is better, and the range of the values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import tree

from keras_initx._keras_internals import compiled_loss, loss_weights, metric_direction, wrapped_function
from keras_initx._types import Loss, Model, Tensor
from keras_initx.checks import check_choice

__all__ = ["UNKNOWN", "Fact", "Logged", "check_mode", "fact_of", "is_less_better", "logged_by"]


class Losses(NamedTuple):
    """Stands for a number that is one of the losses of a model, or their sum."""

    model: Model


# The source of one log: a metric of Keras, or the losses that the model was compiled with.
Logged: TypeAlias = keras.Metric | Losses


class Fact(NamedTuple):
    """Facts about a metric.

    Attributes:
        direction: `"max"` if more of the metric is better, `"min"` if less is better; None if unknown.
        lower: The least possible value; None if unknown.
        upper: The greatest possible value; None if unknown.
        constant: Whether the metric is bad for a prediction that is the same for all rows. For recall this
            is false: the recall of a constant can be 1.
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
_OPEN = Fact("min")  # below zero if predictions are not probabilities, or if targets are large

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
# Public names of functions and classes in `keras.metrics` and `keras.losses`. The tables drop the spaces, and
# a name is looked up in lower case without underscores: "mean squared error" is `MeanSquaredError` and
# `mean_squared_error`.
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


def check_mode(metric: object, mode: object) -> None:
    """Raises ValueError unless `metric` is a name and `mode` is a direction or `"auto"`."""
    if not isinstance(metric, str) or not metric:
        raise ValueError(f"`metric` must be the name of a metric. Received: metric={metric!r}.")
    check_choice("mode", mode, ("auto", "max", "min"))


def is_less_better(metric: str, mode: str, facts: Mapping[str, Fact]) -> bool:
    """Returns whether less of a log is better; raises ValueError if `mode` is auto and nobody knows."""
    direction = facts.get(metric, UNKNOWN).direction if mode == "auto" else mode
    if direction is None:
        raise ValueError(
            f"`mode` must be 'max' or 'min' for a metric whose direction Keras does not know. Received: "
            f"mode='auto', metric={metric!r}. Pass mode='min' if less of it is better, mode='max' if more is."
        )
    return direction == "min"


def logged_by(model: Model, metric: str = "loss") -> dict[str, Logged]:
    """Returns the metric or the losses behind each log of a compiled model.

    The facts come from these objects. The name of a log proves nothing: users choose names, and Keras adds
    the names of the outputs.

    Args:
        model: A compiled model that was evaluated once, so that its metrics exist.
        metric: The log that a comparison is about. `f1_score[0]`, one number of several, stands for the
            metric `f1_score`.

    Returns:
        By name of the log, a Keras metric. For the loss, and for the losses of single outputs, `Losses`.
    """
    compiled = compiled_loss(model)
    losses = list(getattr(compiled, "metrics", ()))
    found: dict[str, Logged] = {}
    for one in model.metrics:
        if any(one is tracker for tracker in losses):
            found[one.name] = Losses(model)
        elif isinstance(getattr(one, "metrics", None), list):
            found |= _named(one)
        else:
            found[one.name] = one
    if not isinstance(found.get("loss"), keras.Metric) or type(found["loss"]) is keras.metrics.Mean:
        # A mean of Keras tracks the loss, also in a model with its own `train_step`. It knows no direction.
        found["loss"] = Losses(model)
    whole = metric.partition("[")[0]
    return found if metric in found or whole not in found else {**found, metric: found[whole]}


def _named(compiled: Any) -> dict[str, Logged]:
    """Returns the metrics of `compile` by the names that Keras gives them in the logs.

    Keras makes these names only as it returns results: `result()` of the container puts the result of each
    metric under its name. So each metric returns itself as its result for a moment.

    Args:
        compiled: The container of Keras for the metrics of `compile`, which is not a public class.
    """
    members = compiled.metrics
    try:
        for member in members:
            member.result = lambda member=member: member
        return compiled.result() if members else {}
    finally:
        for member in members:
            vars(member).pop("result", None)


def fact_of(logged: Logged) -> Fact:
    """Returns the facts that Keras or the table has about a metric.

    The class of the metric decides, or the function or the loss that the metric takes the mean of. The name
    of the metric does not count.

    >>> fact_of(keras.metrics.AUC(name="default_loss_auc")).direction
    'max'
    >>> fact_of(keras.metrics.Mean(name="accuracy")).direction is None
    True

    Args:
        logged: A value of the dict that `logged_by` returns.
    """
    if isinstance(logged, Losses):
        return _fact_of_losses(logged.model)
    kinds = type(logged).__mro__
    fact = _first(kinds) if _first(kinds).direction else _fact_of_function(wrapped_function(logged))
    keras_says = metric_direction(logged)
    if fact.direction is None:
        return Fact(keras_says)
    counts = next(kind for kind in kinds if "result" in vars(kind))
    if counts.__module__.split(".")[0] != "keras":
        # A user's class overrides `result`, for example with minus the logarithm: its facts are unknown.
        return Fact(keras_says if keras_says != fact.direction else None)
    return fact


def _first(kinds: Iterable[type]) -> Fact:
    """Returns the facts of the first class that the tables know, so of the nearest base class."""
    return next((fact for kind in kinds if (fact := _in_tables(kind)) is not UNKNOWN), UNKNOWN)


def _fact_of_function(wrapped: Callable[..., Tensor] | None) -> Fact:
    """Returns the facts of a metric that is the mean of a function or of a loss."""
    if isinstance(wrapped, keras.losses.Loss):
        fact = _first(type(wrapped).__mro__)
        return fact if fact.direction else Fact("min")
    return _in_tables(wrapped)


def _in_tables(found: Callable[..., Any] | None) -> Fact:
    """Returns the facts of a class or a function, if it is Keras' own."""
    name = getattr(found, "__name__", "")
    for module, table in _TABLES:
        if getattr(module, name, None) is found and name:
            return table.get(name.replace("_", "").lower(), UNKNOWN)
    return UNKNOWN


def _fact_of_losses(model: Model) -> Fact:
    """Returns the facts of the loss: less is better, and 0 is a bound of a sum of Keras' own losses.

    The bound is unknown if the model adds anything: losses of layers, negative weights, its own
    `compute_loss` or `test_step`.
    """
    own = any(
        getattr(type(model), name) is not getattr(keras.Model, name) for name in ("compute_loss", "test_step")
    )
    losses = [_fact_of_loss(loss) for loss in tree.flatten(model.loss) if loss is not None]
    weights = loss_weights(model)
    negative = any(weight < 0 for weight in tree.flatten(weights) if weight is not None)
    if own or model.losses or negative or not losses or not all(fact.lower == 0 for fact in losses):
        return Fact("min")
    return Fact("min", 0.0, constant=all(fact.constant for fact in losses))


def _fact_of_loss(loss: Loss) -> Fact:
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        return _ERROR  # Keras chooses one of its crossentropies by the shapes
    found = keras.losses.get(loss)
    return _first(type(found).__mro__) if isinstance(found, keras.losses.Loss) else _in_tables(found)
