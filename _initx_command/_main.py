"""The command line: the parser of all verbs, and one run of a verb."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from _initx_command._compare import COMPARE
from _initx_command._completion import SHELLS, make_script
from _initx_command._coordinates import COORDINATES
from _initx_command._diagnose import DIAGNOSE
from _initx_command._export import EXPORT
from _initx_command._inspect import INSPECT
from _initx_command._loading import backend
from _initx_command._rewrite import CALIBRATE, INITIALIZE
from _initx_command._serve import SERVE
from _initx_command._show import LIST, SHOW
from _initx_command._sources import one_line
from _initx_command._verb import Answer, Options

__all__ = ["main", "make_parser"]

_VERBS = (LIST, SHOW, INITIALIZE, CALIBRATE, DIAGNOSE, COMPARE, COORDINATES, EXPORT, INSPECT, SERVE)
_INTERRUPTED = 130  # the status that shells give to a command after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `initx` and returns its exit status.

    The status is 0, or 1 if a check or a comparison failed, 2 if an argument is wrong, 130 after Ctrl-C.

    >>> main(["show", "ConstantFill"])  # doctest: +ELLIPSIS
    ConstantFill, variance: ...
    0

    Args:
        arguments: The words after the command's name; None for the words that the process was started with.

    Raises:
        SystemExit: With status 2, if the words do not match the usage; with status 0, after `--help`,
            `--version` and `--print-completion`.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    # The verb is the first word that is not an option. Only `--print-completion` takes a value before the
    # verb, and this option ends the run.
    verb = next((word for word in words if not word.startswith("-")), "")
    options = make_parser(verb).parse_args(words)
    try:
        answer = options.run(options)
    except (ImportError, ValueError) as error:  # an ImportError names the extra that is not installed
        print(f"initx: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"initx: interrupted; {str(error) or 'nothing was written'}", file=sys.stderr)
        return _INTERRUPTED
    with contextlib.suppress(BrokenPipeError):  # `initx list | head` has read enough
        print(_to_json(answer.report) if options.json else answer.report, flush=True)
        return _status(answer)
    # Python flushes stdout when it exits, and would complain about the closed pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _status(answer)


def _to_json(report: object) -> str:
    if hasattr(report, "to_json"):
        return str(report.to_json())
    return json.dumps(report.to_dict() if hasattr(report, "to_dict") else report, indent=2)


def _status(answer: Answer) -> int:
    if getattr(answer.report, "interrupted", False):  # a search that Ctrl-C ended early, with its best result
        return _INTERRUPTED
    if answer.failure:
        print(f"initx: {answer.failure}", file=sys.stderr)
    return 1 if answer.failure else 0


class _Version(argparse.Action):
    """Prints the versions of the package and of Keras, and the backend. Neither of them is imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata

        ours, keras = (importlib.metadata.version(name) for name in ("keras-initx", "keras"))
        print(f"initx {ours} (Keras {keras}, {backend()})")
        parser.exit()


class _PrintCompletion(argparse.Action):
    """Prints the script that completes the command in a shell."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: argparse.Namespace, shell: object, *__: object
    ) -> None:
        print(make_script(make_parser(), str(shell)))
        parser.exit()


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of the command.

    Args:
        verb: The only verb that gets its options, because reading their defaults takes time. None for all
            verbs.
    """
    parser = argparse.ArgumentParser(
        "initx",
        description="Weight initialization for Keras 3 and TensorFlow.",
        epilog="`initx VERB --help` shows the arguments of a verb. Start with `initx list`.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions and the backend")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        metavar="SHELL",
        choices=SHELLS,
        help=f"print a script that completes `initx` in a shell: {', '.join(SHELLS)}",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    for one in _VERBS:
        description = f"{one.summary[0].upper()}{one.summary[1:]}."
        inner = verbs.add_parser(one.name, help=one.summary, description=description)
        inner.set_defaults(run=one.run, json=False)
        if verb in (one.name, None):
            one.add_options(Options(inner, one.function))
    return parser
