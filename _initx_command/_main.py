"""The command line: the parser of all verbs, and one run of a verb."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from _initx_command._compare import add_compare
from _initx_command._completion import PrintCompletion
from _initx_command._diagnose import add_diagnose
from _initx_command._export import add_export
from _initx_command._inspect import add_inspect
from _initx_command._loading import backend
from _initx_command._rewrite import add_calibrate, add_initialize
from _initx_command._serve import add_serve
from _initx_command._show import add_list, add_show
from _initx_command._sources import one_line
from _initx_command._verb import Answer

__all__ = ["main", "make_parser"]

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
    options = make_parser().parse_args(arguments)
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


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs."""
    parser = argparse.ArgumentParser(
        "initx",
        description="Weight initialization for Keras 3 and TensorFlow.",
        epilog="`initx VERB --help` shows the arguments of a verb. Start with `initx list`.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions and the backend")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        metavar="SHELL",
        choices=PrintCompletion.SHELLS,
        help=f"print a script that completes `initx` in a shell: {', '.join(PrintCompletion.SHELLS)}",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    for add in (
        add_list,
        add_show,
        add_initialize,
        add_calibrate,
        add_diagnose,
        add_compare,
        add_export,
        add_inspect,
        add_serve,
    ):
        add(verbs)
    return parser
