"""The import of `keras_initx`, with a line on stderr before it."""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator

__all__ = ["backend", "load"]

_TITLES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def load() -> None:
    """Imports `keras_initx`, unless this process has imported it before.

    The import takes seconds, so a line on stderr says so. A verb calls `load` after it has checked everything
    that it can check without Keras. On JAX a second line says that the first run compiles.
    """
    if "keras_initx" in sys.modules:
        return
    name = backend()
    print(f"initx: importing Keras and {_TITLES.get(name, name)} ...", file=sys.stderr, flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = _keep_programs() if name == "jax" else ""
    with _quiet():
        import keras_initx  # noqa: F401
    if kept:
        print(
            f"initx: the first run of a model compiles its operations; later runs take them from {kept}",
            file=sys.stderr,
            flush=True,
        )


def _keep_programs() -> str:
    """Has JAX keep in a folder of the user's what it compiles, and returns this folder.

    JAX compiles each operation for each shape. That takes most of the time of a command, and by default the
    programs end with the process. A folder that the user has set for JAX stays, with its limits. Returns ""
    if the user has turned JAX's cache off.
    """
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false"):
        return ""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return chosen
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = str(cache / "keras_initx" / "jax")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # By default JAX keeps only what took a second to compile.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    return folder


def backend() -> str:
    """Returns the name of the backend that Keras is going to choose.

    Keras looks at the environment variable `KERAS_BACKEND`, then at `keras.json` in its folder, and takes
    TensorFlow otherwise (https://keras.io/getting_started/#configuring-your-backend).
    """
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    home = pathlib.Path.home() if os.access(pathlib.Path.home(), os.W_OK) else pathlib.Path("/tmp")
    folder = pathlib.Path(os.environ.get("KERAS_HOME", home / ".keras")).expanduser()
    try:
        return str(json.loads((folder / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the lines that TensorFlow writes to stderr while it is imported.

    TensorFlow writes these lines in C++ before any logging is set up, so nothing in Python can turn them off.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
