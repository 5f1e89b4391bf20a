"""Calibration by the laws that drew a model, whoever chose them: one law, a strategy, or the layers."""

import dataclasses
from collections.abc import Iterator, Mapping

from keras_initx._types import Arrays, Data, Initializer, Model
from keras_initx.calibration._calibrate import run
from keras_initx.calibration._choice import Choice, is_kernel_law
from keras_initx.calibration._heads import is_prior_law
from keras_initx.calibration._report import CalibrationReport, warn_of
from keras_initx.calibration._settings import Settings
from keras_initx.initializers import Law, is_law
from keras_initx.state import check_built
from keras_initx.walk import iter_kernels

__all__ = ["calibrate_drawn"]


def calibrate_drawn(
    model: Model,
    data: Data | None,
    drew: Initializer | Mapping[str, Initializer] | None,
    *,
    targets: Arrays | None = None,
    seed: int | None = None,
) -> list[CalibrationReport]:
    """Applies the laws among the initializers that drew the weights of a model.

    Laws of single kernels come first, in one pass. Laws over the whole model follow, then laws that make
    heads, then priors of biases.

    >>> import keras
    >>> from keras_initx.initializers import LSUV
    >>> hidden = keras.layers.Dense(4, kernel_initializer=LSUV(seed=1), name="hidden")
    >>> model = keras.Sequential([keras.layers.Input((8,)), hidden, keras.layers.Dense(1, name="head")])
    >>> [report] = calibrate_drawn(model, None, None, seed=1)
    >>> [(row.path, round(row.std_after, 3)) for row in report.rows]
    [('hidden', 1.0)]
    >>> calibrate_drawn(model, None, {"hidden": keras.initializers.HeNormal()})
    []

    Args:
        model: A built Keras model.
        data: The data, as `calibrate` takes it.
        drew: The initializer that drew all kernels. Or a dict from the path of a kernel to the initializer
            that drew it, where the layers' own initializers drew all others. Or None if they drew all.
        targets: The targets, as `calibrate` takes them.
        seed: Seed of drawn input and of laws.

    Returns:
        One report for each kind of law; an empty list if no initializer is a law.

    Raises:
        ValueError: If `calibrate` would raise it.
    """
    check_built(model)
    settings = Settings(seed=seed)
    reports = [
        run(model, data, choice, dataclasses.replace(settings, include=include), targets)
        for choice, include in _choices(model, drew)
    ]
    for report in reports:
        warn_of(report.rows)
    return reports


def _choices(
    model: Model, drew: Initializer | Mapping[str, Initializer] | None
) -> Iterator[tuple[Choice, list[str] | None]]:
    """Yields the laws that one call applies together, with the paths that this call includes."""
    if is_law(drew):
        yield Choice(drew), None
    else:
        kinds = _kinds(_kernels(model, drew))
        for kernels in kinds:
            yield Choice(assigned=kernels, priors=False), None if len(kinds) == 1 else list(kernels)
    if not is_prior_law(drew) and _has_priors(model):
        yield Choice(assigned={}), None


def _kernels(model: Model, drew: Initializer | Mapping[str, Initializer] | None) -> dict[str, Law]:
    """Returns the law of each kernel that a law drew."""
    sites = list(iter_kernels(model, trace=False))
    if drew is None or isinstance(drew, Mapping):
        found = {site.path: (drew or {}).get(site.path, site.initializer) for site in sites}
    else:  # one initializer draws kernels with fans; the layers' own draw the others
        found = {site.path: site.initializer for site in sites if not site.fans}
    return {path: initializer for path, initializer in found.items() if is_kernel_law(initializer)}


def _kinds(kernels: dict[str, Law]) -> list[dict[str, Law]]:
    """Groups laws: those of single kernels first, then each class of law over the whole model, then heads."""
    kinds: dict[type | str, dict[str, Law]] = {}
    order = ("layer", "unit", "model", "head", "adapter")
    for path, law in sorted(kernels.items(), key=lambda pair: order.index(pair[1].scope)):
        kind = law.scope if law.scope in ("adapter", "head") else "kernel"
        kinds.setdefault(type(law) if law.scope == "model" else kind, {})[path] = law
    return list(kinds.values())


def _has_priors(model: Model) -> bool:
    layers = [site.layer for site in iter_kernels(model, trace=False) if site.bias is not None]
    return any(is_prior_law(getattr(layer, "bias_initializer", None)) for layer in layers)
