"""Checks of laws: the part of an initializer that only `calibrate` runs."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np

from keras_initx.initializers import Law, Task
from keras_initx.testing._case import Case, law_method
from keras_initx.testing._configs import reloaded
from keras_initx.testing._models import array, calibrated, data_of, law_model, values, zoo
from keras_initx.testing._rule import expect, rule

__all__ = [
    "error_leaves_the_weights",
    "filters_have_a_column_for_each_unit",
    "own_law_is_saved_and_found",
    "refuses_answers_a_str",
    "report_is_what_the_model_measures",
    "rescale_keeps_the_form_of_its_arguments",
    "search_yields_finite_scales",
]


class _InjectedError(Exception):
    """The error that a check raises in the middle of a calibration."""


@rule("have a report that is true of the finished model")
def report_is_what_the_model_measures(case: Case) -> None:
    """Calibrates a small model, runs it again, and compares the report with the outputs.

    It applies to laws with `rescale`. Such a law must not change the arrays that it is given: they are the
    moments that the report is made of.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If no kernel is calibrated, or `std_after` differs from the standard deviation of the
            pre-activations by more than 1e-3 of it.
    """
    law = case.make()
    model, _ = law_model(case, law)
    report = calibrated(model, law)
    notes = {row.path: row.note for row in report.rows}
    expect(report.calibrated > 0, f"no kernel was calibrated: {notes}")
    (inputs, _), compared = data_of(model), 0
    for row in report.rows:
        layer = next((layer for layer in model.layers if layer.name == row.path), None)
        if layer is None or row.std_after is None:  # a kernel inside a layer has no output of its own
            continue
        found = float(np.std(array(keras.Model(model.inputs[0], layer.output)(inputs))))
        compared += 1
        true = abs(row.std_after - found) <= 1e-3 * found
        expect(true, f"std_after={row.std_after:.6g} for `{row.path}`, and a std of {found:.6g} in the model")
    expect(compared > 0, f"no row of a layer with an output of its own: {notes}")


@rule("leave every weight as it was, bit by bit, if an error ends the calibration")
def error_leaves_the_weights(case: Case) -> None:
    """Raises an error in the first and in the second call of the law's method, or of its search.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If a weight differs after the error, or `calibrate` never called the law.
    """
    for number in (1, 2):
        law, method = case.make(), law_method(case)
        model, _ = law_model(case, law)
        before = values(model)
        # On the class: for some kernels `calibrate` makes a copy of the law, with axes and a seed.
        failing = mock.patch.object(case.cls, method, _failing(case.cls, method, number))
        try:
            with failing:
                calibrated(model, law)
        except _InjectedError:
            pairs = zip(values(model), before, model.weights, strict=True)
            changed = [weight.path for new, old, weight in pairs if new.tobytes() != old.tobytes()]
            expect(not changed, f"an error in call {number} of `{method}`, and other values in {changed}")
        else:  # a law of heads is called once
            expect(number == 2, f"`calibrate` did not call `{method}`")


def _failing(cls: type, method: str, number: int) -> Callable[..., Any]:
    """Returns the method of a law that raises an error in a call, or after a candidate of its search."""
    own, calls = getattr(cls, method), itertools.count(1)

    def call(self: Law, *arguments: object) -> Any:
        if next(calls) == number:
            raise _InjectedError
        return own(self, *arguments)

    def search(self: Law, task: Task) -> Iterator[Any]:
        for candidate in own(self, task):
            if next(calls) == number:
                raise _InjectedError
            yield candidate

    return search if method == "search" else call


@rule("be saved with its layer, and be found there by `calibrate(model, data)`")
def own_law_is_saved_and_found(case: Case) -> None:
    """Calibrates a loaded model by the law that its layer holds.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If the law is not found, its layer is not the only one to be calibrated, or the loaded
            model ends with other weights than the model that was saved.
    """
    model, own = law_model(case, case.make())
    loaded = reloaded(model)
    reports = calibrated(model, None), calibrated(loaded, None)
    for which, report in zip(("saved", "loaded"), reports, strict=True):
        layers = sorted({row.path.split("/")[0] for row in report.rows})
        expect(layers == [own.name], f"the {which} model calibrates {layers}, not [{own.name!r}]")
        expect(report.calibrated > 0, f"no kernel was calibrated: {report.rows[0].note}")
    for new, old in zip(loaded.weights, model.weights, strict=True):
        close = np.allclose(array(new), array(old), rtol=1e-3, atol=1e-5)
        expect(close, f"`{old.path}` is calibrated to other values in the loaded model")


@rule("answer `refuses(site)` with a str for every kernel: the reason, or an empty str")
def refuses_answers_a_str(case: Case) -> None:
    """Asks the law about kernels of dense, convolution, einsum, embedding, attention and recurrent layers.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If an answer is not a str, or `refuses` raises an error.
    """
    law = case.make()
    for site in zoo():
        about = f"for the {site.role} kernel of {type(site.layer).__name__}"
        try:
            answer = law.refuses(site)
        except Exception as error:
            expect(False, f"{type(error).__name__}: {error} {about}")
        expect(isinstance(answer, str), f"{answer!r} {about}")


@rule("return a finite scale other than 0 and a finite shift, in the form of mean and std")
def rescale_keeps_the_form_of_its_arguments(case: Case) -> None:
    """Calls `rescale` on arrays for a law with scope `"unit"`, and on floats for a law with scope `"layer"`.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If an answer has another shape or is not finite, a scale is 0, or `rescale` changes
            its arguments.
    """
    mean, std = np.array([3.0, -1.0, 0.0]), np.array([2.0, 0.5, 1.0])
    shape = mean.shape if case.cls.scope == "unit" else ()
    given = (mean.copy(), std.copy()) if shape else (3.0, 2.0)
    scale, shift = case.make().rescale(*given)
    for name, answer in (("scale", scale), ("shift", shift)):
        found = f"a {name} of shape {np.shape(answer)} for mean and std of shape {shape}"
        expect(np.shape(answer) == shape, found)
        expect(bool(np.isfinite(answer).all()), f"the {name} {answer}")
    expect(bool(np.all(np.asarray(scale) != 0)), f"the scale {scale}")
    if shape:
        same = np.array_equal(given[0], mean) and np.array_equal(given[1], std)
        expect(same, "`rescale` changes the arrays that it is given")


@rule("return filters as a finite matrix of shape (fan_in, units)")
def filters_have_a_column_for_each_unit(case: Case) -> None:
    """Calls `filters` for fewer and for more units than the inputs have entries.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If the matrix has another shape, or a value that is not finite.
    """
    inputs = np.random.default_rng(0).normal(0.5, 2.0, (64, 5))
    for units in (3, 7):
        filters = np.asarray(case.make().filters(inputs.copy(), units))
        asked = f"for inputs of shape {inputs.shape}, units={units}"
        expect(filters.shape == (5, units), f"the shape {filters.shape} {asked}")
        expect(bool(np.isfinite(filters).all()), f"values that are not finite {asked}")


@rule("yield finite scales of shape (weights,), each with a tuple of numbers that ranks it")
def search_yields_finite_scales(case: Case) -> None:
    """Looks at each candidate of a law over the model while a small model is calibrated.

    Args:
        case: The law under test.

    Raises:
        AssertionError: If there is no candidate, a candidate has another shape or is not finite, or its tuple
            has another length than `ranked_by`.
    """
    law = case.make()
    model, _ = law_model(case, law)
    own, looked_at = law.search, itertools.count()

    def search(task: Task) -> Iterator[Any]:
        shape = np.shape(task.is_kernel)
        for scales, value in own(task):
            next(looked_at)
            expect(np.shape(scales) == shape, f"scales of shape {np.shape(scales)} for weights of {shape}")
            expect(bool(np.isfinite(scales).all()), f"the scales {scales}")
            ranked = isinstance(value, tuple) and len(value) == len(law.ranked_by)
            expect(ranked, f"the value {value!r} for ranked_by={law.ranked_by}")
            yield scales, value

    law.search = search
    calibrated(model, law)
    expect(next(looked_at) > 0, "no candidate")
