import inspect
import random
import re

import keras
import pytest

from keras_initx import initializers

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def test_names_are_sorted_registered_names():
    names = initializers.names()
    assert names == sorted(names)
    assert all(keras.saving.get_registered_object(name).__name__ == name[6:] for name in names)


@pytest.mark.parametrize(
    "identifier", ["initx>HeScaled", "HeScaled", "he_normal", initializers.HeScaled, initializers.LSUV()]
)
def test_get_takes_names_classes_and_instances(identifier):
    assert callable(initializers.get(identifier))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("initx>HeScaledd", "'initx>HeScaled'"),
        ("lsuv", "'LSUV'"),
        ("he_norml", "'he_normal'"),
        ("xavier_uniform", "'glorot_uniform'"),
        ("kaiming_normal", "'he_normal'"),
        ("qqqqqq", "['initx>ActNormData', 'initx>BetweenLayer'"),  # nothing is like it: all are listed
    ],
)
def test_unknown_name_tells_the_nearest_known_first(wrong, nearest):
    told = re.escape(f"Received: '{wrong}'. Nearest known: {nearest}")
    with pytest.raises(ValueError, match=told):
        initializers.get(wrong)


def test_none_is_refused():
    with pytest.raises(ValueError, match="`initializer` must not be None here"):
        initializers.get(None)


@pytest.mark.parametrize("name", initializers.names())
def test_every_short_name_is_the_registered_one(name):
    assert type(initializers.get(name.partition(">")[2])) is type(initializers.get(name))


def test_a_repr_shows_the_arguments_that_differ_from_the_defaults():
    nested = initializers.ICNR(scale=3, initializer=initializers.HeScaled(activation="gelu"))
    assert repr(initializers.LSUV()) == "LSUV()"
    assert repr(nested) == "ICNR(scale=3, initializer=HeScaled(activation='gelu'))"


def test_a_repr_leaves_the_generator_that_draws_seeds_as_it_was():
    class Theirs(initializers.HeScaled):
        pass

    initializer = Theirs(gain=2.0)
    state = random.getstate()
    assert repr(initializer) == "Theirs(gain=2.0)"
    assert random.getstate() == state


def parameters(cls):
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", initializers.names())
def test_a_signature_names_every_argument_with_its_default(name):
    cls = getattr(initializers, name.removeprefix("initx>"))
    kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    # A config may leave strides=1 out.
    assert parameters(cls).keys() - {"strides"} == cls().get_config().keys()
    assert type(cls(**parameters(cls))) is cls


@pytest.mark.tensorflow
def test_a_recipe_keeps_the_defaults_of_its_class_and_has_no_layout():
    own = parameters(initializers.HeScaled)
    assert own["activation"] == "relu"
    assert own["distribution"] == "normal"
    del own["layout"]
    assert parameters(initializers.HeTransposed) == own | {"strides": 1}
    orthogonal = parameters(initializers.OrthogonalScaled)
    del orthogonal["layout"]
    assert parameters(initializers.GatewiseOrthogonal) == orthogonal | {"gates": None}


@pytest.mark.tensorflow
def test_a_users_subclass_has_the_signature_of_its_own_constructor():
    class Own(initializers.HeScaled):
        def __init__(self, depth=2, **options):
            super().__init__(gain=depth**-0.5, **options)

    class Inherits(initializers.HeScaled):
        pass

    assert list(parameters(Own)) == ["depth", "options"]
    assert parameters(Inherits) == parameters(initializers.HeScaled)
