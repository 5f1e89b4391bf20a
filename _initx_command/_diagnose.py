"""`initx diagnose`: a report on a model's signal, a picture of the signal, and limits for a CI."""

import argparse

from _initx_command._limits import check_plot, parse_limits
from _initx_command._loading import load
from _initx_command._models import add_model, check_model, load_model
from _initx_command._sources import DATA_HELP, as_data, parse_shape, read_source
from _initx_command._verb import Answer, Options, Verb

__all__ = ["DIAGNOSE"]

_LIMITS = ("max_dead", "max_gain", "max_saturated", "max_update_ratio", "max_verdicts", "min_seen")


def _add_diagnose(options: Options) -> None:
    add_model(options)
    options.add("--input-shape", metavar="SHAPE", help="input shape of a model by name, such as 64x64x3")
    options.add("--data", metavar="DATA", help=f"{DATA_HELP}; none or no `--data` for drawn input")
    options.add("--targets", metavar="FILE", help="labels: an .npy or .npz file")
    options.add("--loss", help="a loss of targets and outputs, such as mse; by default the model's own")
    options.add("--samples", type=int, metavar="N", help="rows of the data to use")
    options.add(
        "--seed", type=int, metavar="N", help="seed of drawn input, directions and cures; by default 0"
    )
    options.add("--jacobian", action="store_true", help="also report the singular values of the Jacobian")
    options.add(
        "--plot", metavar="FILE", help="write a picture of the signal by depth into a .png, .svg or .pdf file"
    )
    options.add(
        "--check",
        action="append",
        nargs="?",
        const="",
        metavar="LIMIT=NUMBER",
        help="exit with status 1 if there is a verdict, or if a row breaks a limit, such as "
        "max_gain=2,max_dead=0.5; without limits, the usual limits hold",
    )
    options.add("--allow", action="append", metavar="KIND", help="a kind of verdict that passes `--check`")
    options.add_scope("report only", "leave out")
    options.add("--no-cures", dest="try_cures", action="store_false", help="name cures without trying them")
    options.add_json()


def _diagnose(options: argparse.Namespace) -> Answer:
    limits = parse_limits(options.check, options.allow, _LIMITS)
    shape = parse_shape(options.input_shape, "--input-shape")
    check_model(options.model, shape)
    if options.plot:
        check_plot(options.plot)
    names = ("loss", "include", "exclude", "samples", "seed", "jacobian", "try_cures")
    given = {name: getattr(options, name) for name in names}
    given["targets"] = read_source(options.targets, "--targets")
    data = read_source(options.data, "--data")
    load()
    from keras_initx.diagnostics import SignalError, diagnose

    _check_allowed(options.allow or ())
    model = load_model(options.model, shape, options.modules)
    report = diagnose(model, as_data(data, model), **given)
    failure = ""
    if limits is not None:
        try:
            report.check(**limits, allow=options.allow or ())  # type: ignore[arg-type]  # each by its name
        except SignalError as error:
            failure = str(error)
    if options.plot:
        from keras_initx.plots import plot_signal

        plot_signal(report).savefig(options.plot)
    return Answer(report, failure)


def _check_allowed(kinds: list[str] | tuple[()]) -> None:
    """Raises ValueError for a kind of verdict that does not exist, before a long run."""
    from keras_initx.diagnostics import KINDS

    if not set(kinds) <= set(KINDS):
        raise ValueError(
            f"`--allow` must be a kind of verdict, of {', '.join(sorted(KINDS))}. "
            f"Received: {', '.join(kinds)}."
        )


DIAGNOSE = Verb(
    "diagnose",
    "report the sizes of signal and gradients in a model, and name a cure",
    _add_diagnose,
    _diagnose,
    "keras_initx.diagnose",
)
