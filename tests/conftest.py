"""What all tests share: quiet frameworks, and the mark of tests that need TensorFlow's backend."""

import gc
import os
import pathlib
import socket
import subprocess
import types

import pytest

from support import forked

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# One thread for each worker: the arrays of tests are small, and threads that wait for work spin beside the
# other worker. `make test-other-kernels` runs on all threads.
if os.environ.get("INITX_TEST_THREADS") != "all":
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Keras is imported in functions: the process that hands the tests to the workers needs none.
pytest_plugins = ["support.durations"]


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Gives each test the same random streams whatever ran before it."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _process_of_exports():
    """Is forked from one that has imported TensorFlow, each time that it starts."""
    import keras

    if keras.backend.backend() == "tensorflow":
        from keras_initx.saved_model import _process

        _process.subprocess = types.SimpleNamespace(**vars(subprocess) | {"Popen": forked.ForExports})


@pytest.fixture(scope="module", autouse=True)
def _memory():
    """JAX keeps all that it compiled: without this a worker grows to 6 GiB."""
    yield
    import keras

    if keras.backend.backend() == "jax" and _resident() > 2.5 * 2**30:
        import jax

        jax.clear_caches()
        gc.collect()


def _resident():
    """Bytes of memory that this process has now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pytest_collection_finish():
    """Keeps the garbage collector off the frameworks' modules, which it would visit hundreds of times."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(trylast=True)  # after -m has deselected
def pytest_collection_modifyitems(items):
    """A test that needs TensorFlow's backend fails under another one rather than being skipped unseen."""
    import keras

    if keras.backend.backend() == "tensorflow":
        return
    chosen = [item for item in items if item.get_closest_marker("tensorflow")]
    if chosen:
        raise pytest.UsageError(
            f"{len(chosen)} tests need the TensorFlow backend; deselect them with -m 'not tensorflow'."
        )
