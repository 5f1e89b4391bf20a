"""The command `initx`.

It is a package beside `keras_initx`, because `import keras_initx` imports Keras and its backend, which takes
seconds. Help, completion, `initx list`, `initx show NAME` and `initx inspect` need none of the three. The
other verbs check their options first, and import `keras_initx` then. So no module here imports `keras_initx`,
Keras or NumPy at its top; `tests/test_cli_light.py` checks that. Slow modules of the standard library are
imported in functions, too.
"""

from _initx_command._main import main

__all__ = ["main"]
