"""The laws among what drew a model, whoever chose them: one for all, a strategy, or the layers themselves."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_initx.calibration._calibrate import calibrate
from keras_initx.calibration._choice import Assigned, is_law, of_kernels
from keras_initx.calibration._report import CalibrationReport
from keras_initx.initializers import LabelPrior, ModelLaw
from keras_initx.walk import iter_kernels

__all__ = ["calibrate_drawn"]


def calibrate_drawn(
    model: Any, data: Any, drew: Any, *, targets: Any = None, seed: int | None = None
) -> list[CalibrationReport]:
    """Applies the laws among the initializers that drew the weights of a model.

    Laws of single kernels come first, in one pass; then those over the whole model; then priors of biases.

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
        data: As in `calibrate`.
        drew: What drew all kernels; or a dict of a kernel's path and what drew it, where all others were
            drawn by their layers' own initializers; or None where all were.
        targets: As in `calibrate`.
        seed: As in `calibrate`.

    Returns:
        The reports, one for each kind of law; none where nothing is a law.

    Raises:
        ValueError: As in `calibrate`.
    """
    if is_law(drew):
        reports = [calibrate(model, data, drew, targets=targets, seed=seed)]
    else:
        reports = [
            calibrate(model, data, Assigned(kernels), targets=targets, seed=seed, include=include)
            for kernels, include in _kinds(_kernels(model, drew))
        ]
    if not isinstance(drew, LabelPrior) and _has_priors(model):
        reports.append(calibrate(model, data, Assigned({}, priors=True), targets=targets, seed=seed))
    return reports


def _kernels(model: Any, drew: Any) -> dict[str, Any]:
    """The law of each kernel that was drawn by one."""
    sites = list(iter_kernels(model, trace=False))
    if drew is None or isinstance(drew, Mapping):
        found = {site.path: (drew or {}).get(site.path, site.initializer) for site in sites}
    else:  # what has no fans is left to the layers' own
        found = {site.path: site.initializer for site in sites if not site.fans}
    return {path: initializer for path, initializer in found.items() if of_kernels(initializer)}


def _kinds(kernels: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[str] | None]]:
    """Laws that one call of `calibrate` applies together, and what to include there."""
    kinds: dict[Any, dict[str, Any]] = {}
    for path, law in sorted(kernels.items(), key=lambda pair: isinstance(pair[1], ModelLaw)):
        kinds.setdefault(type(law) if isinstance(law, ModelLaw) else None, {})[path] = law
    for kind in kinds.values():
        yield kind, None if len(kinds) == 1 else list(kind)


def _has_priors(model: Any) -> bool:
    layers = [site.layer for site in iter_kernels(model, trace=False) if site.bias is not None]
    return any(isinstance(getattr(layer, "bias_initializer", None), LabelPrior) for layer in layers)
