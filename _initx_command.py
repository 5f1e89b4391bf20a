"""The command `initx`, without the lines that TensorFlow writes to stderr as it is imported."""

import contextlib
import os
from collections.abc import Iterator


def main() -> int:
    """Runs the command and returns its exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _quiet():
        from keras_initx.cli import main
    return main()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that Python can set keeps them back: they are written before any logging is set up."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
