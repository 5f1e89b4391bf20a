"""`initx --print-completion`: a script that completes the command in a shell."""

import argparse
from collections.abc import Iterator

from _initx_command._catalogue import names

__all__ = ["PrintCompletion"]


class PrintCompletion(argparse.Action):
    """Prints the script that `shtab` makes of the parser, and exits."""

    SHELLS = ("bash", "tcsh", "zsh")

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, shell: object, *_: object
    ) -> None:
        """Prints the script for a shell.

        Args:
            parser: The parser of all verbs.
            namespace: Not used.
            shell: One of `SHELLS`.
        """
        import shtab

        del namespace
        paths = {"DATA": shtab.FILE, "FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "MODEL": shtab.FILE}
        for action in _actions(parser):
            if action.metavar in paths:
                action.complete = paths[action.metavar]  # type: ignore[attr-defined]
            elif action.metavar == "INITIALIZER":
                # The parser must not know these choices: an object of Keras' registry is right, too.
                action.choices = names()
        print(shtab.complete(parser, str(shell)))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the options and positional arguments of the parser and of all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
        else:
            yield action
