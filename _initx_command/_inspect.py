"""`initx inspect`: the contents of an exported model's folder."""

import argparse

from _initx_command._verb import Answer, Options, Verb

__all__ = ["INSPECT"]


def _add_inspect(options: Options) -> None:
    options.add("path", metavar="FOLDER", help="the model's folder, such as saved_models/digits")
    options.add_json()


def _inspect(options: argparse.Namespace) -> Answer:
    # Not `keras_initx.saved_model`: this verb runs without Keras.
    from _initx_saved_model import inspect

    found = inspect(options.path)
    unread = [str(version.version) for version in found.versions if version.error]
    return Answer(found, f"versions that cannot be read: {', '.join(unread)}" if unread else "")


INSPECT = Verb(
    "inspect",
    "show the versions and signatures of an exported model, and which servers can serve it",
    _add_inspect,
    _inspect,
)
