import keras
import pytest

from keras_initx import initializers


def test_names_are_sorted_registered_names():
    names = initializers.names()
    assert names == sorted(names)
    assert all(keras.saving.get_registered_object(name).__name__ == name[6:] for name in names)


@pytest.mark.parametrize(
    "identifier", ["initx>HeScaled", "he_normal", initializers.HeScaled, initializers.LSUV()]
)
def test_get_takes_names_classes_and_instances(identifier):
    assert callable(initializers.get(identifier))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("initx>HeScaledd", "'initx>HeScaled'"),
        ("lsuv", "'initx>LSUV'"),
        ("HeScaled", "'initx>HeScaled'"),
        ("he_nromal", "'he_normal'"),
        ("qqqqqq", "'initx>ConstantFill'"),
    ],
)
def test_unknown_name_lists_the_nearest_known(wrong, nearest):
    with pytest.raises(ValueError, match=f"Received: '{wrong}'. Nearest known: .*{nearest}"):
        initializers.get(wrong)


def test_none_is_refused():
    with pytest.raises(ValueError, match="`initializer` must not be None here"):
        initializers.get(None)
