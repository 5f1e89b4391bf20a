"""The table of all checks, each with the classes that it is for."""

import keras

from keras_initx.testing._case import Case, bias_class, config_of, has_own_repr, holds_seed, law_method
from keras_initx.testing._configs import (
    clone_keeps_the_config,
    config_makes_the_same_initializer,
    name_makes_the_initializer,
    repr_is_the_call_that_makes_it,
    saved_file_keeps_config_and_weights,
)
from keras_initx.testing._draws import (
    axes_reach_it_inside_einsum_and_attention,
    default_dtype_is_floatx,
    draw_has_shape_and_dtype_and_is_finite,
    integer_dtype_is_refused,
)
from keras_initx.testing._laws import (
    error_leaves_the_weights,
    filters_have_a_column_for_each_unit,
    own_law_is_saved_and_found,
    refuses_answers_a_str,
    report_is_what_the_model_measures,
    rescale_keeps_the_form_of_its_arguments,
    search_yields_finite_scales,
)
from keras_initx.testing._rule import Check
from keras_initx.testing._seeds import (
    draw_repeats,
    int_seed_repeats,
    no_seed_draws_afresh,
    one_instance_gives_two_layers_different_weights,
    seed_generator_advances_and_is_saved,
)

__all__ = ["check_initializer", "checks"]

_ALL = (
    name_makes_the_initializer,
    config_makes_the_same_initializer,
    saved_file_keeps_config_and_weights,
    clone_keeps_the_config,
    draw_has_shape_and_dtype_and_is_finite,
    default_dtype_is_floatx,
)
_RANDOM = (
    no_seed_draws_afresh,
    int_seed_repeats,
    seed_generator_advances_and_is_saved,
    one_instance_gives_two_layers_different_weights,
    integer_dtype_is_refused,
)
_LAWS = (refuses_answers_a_str, error_leaves_the_weights, own_law_is_saved_and_found)
# By the method with which `calibrate` applies a law.
_BY_METHOD: dict[str, tuple[Check, ...]] = {
    "rescale": (rescale_keeps_the_form_of_its_arguments, report_is_what_the_model_measures),
    "filters": (filters_have_a_column_for_each_unit,),
    "search": (search_yields_finite_scales,),
    "means": (),
    "solve": (),
    "start": (),
    "": (),
}


def checks(case: Case) -> list[Check]:
    """Returns the checks that apply to an initializer, in the order in which to run them.

    >>> from keras_initx.initializers import ConstantFill
    >>> [check.__name__ for check in checks(Case(ConstantFill, {"value": 0.5}))][:2]
    ['name_makes_the_initializer', 'config_makes_the_same_initializer']

    Args:
        case: The initializer under test.

    Returns:
        Functions of a case. Each returns None, or raises AssertionError with a sentence that names the class,
        the rule and the finding. Checks of seeds are for classes with `seed` in their config. The check of
        axes is for subclasses of `keras.initializers.VarianceScaling` that are for every kernel.
    """
    chosen: list[Check] = [*_ALL]
    if has_own_repr(case):
        chosen.append(repr_is_the_call_that_makes_it)
    config = config_of(case)
    if "seed" in config:
        chosen += _RANDOM
    elif not holds_seed(config):  # the seed of an initializer within it would rule the draw
        chosen.append(draw_repeats)
    for_every_kernel = case.layer is None and not bias_class(case)
    if for_every_kernel and issubclass(case.cls, keras.initializers.VarianceScaling):
        chosen.append(axes_reach_it_inside_einsum_and_attention)
    method = law_method(case)
    if method:
        # Keras saves no initializer of an adapter.
        chosen += [check for check in _LAWS if method != "start" or check is not own_law_is_saved_and_found]
    return [*chosen, *_BY_METHOD[method]]


def check_initializer(case: Case) -> None:
    """Runs all checks that apply to an initializer; no test runner is needed.

    >>> from keras_initx.initializers import HeScaled
    >>> check_initializer(Case(HeScaled, {"gain": 2.0}))

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If a check fails. The message has a line for each check that failed.
    """
    chosen, failed = checks(case), []
    for check in chosen:
        try:
            check(case)
        except AssertionError as error:
            failed.append(f"{check.__name__}: {error}")
    if failed:
        name = case.cls.__name__
        lines = "\n".join(failed)
        raise AssertionError(f"`{name}` fails {len(failed)} of {len(chosen)} checks.\n{lines}")
