"""The command `initx`, for use from Python.

The command itself is the package `_initx_command`, which answers before Keras is imported.
"""

from _initx_command import main

__all__ = ["main"]
