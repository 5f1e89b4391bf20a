"""What all tests share: quiet frameworks, and the mark of tests that need TensorFlow's backend."""

import os
import socket

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

pytest_plugins = ["support.durations"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Gives each test the same random streams whatever ran before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.hookimpl(trylast=True)  # after -m has deselected
def pytest_collection_modifyitems(items):
    """A test that needs TensorFlow's backend fails under another one rather than being skipped unseen."""
    if keras.backend.backend() == "tensorflow":
        return
    chosen = [item for item in items if item.get_closest_marker("tensorflow")]
    if chosen:
        raise pytest.UsageError(
            f"{len(chosen)} tests need the TensorFlow backend; deselect them with -m 'not tensorflow'."
        )
