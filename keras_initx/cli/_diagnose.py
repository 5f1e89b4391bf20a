"""`initx diagnose`: a report on a model's signal, a picture of it, and limits for a CI."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from keras_initx.cli._models import add_model, load_model
from keras_initx.cli._show import parse_shape
from keras_initx.cli._sources import DATA_HELP, as_data
from keras_initx.extras import require

__all__ = ["add_diagnose"]

_LIMITS = ("max_dead", "max_gain", "max_saturated", "max_update_ratio", "max_verdicts")


def add_diagnose(verbs: Any, read: Callable[[str, str], Any]) -> None:
    """Adds the verb to the parser.

    Args:
        verbs: What `add_subparsers` returned.
        read: From a file or data set, and the option that named it, to arrays.
    """
    verb = verbs.add_parser(
        "diagnose", help="a whole model: what it makes of signal and gradients, and a cure"
    )
    verb.set_defaults(verb=lambda options: _diagnose(options, read), write=str)
    add_model(verb)
    verb.add_argument("--input-shape", help="of a model by name, such as 64x64x3")
    verb.add_argument("--data", default="none", help=f"{DATA_HELP}; none for drawn input (none)")
    verb.add_argument("--targets", help="labels: an .npy or .npz file")
    verb.add_argument("--loss", help="of targets and outputs, such as mse (the model's own)")
    verb.add_argument("--samples", type=int, default=64, help="rows of data to run on (64)")
    verb.add_argument("--seed", type=int, help="of what is drawn")
    verb.add_argument("--jacobian", action="store_true", help="its singular values, too")
    verb.add_argument(
        "--plot", metavar="FILE", help="write a picture of the signal by depth: .png, .svg, .pdf"
    )
    verb.add_argument(
        "--check",
        action="append",
        nargs="?",
        const="",
        metavar="LIMIT=NUMBER",
        help="exit with 1 if there is a verdict or a row breaks a limit, such as max_gain=2,max_dead=0.5; "
        "alone for the usual limits",
    )
    verb.add_argument(
        "--allow", action="append", metavar="KIND", help="a kind of verdict that --check lets pass"
    )
    verb.add_argument(
        "--no-cures", dest="try_cures", action="store_false", help="name cures without trying them"
    )
    verb.add_argument("--json", action="store_true", help="for a program to read")


def _diagnose(options: argparse.Namespace, read: Callable[[str, str], Any]) -> Any:
    from keras_initx.diagnostics import SignalError, diagnose

    limits = None if options.check is None else _limits(options.check)
    if options.allow:
        _check_allowed(options.allow, limits)
    if options.plot:
        _check_plot(options.plot)
    given = {name: getattr(options, name) for name in ("loss", "samples", "seed", "jacobian", "try_cures")}
    given["targets"] = options.targets and read(options.targets, "--targets")
    data = read(options.data, "--data")
    shape = parse_shape(options.input_shape, "--input-shape")
    model = load_model(options.model, shape, options.modules)
    report = diagnose(model, as_data(data, model), **given)
    if limits is not None:
        try:
            report.check(**limits, allow=options.allow or ())
        except SignalError as error:
            options.broken = str(error)
    if options.plot:
        from keras_initx.plots import plot_signal

        plot_signal(report).savefig(options.plot)
    return report


def _limits(texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in filter(None, ",".join(texts).split(",")):
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            found[name] = None if number.lower() == "none" else float(number)
            if name not in _LIMITS:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"`--check` must be limits and numbers, of {', '.join(_LIMITS)}. Received: {text!r}. "
                "Write max_gain=2,max_dead=0.5."
            ) from None
    return found


def _check_allowed(kinds: list[str], limits: dict[str, Any] | None) -> None:
    """Says before a long run that nothing is checked, or that there is no such kind."""
    from keras_initx.diagnostics import KINDS

    if limits is None or not set(kinds) <= set(KINDS):
        raise ValueError(
            f"`--allow` must be a kind of verdict beside --check, of {', '.join(sorted(KINDS))}. "
            f"Received: {', '.join(kinds)}{'' if limits is not None else ' without --check'}."
        )


def _check_plot(path: str) -> None:
    """Says before a long run what would fail after it."""
    require("matplotlib", extra="plots", purpose="`--plot`")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    file = pathlib.Path(path)
    if file.suffix[1:].lower() not in kinds or not file.parent.is_dir():
        raise ValueError(
            f"`--plot` must be a file in a folder that exists, of {', '.join(kinds)}. Received: {path!r}."
        )
