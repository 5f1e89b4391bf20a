"""Checks for an initializer or a law of your own: the rules that the classes of this package keep.

Import it by its full name. It needs no test runner.

    import keras_initx.testing as testing

    case = testing.Case(MyInitializer, {"gain": 2.0})

    @pytest.mark.parametrize("check", testing.checks(case))
    def test_my_initializer_keeps_the_rules(check):
        check(case)
"""

from keras_initx.testing._case import (
    Case,
)
from keras_initx.testing._checks import (
    check_initializer,
    checks,
)
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
from keras_initx.testing._seeds import (
    draw_repeats,
    int_seed_repeats,
    no_seed_draws_afresh,
    one_instance_gives_two_layers_different_weights,
    seed_generator_advances_and_is_saved,
)

__all__ = [
    "Case",
    "axes_reach_it_inside_einsum_and_attention",
    "check_initializer",
    "checks",
    "clone_keeps_the_config",
    "config_makes_the_same_initializer",
    "default_dtype_is_floatx",
    "draw_has_shape_and_dtype_and_is_finite",
    "draw_repeats",
    "error_leaves_the_weights",
    "filters_have_a_column_for_each_unit",
    "int_seed_repeats",
    "integer_dtype_is_refused",
    "name_makes_the_initializer",
    "no_seed_draws_afresh",
    "one_instance_gives_two_layers_different_weights",
    "own_law_is_saved_and_found",
    "refuses_answers_a_str",
    "report_is_what_the_model_measures",
    "repr_is_the_call_that_makes_it",
    "rescale_keeps_the_form_of_its_arguments",
    "saved_file_keeps_config_and_weights",
    "search_yields_finite_scales",
    "seed_generator_advances_and_is_saved",
]
