"""The kit for users' own initializers: our classes pass it, and each check catches a broken class."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx.testing as testing
from keras_initx.initializers import (
    ICNR,
    LSUV,
    BetweenLayer,
    ChronoBias,
    ConstantFill,
    ConvOrthogonal,
    HeScaled,
    LabelPrior,
    LinearProbe,
    OrthogonalScaled,
    PCAFilters,
    PriorBias,
    WithinLayer,
)
from keras_initx.testing import Case
from support import forked

OURS = {
    case.cls.__name__: case
    for case in (
        Case(HeScaled, {"gain": 1.5, "mode": "fan_out", "activation": "gelu"}),
        Case(OrthogonalScaled, {"gain": 2.0}),
        Case(ConstantFill, {"value": 0.25}),
        Case(PriorBias, {"prior": 0.2}),
        Case(ChronoBias, {"max_timescale": 50.0}, [(8,)], lambda i: layers.Dense(8, bias_initializer=i)),
        Case(
            ConvOrthogonal,
            {"gain": 2.0},
            [(3, 5, 7), (3, 3, 4, 8)],
            lambda i: layers.Conv1D(8, 3, kernel_initializer=i),
            (5, 4),
        ),
        Case(
            ICNR,
            {"scale": 2},
            [(3, 5, 8), (3, 3, 4, 8)],
            lambda i: layers.Conv1D(8, 3, kernel_initializer=i),
            (5, 4),
        ),
        Case(LSUV, {"target_std": 0.5, "remove_mean": True}),
        Case(WithinLayer, {"beta": 0.1}),
        Case(PCAFilters, {"gain": 2.0}),
        Case(BetweenLayer, {"steps": 3, "tolerance": 0.1}),
        Case(LabelPrior, {"form": "binary", "smoothing": 0.5}),
        Case(LinearProbe, {"regularization": 0.5}),
    )
}
KINDS = {"Case", "check_initializer", "checks"}
CHECKS = {name: getattr(testing, name) for name in testing.__all__ if name not in KINDS}


# On other backends `test_contract.py` holds these classes to the same rules, and no check needs them.
ONCE = {"ConvOrthogonal", "ICNR", "OrthogonalScaled", "PriorBias", "WithinLayer"}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, marks=pytest.mark.tensorflow if name in ONCE else ())
        for name, case in OURS.items()
        for check in testing.checks(case)
    ],
)
def test_our_classes_pass(name, check):
    check(OURS[name])


def test_the_handful_needs_every_check():
    kept = [case for name, case in OURS.items() if name not in ONCE]
    assert {check for case in kept for check in testing.checks(case)} == set(CHECKS.values())


registered = keras.saving.register_keras_serializable(package="broken")


class Unregistered(HeScaled):
    pass


@registered
class NeedsAnArgument(HeScaled):
    def __init__(self, factor, **more):
        super().__init__(**more)


@registered
class DropsAnArgument(LSUV):
    """The config tells a default in place of the argument."""

    def get_config(self):
        return super().get_config() | {"target_std": 1.0}


@registered
class OtherRepr(HeScaled):
    def __repr__(self):
        return "OtherRepr()"


@registered
class MakesAnother(HeScaled):
    @classmethod
    def from_config(cls, config):
        return HeScaled(**config)


@registered
class LosesTheGain(HeScaled):
    @classmethod
    def from_config(cls, config):
        return cls(**config | {"gain": 1.0})


@registered
class LosesTheAxes(HeScaled):
    @classmethod
    def from_config(cls, config):
        return cls(**config | {"input_axes": None, "output_axes": None})


@registered
class Overflows(ConstantFill):
    """1e6 is infinite in float16."""

    def __call__(self, shape, dtype=None):
        return ops.cast(ops.full(shape, 1e6, "float32"), dtype or keras.config.floatx())


@registered
class OneDtype(ConstantFill):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape, "float32")


@registered
class OneDtypeByDefault(ConstantFill):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape, dtype or "float32")


@registered
class Turned(ConstantFill):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape[::-1], dtype)


@registered
class Rounds(HeScaled):
    def __call__(self, shape, dtype=None):
        return ops.cast(super().__call__(shape, "float32"), dtype or keras.config.floatx())


@registered
class IgnoresTheSeed(HeScaled):
    def __call__(self, shape, dtype=None):
        self.seed = None
        return super().__call__(shape, dtype)


@registered
class OneStream(HeScaled):
    """All seeds draw the same values."""

    def __call__(self, shape, dtype=None):
        self.seed = 7
        return super().__call__(shape, dtype)


@registered
class IgnoresSetRandomSeed(HeScaled):
    count = 0

    def __call__(self, shape, dtype=None):
        type(self).count += 1
        self.seed = self.count
        return super().__call__(shape, dtype)


@registered
class SavesNoGenerator(HeScaled):
    def get_config(self):
        return super().get_config() | {"seed": None}


@registered
class SecretlyRandom(ConstantFill):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape, dtype) * float(np.random.default_rng().uniform())

    def __repr__(self):
        return "nothing"


@registered
class AnswersNone(LSUV):
    def refuses(self, site):
        return None


@registered
class Stumbles(LSUV):
    """A law that knows convolutions alone."""

    def refuses(self, site):
        return "" if site.layer.groups == 1 else "groups"


@registered
class Writes(LSUV):
    """It changes a kernel where it is asked a question, so that nobody can undo it."""

    def refuses(self, site):
        site.kernel.assign(2.0 * site.kernel)
        return ""


@registered
class NeverAsked(PCAFilters):
    """It refuses all kernels."""

    def refuses(self, site):
        return "no kernel is good enough"


@registered
class Pools(WithinLayer):
    """One scale for all units, in place of one for each."""

    def rescale(self, mean, std):
        return 1.0 / float(np.mean(std)), -mean / std


@registered
class GivesNaN(LSUV):
    def rescale(self, mean, std):
        return float("nan"), 0.0


@registered
class Silences(LSUV):
    def rescale(self, mean, std):
        return 0.0, 0.0


@registered
class Overwrites(WithinLayer):
    """It writes into the moments that the report is made of."""

    def rescale(self, mean, std):
        mean -= 3.0
        return 1 / std, -(mean + 3.0) / std


@registered
class Rows(PCAFilters):
    def filters(self, inputs, units):
        return super().filters(inputs, units).T


@registered
class Lost(PCAFilters):
    def filters(self, inputs, units):
        return np.nan * super().filters(inputs, units)


class SearchLaw(BetweenLayer):
    def scales(self, task):
        return np.ones(len(task.is_kernel))

    def search(self, task):
        yield self.scales(task), (0.0,)


@registered
class OneScale(SearchLaw):
    def scales(self, task):
        return np.ones(())


@registered
class InfiniteScales(SearchLaw):
    def scales(self, task):
        return super().scales(task) * np.inf


@registered
class NotRanked(SearchLaw):
    def search(self, task):
        yield self.scales(task), (0.0, 1.0)


@registered
class Empty(SearchLaw):
    def search(self, task):
        yield from ()


HE_NORMAL = keras.initializers.HeNormal
# A check, a class that it has to catch, and words of the finding.
BROKEN = [
    ("name_makes_the_initializer", Case(Unregistered), "Found: Keras knows no `Unregistered`."),
    (
        "name_makes_the_initializer",
        Case(NeedsAnArgument),
        "Found: TypeError: .*because of TypeError: .*'factor'",
    ),
    (
        "config_makes_the_same_initializer",
        Case(DropsAnArgument, {"target_std": 0.5}),
        "Found: the config holds target_std=1.0 for target_std=0.5.",
    ),
    (
        "config_makes_the_same_initializer",
        Case(NeedsAnArgument, {"factor": 2.0}),
        "lacks the argument `factor`",
    ),
    ("config_makes_the_same_initializer", Case(MakesAnother), "the config makes a HeScaled"),
    ("config_makes_the_same_initializer", Case(LosesTheGain, {"gain": 2.0}), "'gain': 1.0.* by way of JSON"),
    ("repr_is_the_call_that_makes_it", Case(OtherRepr, {"gain": 2.0}), r"OtherRepr\(\), which has"),
    ("saved_file_keeps_config_and_weights", Case(MakesAnother), "loaded model has no initializer of this"),
    (
        "saved_file_keeps_config_and_weights",
        Case(Unregistered),
        "Found: TypeError: .*because of ValueError: .*Unregistered",
    ),
    ("clone_keeps_the_config", Case(LosesTheGain, {"gain": 2.0}), "'gain': 1.0.* in the cloned model"),
    ("draw_has_shape_and_dtype_and_is_finite", Case(Overflows), "not finite for .* dtype='float16'"),
    ("draw_has_shape_and_dtype_and_is_finite", Case(OneDtype), "dtype float32 for .* dtype='float16'"),
    ("draw_has_shape_and_dtype_and_is_finite", Case(Turned), r"the shape \(4, 6\) for shape=\(6, 4\)"),
    ("default_dtype_is_floatx", Case(OneDtypeByDefault), "float32 where floatx is float16"),
    ("integer_dtype_is_refused", Case(Rounds), "a tensor of dtype int32"),
    ("no_seed_draws_afresh", Case(HE_NORMAL), "two calls give equal values"),
    ("no_seed_draws_afresh", Case(IgnoresSetRandomSeed), "does not bring the first values back"),
    ("int_seed_repeats", Case(IgnoresTheSeed), "two calls with seed=3 differ"),
    ("int_seed_repeats", Case(OneStream), "seed=3 and seed=4 give equal values"),
    ("seed_generator_advances_and_is_saved", Case(SavesNoGenerator), "starts with other values"),
    ("seed_generator_advances_and_is_saved", Case(OneStream), "two calls give equal values"),
    ("one_instance_gives_two_layers_different_weights", Case(HE_NORMAL), "both layers have equal weights"),
    ("draw_repeats", Case(SecretlyRandom), "two calls differ"),
    ("axes_reach_it_inside_einsum_and_attention", Case(LosesTheAxes), r"axes \(None, None\) for shape="),
    ("refuses_answers_a_str", Case(AnswersNone), "Found: None for the dense kernel of Dense"),
    ("refuses_answers_a_str", Case(Stumbles), "AttributeError: .*groups.* for the dense kernel of Dense"),
    ("error_leaves_the_weights", Case(Writes), "an error in call 1 of `rescale`, and other values in"),
    ("error_leaves_the_weights", Case(NeverAsked), "`calibrate` did not call `filters`"),
    ("own_law_is_saved_and_found", Case(DropsAnArgument, {"target_std": 0.5}), "calibrated to other values"),
    ("own_law_is_saved_and_found", Case(NeverAsked), "no kernel is good enough"),
    ("rescale_keeps_the_form_of_its_arguments", Case(Pools), r"a scale of shape \(\) for .* shape \(3,\)"),
    ("rescale_keeps_the_form_of_its_arguments", Case(GivesNaN), "the scale nan"),
    ("rescale_keeps_the_form_of_its_arguments", Case(Silences), "the scale 0.0"),
    ("rescale_keeps_the_form_of_its_arguments", Case(Overwrites), "changes the arrays that it is given"),
    ("report_is_what_the_model_measures", Case(Overwrites), "std_after=.* and a std of .* in the model"),
    ("filters_have_a_column_for_each_unit", Case(Rows), r"the shape \(3, 5\)"),
    ("filters_have_a_column_for_each_unit", Case(Lost), "not finite for inputs"),
    ("search_yields_finite_scales", Case(OneScale), r"scales of shape \(\) for weights of \(\d+,\)"),
    ("search_yields_finite_scales", Case(InfiniteScales), "the scales .*inf"),
    (
        "search_yields_finite_scales",
        Case(NotRanked),
        r"the value \(0.0, 1.0\) for ranked_by=\('objective',\)",
    ),
    ("search_yields_finite_scales", Case(Empty), "ValueError: `data` must keep"),
]


@pytest.mark.parametrize(
    ("name", "case", "found"), BROKEN, ids=[f"{name}-{case.cls.__name__}" for name, case, _ in BROKEN]
)
def test_a_check_catches_a_broken_class(name, case, found):
    check = CHECKS[name]
    assert check in testing.checks(case)
    with pytest.raises(AssertionError, match=f"^`{case.cls.__name__}` must .*{found}"):
        check(case)


def test_each_check_has_a_broken_class():
    assert {name for name, _, _ in BROKEN} == set(CHECKS)


def test_all_failures_are_told_together():
    lines = [
        "`SecretlyRandom` fails 2 of 8 checks.",
        "repr_is.*: `Secretly.* must .*",
        "draw_repeats: .* must .*",
    ]
    with pytest.raises(AssertionError, match="\n".join(lines)):
        testing.check_initializer(Case(SecretlyRandom))


def test_a_layer_that_does_not_use_its_argument_is_told():
    case = Case(HeScaled, layer=lambda initializer: layers.Dense(3))
    with pytest.raises(AssertionError, match="Found: ValueError: `layer` must use its argument"):
        testing.one_instance_gives_two_layers_different_weights(case)


@pytest.mark.parametrize("cls", [HeScaled(), "initx>HeScaled", len])
def test_a_case_is_of_a_class(cls):
    with pytest.raises(ValueError, match="`cls` must be a class derived from .* Received: cls="):
        Case(cls)


def test_floatx_stays():
    with pytest.raises(AssertionError):
        testing.default_dtype_is_floatx(Case(OneDtypeByDefault))
    assert keras.config.floatx() == "float32"


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
def test_the_kit_is_imported_by_name_and_without_pytest():
    code = (
        "import sys, keras_initx\n"
        "assert 'keras_initx.testing' not in sys.modules\n"
        "before = set(sys.modules); import keras_initx.testing\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= sys.stdlib_module_names | {'keras_initx'}, new"
    )
    forked.run(["-c", code], preload="keras", check=True)
