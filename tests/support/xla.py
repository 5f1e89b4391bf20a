"""TensorFlow's `fit` without XLA, which compiles for seconds what a test runs for milliseconds.

Keras' default, `jit_compile="auto"`, then runs TensorFlow's own kernels. Still compiled are models that ask
for `jit_compile=True`, those that a test of the mark `xla` trains, those of the tutorial, and those of JAX.
As a pytest plugin it rules all tests and doctests.
"""

import contextlib

import pytest

_resolve = []


def off():
    """In this process, from now on."""
    import keras
    from keras.src.trainers.trainer import Trainer

    if keras.backend.backend() == "tensorflow" and not _resolve:
        _resolve.append(Trainer._resolve_auto_jit_compile)
        Trainer._resolve_auto_jit_compile = lambda self: False


@contextlib.contextmanager
def on():
    """For a while, as Keras has it."""
    from keras.src.trainers.trainer import Trainer

    before = Trainer._resolve_auto_jit_compile
    Trainer._resolve_auto_jit_compile = (_resolve or [before])[0]
    try:
        yield
    finally:
        Trainer._resolve_auto_jit_compile = before


@pytest.fixture(scope="session", autouse=True)
def _without_xla():
    off()


@pytest.fixture(autouse=True)
def _as_marked(request):
    """With XLA, where the mark asks for it."""
    page = request.node.nodeid.startswith("docs/tutorial.md")
    with on() if page or request.node.get_closest_marker("xla") else contextlib.nullcontext():
        yield
