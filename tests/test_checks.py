"""The checks of arguments that several rooms share."""

import ast
import math
import pathlib

import numpy as np
import pytest

from keras_initx import checks

pytestmark = pytest.mark.tensorflow
PACKAGE = pathlib.Path(__file__).parents[1] / "keras_initx"


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (checks.check_seed(None), None),
        (checks.check_seed(np.int32(3)), 3),
        (checks.check_switch("training", np.bool_(True)), True),
        (checks.check_positive("gain", 2), 2.0),
        (checks.check_positive("gain", np.float32(0.5)), 0.5),
        (checks.check_finite("beta", -1), -1.0),
        (checks.check_count("steps", np.int64(4)), 4),
        (checks.check_count("retries", 0, least=0), 0),
        (checks.check_choice("mode", "a", {"a": 1}), "a"),
    ],
)
def test_a_check_returns_the_value_in_a_plain_type(given, returned):
    assert given == returned
    assert type(given) is type(returned)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True])
def test_seeds_that_are_refused(seed):
    with pytest.raises(ValueError, match=r"`seed` must be None or an int of at least 0\. Received: seed="):
        checks.check_seed(seed)


@pytest.mark.parametrize("value", ["False", 1, None])
def test_switches_that_are_refused(value):
    with pytest.raises(ValueError, match=r"`training` must be True or False\. Received: training="):
        checks.check_switch("training", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "1", True, None])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(ValueError, match=r"`gain` must be a positive, finite number\. Received: gain="):
        checks.check_positive("gain", value)


@pytest.mark.parametrize("value", [math.inf, math.nan, "1", True, None])
def test_numbers_that_are_not_finite(value):
    with pytest.raises(ValueError, match=r"`beta` must be a finite number\. Received: beta="):
        checks.check_finite("beta", value)


@pytest.mark.parametrize("value", [1, 2.0, "2", True, None])
def test_counts_that_are_refused(value):
    with pytest.raises(ValueError, match=r"`steps` must be an int of at least 2\. Received: steps="):
        checks.check_count("steps", value, least=2)


@pytest.mark.parametrize("value", ["c", 1, None, ["a"]])
def test_choices_that_are_refused(value):
    with pytest.raises(ValueError, match=r"`mode` must be one of \['a', 'b'\]\. Received: mode="):
        checks.check_choice("mode", value, ("b", "a"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Exception encountered when calling Dense.call().\n\n\x1b[1mToo wide.\x1b[0m\n\nArguments",
            "Too wide.",
        ),
        ("\n  two words  \nmore", "two words"),
        ("{{function_node __wrapped__MatMul}} Matrix size-incompatible\n", "Matrix size-incompatible"),
        ("", ""),
    ],
)
def test_the_first_line_of_an_error(text, line):
    assert checks.first_line(RuntimeError(text)) == (line or "RuntimeError")
    assert checks.first_line(RuntimeError(text), kind=True) == f"RuntimeError{': ' if line else ''}{line}"


def test_no_other_module_writes_these_messages():
    """Each rule has one spelling and one place."""
    rules = (
        "must be None or an int of at least 0",
        "must be True or False. Received",
        "must be a positive, finite",
    )
    for path in PACKAGE.rglob("*.py"):
        if path.name == "checks.py":
            continue
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        found = [text for text in texts if isinstance(text, str) and any(rule in text for rule in rules)]
        assert not found, path
