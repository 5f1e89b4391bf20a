"""The same weights give the same report on all backends."""

import importlib.util
import json

import pytest

from support import forked, signal_readings

pytestmark = pytest.mark.tensorflow  # once, from one of the suites


@pytest.fixture(scope="module")
def own():
    return signal_readings.measure()


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.integration)])
def test_readings_agree_to_four_digits(backend, own):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = forked.run([signal_readings.__file__], env=forked.backend(backend), check=True, timeout=300)
    theirs = json.loads(run.stdout)
    assert theirs.keys() == own.keys()
    for path, numbers in own.items():
        assert theirs[path] == pytest.approx(numbers, rel=1e-4, abs=1e-7), path
