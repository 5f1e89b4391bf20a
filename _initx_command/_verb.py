"""One verb of the command: its options, and its answer."""

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypedDict, Unpack

from _initx_command._signatures import defaults_of

__all__ = ["Answer", "Options", "Verb"]


class Answer(NamedTuple):
    """The report that a verb prints, and the failure that makes its exit status 1.

    Attributes:
        report: The text of `str(report)` goes to stdout; with `--json`, the report's JSON does.
        failure: Why the exit status is 1, in lines for stderr. Empty for status 0.
    """

    report: object
    failure: str = ""


class Details(TypedDict, total=False):
    """Arguments of `ArgumentParser.add_argument`."""

    action: str
    choices: Iterable[str]
    const: str
    default: object
    dest: str
    help: str
    metavar: str
    nargs: str
    required: bool
    type: Callable[[str], object]


class Options:
    """The options of a verb, with the defaults of the Python function that the verb calls.

    Args:
        parser: The parser of the verb.
        function: The dotted name of the Python function, such as `"keras_initx.calibrate"`; empty for none.
    """

    def __init__(self, parser: argparse.ArgumentParser, function: str) -> None:
        self._parser = parser
        self._function = function

    def add(self, *names: str, function: str = "", **details: Unpack[Details]) -> None:
        """Adds an option or a positional argument, as `ArgumentParser.add_argument` does.

        Its default is the default of the function's argument with the same name, if there is one. The help
        text ends with the default, unless the default is None, True or False.

        The metavar tells the kind of a value to the reader, and to the shell that completes it: paths for
        `FILE`, `FOLDER`, `MODEL` and `DATA`, the names of `initx list` for `INITIALIZER`.

        Args:
            *names: Such as `"--samples"`.
            function: The dotted name of another function to take the default from.
            **details: Arguments of `ArgumentParser.add_argument`.
        """
        action = self._parser.add_argument(*names, **details)
        chosen = function or self._function
        defaults = defaults_of(chosen) if chosen else {}
        if action.dest in defaults:
            action.default = defaults[action.dest]
        if action.default is not None and not isinstance(action.default, bool):
            action.help = f"{action.help} (default: {action.default})"

    def add_scope(self, included: str, excluded: str) -> None:
        """Adds `--include` and `--exclude`, the same two options in every verb that takes patterns.

        Args:
            included: Verb of the help of `--include`, such as `"change only"`.
            excluded: Verb of the help of `--exclude`, such as `"leave"`.
        """
        for name, verb in (("--include", included), ("--exclude", excluded)):
            text = f"{verb} this role or path; may be repeated"
            self.add(name, action="append", metavar="PATTERN", help=text)

    def add_json(self) -> None:
        """Adds `--json`."""
        self._parser.add_argument("--json", action="store_true", help="print JSON for a program to read")


class Verb(NamedTuple):
    """A verb of the command.

    Attributes:
        name: The verb, such as `"calibrate"`.
        summary: One line for `initx --help`.
        add_options: Adds the options and positional arguments.
        run: Does the work.
        function: The dotted name of the Python function, such as `"keras_initx.calibrate"`; empty for none.
    """

    name: str
    summary: str
    add_options: Callable[[Options], None]
    run: Callable[[argparse.Namespace], Answer]
    function: str = ""
