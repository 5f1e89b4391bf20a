"""Checks of names, configs and files: the initializer survives all ways in which Keras passes it on."""

import json
import pathlib
import tempfile

import keras
import numpy as np

import keras_initx.initializers as ours
from keras_initx._types import Model
from keras_initx.testing._case import Case
from keras_initx.testing._models import array, drawn_by, initializer_in, model_of
from keras_initx.testing._rule import expect, rule

__all__ = [
    "clone_keeps_the_config",
    "config_makes_the_same_initializer",
    "name_makes_the_initializer",
    "reloaded",
    "repr_is_the_call_that_makes_it",
    "saved_file_keeps_config_and_weights",
]

_PLAIN = (str, int, float, bool, type(None), list, tuple, dict)


@rule("be registered with Keras, and be made by its name, with a default for every argument")
def name_makes_the_initializer(case: Case) -> None:
    """Checks that `kernel_initializer="package>Name"` works.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If the name does not make the class, or a layer with this name gets no finite weights.
    """
    name = keras.saving.get_registered_name(case.cls)
    expect(keras.saving.get_registered_object(name) is case.cls, f"Keras knows no `{name}`")
    expect(type(keras.initializers.get(name)) is case.cls, f"`{name}` makes another class")
    drawn = drawn_by(case, name)
    expect(bool(np.isfinite(drawn).all()), f"a layer with the name `{name}` has weights that are not finite")


@rule("come back from its config, by way of JSON, with all its arguments")
def config_makes_the_same_initializer(case: Case) -> None:
    """Checks that `get_config` holds the arguments of the constructor, and nothing else.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If an argument of the case is missing or changed, the config cannot be JSON, or the
            initializer made from the config has another config.
    """
    config = case.make().get_config()
    for name, given in case.arguments.items():
        expect(name in config, f"the config lacks the argument `{name}`")
        held = config[name]
        # Objects, such as a layout, stand in the config in another form.
        if isinstance(given, _PLAIN) and isinstance(held, _PLAIN):
            same = json.dumps(given) == json.dumps(held) or given == held
            expect(same, f"the config holds {name}={held!r} for {name}={given!r}")
    text = json.dumps(keras.initializers.serialize(case.make()))
    restored = keras.initializers.get(json.loads(text))
    expect(type(restored) is case.cls, f"the config makes a {type(restored).__name__}")
    for way, again in (("JSON", restored), ("the constructor", case.cls(**config))):
        expect(again.get_config() == config, f"{config} became {again.get_config()} by way of {way}")


@rule("have the call that makes it as its repr")
def repr_is_the_call_that_makes_it(case: Case) -> None:
    """Checks that `eval(repr(initializer))` makes an equal initializer.

    It applies to classes with a `__repr__`, which the laws of `keras_initx` inherit. Python evaluates the
    repr with the names of `keras_initx.initializers` and the class itself.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If the repr is not such a call.
    """
    initializer = case.make()
    text = repr(initializer)
    expect(text.startswith(case.cls.__name__), f"the repr {text}")
    made = eval(text, vars(ours) | {case.cls.__name__: case.cls})
    expect(made.get_config() == initializer.get_config(), f"{text}, which has {made.get_config()}")


@rule("be the same in a model that was saved to a `.keras` file and loaded")
def saved_file_keeps_config_and_weights(case: Case) -> None:
    """Checks a model's way through a file.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If the loaded model has another initializer, another config or other weights.
    """
    model = model_of(case, case.make())
    loaded = reloaded(model)
    _expect_same(case, initializer_in(loaded, case.cls), "loaded")
    for new, old in zip(loaded.weights, model.weights, strict=True):
        expect(np.array_equal(array(new), array(old)), f"`{old.path}` has other values in the loaded model")


@rule("be the same in a clone of its model")
def clone_keeps_the_config(case: Case) -> None:
    """Checks `keras.models.clone_model`.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If the clone has another initializer or another config.
    """
    clone = keras.models.clone_model(model_of(case, case.make()))
    _expect_same(case, initializer_in(clone, case.cls), "cloned")


def reloaded(model: Model) -> Model:
    """Returns a model after its way through a `.keras` file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path)


def _expect_same(case: Case, found: object, which: str) -> None:
    expect(found is not None, f"the {which} model has no initializer of this class")
    assert isinstance(found, keras.initializers.Initializer)
    config, own = found.get_config(), case.make().get_config()
    expect(config == own, f"{own} became {config} in the {which} model")
