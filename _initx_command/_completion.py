"""`initx --print-completion`: a script that completes the command in a shell."""

import argparse
from collections.abc import Iterator

from _initx_command._catalogue import names

__all__ = ["SHELLS", "make_script"]


SHELLS = ("bash", "tcsh", "zsh")


def make_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns the script that `shtab` makes of a parser. It changes the parser.

    Args:
        parser: The parser of the command, with the options of all verbs.
        shell: One of `SHELLS`.
    """
    import shtab

    paths = {"DATA": shtab.FILE, "FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "MODEL": shtab.FILE}
    for action in _actions(parser):
        if action.metavar in paths:
            action.complete = paths[action.metavar]  # type: ignore[attr-defined]
        elif action.metavar == "INITIALIZER":
            # A parser that reads arguments must not have these choices: other names may be right, too.
            action.choices = names()
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the options and positional arguments of the parser and of all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
        else:
            yield action
