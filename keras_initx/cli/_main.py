"""The command `initx`: what the package can do, at the command line."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from keras_initx.checks import first_line
from keras_initx.cli._compare import add_compare
from keras_initx.cli._diagnose import add_diagnose
from keras_initx.cli._export import add_export, add_inspect
from keras_initx.cli._models import add_model, load_model
from keras_initx.cli._serve import add_serve
from keras_initx.cli._show import list_all, show, write_list, write_show
from keras_initx.cli._sources import DATA_HELP, as_data, read_source

__all__ = ["main"]

_INTERRUPTED = 130  # as shells have it for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `initx` and returns its exit status.

    It is 0, 1 for a check or a comparison that fails, 2 for what is not understood, or 130 after Ctrl-C.

    >>> main(["show", "ConstantFill", "2x3"])  # doctest: +ELLIPSIS
    ConstantFill, variance: ...
    0

    Args:
        arguments: What follows the command's name; None for the process' own.
    """
    options = _parser().parse_args(arguments)
    try:
        facts = options.verb(options)
    except (ImportError, ValueError) as error:
        print(f"initx: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"initx: interrupted; {options.interrupted}", file=sys.stderr)
        return _INTERRUPTED
    with contextlib.suppress(BrokenPipeError):  # `initx list | head` has read enough
        print(_to_json(facts) if options.json else options.write(facts), flush=True)
        return _INTERRUPTED if getattr(facts, "interrupted", False) else _status(options)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it exits
    return _status(options)


def _to_json(facts: Any) -> str:
    if hasattr(facts, "to_json"):
        return facts.to_json()
    return json.dumps(facts if isinstance(facts, dict | list) else facts.to_dict(), indent=2)


def _status(options: argparse.Namespace) -> int:
    """1, with the rows on stderr, where a report broke a limit."""
    if options.broken:
        print(f"initx: {options.broken}", file=sys.stderr)
    return 1 if options.broken else 0


def _version() -> str:
    import keras

    import keras_initx

    return f"initx {keras_initx.__version__} (Keras {keras.__version__}, {keras.backend.backend()})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("initx", description="Published weight initializers for Keras 3.")
    verbs = parser.add_subparsers(
        required=True,
        metavar="list | show | initialize | calibrate | diagnose | compare | export | inspect | serve",
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(broken="", interrupted="nothing was written")
    verb = verbs.add_parser("list", help="all strategies and initializers: name, family, need, what they do")
    verb.set_defaults(verb=lambda _: list_all(), write=write_list)
    verb.add_argument("--json", action="store_true", help="for a program to read")
    verb = verbs.add_parser("show", help="one of them: law, reference, defaults, and a draw")
    verb.set_defaults(verb=show, write=write_show)
    verb.add_argument("name", help="as in the list, or of an initializer of Keras, such as he_normal")
    verb.add_argument("shape", nargs="?", help="of a kernel to draw, such as 256,128 or 3x3x64x128")
    verb.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    verb.add_argument("--json", action="store_true", help="for a program to read")
    _add_initialize(verbs)
    _add_calibrate(verbs)
    add_diagnose(verbs, read_source)
    add_compare(verbs)
    add_export(verbs)
    add_inspect(verbs)
    add_serve(verbs)
    return parser


def _add_initialize(verbs: Any) -> None:
    verb = verbs.add_parser("initialize", help="a whole model: new weights by a strategy or an initializer")
    verb.set_defaults(verb=_initialize, write=str)
    add_model(verb)
    verb.add_argument(
        "--initializer",
        default="by_role",
        help="a strategy, an initializer, or none for each layer's own (by_role)",
    )
    verb.add_argument("--seed", type=int, help="of all weights; a random one is reported")
    _add_model_options(verb)


def _add_calibrate(verbs: Any) -> None:
    verb = verbs.add_parser("calibrate", help="a whole model: rescale its weights to the law's std on data")
    verb.set_defaults(verb=_calibrate, write=str)
    add_model(verb)
    verb.add_argument("--data", default="none", help=f"{DATA_HELP}; none for drawn input (none)")
    verb.add_argument("--initializer", help="the law, such as LSUV; none for each layer's own (none)")
    verb.add_argument("--targets", help="labels, for the laws that use them: an .npy or .npz file")
    verb.add_argument("--loss", help="for laws that take gradients, such as mse (the model's own)")
    verb.add_argument("--samples", type=int, default=256, help="rows of data to measure on (256)")
    verb.add_argument("--training", action="store_true", help="run as in training")
    verb.add_argument("--redraw", action="store_true", help="draw the law's base first")
    verb.add_argument("--seed", type=int, help="of the redraw")
    _add_model_options(verb)


def _add_model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--include", action="append", help="path pattern or role to change; may be repeated")
    verb.add_argument("--exclude", action="append", help="path pattern or role to leave; may be repeated")
    verb.add_argument("--out", required=True, help="the .keras file to write; may be the model itself")
    verb.add_argument("--json", action="store_true", help="for a program to read")


def _initialize(options: argparse.Namespace) -> Any:
    from keras_initx.strategies import initialize

    chosen = {"seed": options.seed, "include": options.include, "exclude": options.exclude}
    return _change(options, lambda model: initialize(model, options.initializer, **chosen))


def _calibrate(options: argparse.Namespace) -> Any:
    from keras_initx.calibration import calibrate

    names = ("samples", "training", "redraw", "seed", "include", "exclude")
    chosen = {name: getattr(options, name) for name in names}
    data = read_source(options.data, "--data")
    targets = options.targets and read_source(options.targets, "--targets")
    chosen |= {"targets": targets, "loss": options.loss}

    def verb(model: Any) -> Any:
        try:
            return calibrate(model, as_data(data, model), options.initializer, **chosen)
        except ValueError as error:
            if isinstance(data, dict) and "`data` must have the structure" in str(error):
                cure = (
                    f"--data holds {sorted(data)}: name rows and labels x and y, or name inputs as the model."
                )
                raise ValueError(f"{error} {cure}") from error
            raise

    return _change(options, verb)


def _change(options: argparse.Namespace, verb: Callable[[Any], Any]) -> Any:
    """Loads the model, has the verb change it, and writes it."""
    out = pathlib.Path(options.out)
    if out.suffix != ".keras" or not out.parent.is_dir():
        raise ValueError(f"`--out` must be a .keras file in a folder that exists. Received: {options.out!r}.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"`--out` must be a file that can be written. Received: {options.out!r}.")
    model = load_model(options.model, modules=options.modules)
    report = verb(model)
    source = pathlib.Path(options.model)
    if getattr(report, "interrupted", False) and out.exists() and source.exists() and out.samefile(source):
        raise KeyboardInterrupt
    try:
        # Beside it and renamed: a killed run leaves the file that was there.
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            part = pathlib.Path(folder) / out.name
            model.save(part)
            part.replace(out)
    except OSError as error:
        raise ValueError(f"`--out` cannot be written. Received: {options.out!r}: {error}") from error
    return report
