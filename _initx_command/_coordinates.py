"""`initx coordinates`: whether the sizes in a model stay the same as its width grows."""

import argparse
import re
from typing import TYPE_CHECKING

from _initx_command._limits import check_plot, parse_limits
from _initx_command._loading import load
from _initx_command._models import add_modules, find_build
from _initx_command._sources import DATA_HELP, as_data, as_option, read_source
from _initx_command._verb import Answer, Options, Verb

if TYPE_CHECKING:
    import keras

    from keras_initx.scaling import CoordinateReport

__all__ = ["COORDINATES"]

_LIMITS = ("max_fall", "max_slope")
_GIVEN = ("loss", "steps", "seeds", "samples")


def _add_coordinates(options: Options) -> None:
    options.add("build", metavar="MODULE:FUNCTION", help="a function of a width that returns a Keras model")
    add_modules(options)
    options.add(
        "--widths", default="64,128,256,512", metavar="WIDTHS", help="widths with commas between them"
    )
    options.add("--data", required=True, metavar="DATA", help=f"data with targets: {DATA_HELP}")
    options.add("--targets", metavar="FILE", help="targets of --data in an .npy or .npz file of their own")
    options.add(
        "--initializer",
        default="MuP",
        metavar="INITIALIZER",
        help="an initializer or a strategy; the base of MuP is the model of the smallest width",
    )
    options.add("--optimizer", help="a Keras optimizer, such as adam; by default that of the compiled models")
    options.add("--learning-rate", type=float, metavar="RATE", help="learning rate of `--optimizer`")
    options.add("--loss", help="a loss of targets and outputs, such as mse; by default the models' own")
    options.add("--steps", type=int, metavar="N", help="training steps at each width")
    options.add("--seeds", type=int, metavar="N", help="number of seeds")
    options.add("--samples", type=int, metavar="N", help="rows of the data to train on")
    options.add("--plot", metavar="FILE", help="write a picture into a .png, .svg or .pdf file")
    options.add(
        "--check",
        action="append",
        nargs="?",
        const="",
        metavar="LIMIT=NUMBER",
        help="exit with status 1 if a layer grows or vanishes, or breaks a limit such as max_slope=0.2",
    )
    options.add("--allow", action="append", metavar="KIND", help="a kind of finding that passes `--check`")
    options.add_json()


def _coordinates(options: argparse.Namespace) -> Answer:
    limits = parse_limits(options.check, options.allow, _LIMITS)
    widths = _widths(options.widths)
    if options.plot:
        check_plot(options.plot)
    data = as_data(read_source(options.data, "--data"))
    if options.targets:
        rows = data[0] if isinstance(data, tuple) else data
        data = (rows, read_source(options.targets, "--targets"))
    if data is None:
        raise ValueError("`--data` must hold data with targets. Received: none.")
    load()
    report = _report(options, widths, data)
    failure = ""
    if limits is not None:
        from keras_initx.scaling import CoordinateError

        try:
            report.check(**limits, allow=options.allow or ())  # type: ignore[arg-type]  # each by its name
        except CoordinateError as error:
            failure = str(error)
    if options.plot:
        from keras_initx.plots import plot_coordinates

        plot_coordinates(report).savefig(options.plot)
    return Answer(report, failure)


def _report(options: argparse.Namespace, widths: list[int], data: object) -> "CoordinateReport":
    from keras_initx.scaling import coordinates

    build = find_build(options.build, options.modules)
    given = {name: getattr(options, name) for name in _GIVEN} | {"optimizer": _optimizer(options)}
    try:
        return coordinates(build, widths, options.initializer, data, **given)  # type: ignore[arg-type]
    except ValueError as error:  # names arguments; the user of the command knows options
        names = {name: as_option(name) for name in (*_GIVEN, "widths", "data", "initializer", "optimizer")}
        raise ValueError(re.sub(r"`(\w+)`", lambda name: names.get(name[1], name[0]), str(error))) from error


def _optimizer(options: argparse.Namespace) -> "str | keras.optimizers.Optimizer | None":
    if options.learning_rate is None:
        return options.optimizer
    import keras

    if options.optimizer is None:
        raise ValueError("`--learning-rate` must stand beside `--optimizer`. Write --optimizer adam.")
    config = {"class_name": options.optimizer, "config": {"learning_rate": options.learning_rate}}
    try:
        return keras.optimizers.get(config)
    except ValueError as error:
        raise ValueError(
            f"`--optimizer` must be the name of a Keras optimizer. Received: {options.optimizer!r}."
        ) from error


def _widths(text: str) -> list[int]:
    try:
        return [int(width) for width in text.split(",")]
    except ValueError:
        raise ValueError(f"`--widths` must be ints. Received: {text!r}. Write 64,128,256,512.") from None


COORDINATES = Verb(
    "coordinates",
    "train a model at several widths, and tell which layers grow or vanish with the width",
    _add_coordinates,
    _coordinates,
    "keras_initx.coordinates",
)
