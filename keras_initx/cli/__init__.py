"""The command `initx`: what the package can do, at the command line."""

from keras_initx.cli._main import main

__all__ = ["main"]
