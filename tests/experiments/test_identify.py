"""What tells initializers apart: equal in another process, different where they differ."""

import functools
import json
import pathlib
import threading

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.experiments._identity import identify
from keras_initx.strategies import ByRole, MuP
from support import forked

pytestmark = pytest.mark.tensorflow  # its code is the same on each backend


class Quiet:
    """A strategy without a `repr` of its own."""

    def __init__(self, gain):
        self.gain = gain
        self.inner = ByRole()

    def plan(self, sites, model=None):
        return ByRole().plan(sites)


class Silent(keras.initializers.Initializer):
    """An initializer whose config is Keras' empty one."""

    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, self.value, dtype)


def constant(value, shape, dtype=None):
    return keras.ops.full(shape, value, dtype)


def made(scale):
    def draw(shape, dtype=None):
        return keras.ops.full(shape, scale, dtype)

    return draw


def base():
    return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])


# Each differs from all others.
INITIALIZERS = {
    "none": lambda: None,
    "one": lambda: Quiet(1.0),
    "nan": lambda: Quiet(float("nan")),
    "set": lambda: Quiet({"b", "a", "c"}),
    "array": lambda: Quiet(np.arange(3)),
    "other array": lambda: Quiet(np.arange(3) + 1),
    "silent": lambda: Silent(1),
    "silent 2": lambda: Silent(2),
    "function": lambda: constant,
    "part": lambda: functools.partial(constant, 1.0),
    "other part": lambda: functools.partial(constant, 2.0),
    "closure": lambda: made(1.0),
    "other closure": lambda: made(2.0),
    "lambda": lambda: lambda shape, dtype=None: keras.ops.ones(shape, dtype),
    "other lambda": lambda: lambda shape, dtype=None: keras.ops.zeros(shape, dtype),
    "method": lambda: Quiet(4.0).plan,
    "mup": lambda: MuP(base()),
    "registered": lambda: initx.initializers.HeScaled(gain=2.0),
    "keras": lambda: keras.initializers.RandomNormal(0.0, 0.1),
}


def told():
    return {label: identify(make(), label) for label, make in INITIALIZERS.items()}


def test_an_identity_is_the_same_in_another_process_and_no_others():
    here = told()
    assert here == told()  # also NaN
    texts = [json.dumps(identity, sort_keys=True) for identity in here.values()]
    assert len(set(texts)) == len(INITIALIZERS)
    assert not any("0x" in text for text in texts)
    code = f"""
import sys, json, importlib.util
sys.path.insert(0, {str(pathlib.Path(__file__).parents[1])!r})
spec = importlib.util.spec_from_file_location({__name__!r}, {__file__!r})
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(module.told()))
"""
    # Of another order in sets.
    done = forked.run(["-c", code], env=forked.backend("jax", PYTHONHASHSEED="1"), check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == here


class Told(Quiet):
    def get_config(self):
        return {"gain": 1.0}


def test_what_nothing_stable_identifies_is_refused_with_the_cure():
    held = Quiet(threading.Lock())
    with pytest.raises(
        ValueError,
        match=r"`store` needs initializers with an identity.*`initializers\['mine'\]`.*lock.*get_config",
    ):
        identify(held, "mine")
    assert identify(Told(threading.Lock()), "mine")["config"] == {"gain": 1.0}


def test_what_holds_itself_is_told():
    held = Quiet(1.0)
    held.inner = held
    assert "itself" in json.dumps(identify(held, "mine"))
