"""`initx inspect`: the contents of an exported model's folder."""

import argparse
from typing import TYPE_CHECKING

from _initx_command._verb import Answer, Verb

if TYPE_CHECKING:
    from _initx_command._verb import Verbs

__all__ = ["add_inspect"]


def add_inspect(verbs: "Verbs") -> None:
    """Adds the verb to the command.

    Args:
        verbs: The result of `ArgumentParser.add_subparsers`.
    """
    verb = Verb(
        verbs,
        "inspect",
        _inspect,
        "show the versions and signatures of an exported model, and which servers can serve it",
    )
    verb.add("path", metavar="FOLDER", help="the model's folder, such as saved_models/digits")
    verb.add_json()


def _inspect(options: argparse.Namespace) -> Answer:
    # Not `keras_initx.saved_model`: this verb runs without Keras.
    from _initx_saved_model import inspect

    found = inspect(options.path)
    unread = [str(version.version) for version in found.versions if version.error]
    return Answer(found, f"versions that cannot be read: {', '.join(unread)}" if unread else "")
