"""`initx initialize` and `initx calibrate`: new weights for a model in a file."""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from _initx_command._loading import load
from _initx_command._models import RULE, add_model, check_model, load_model
from _initx_command._sources import DATA_HELP, as_data, read_source
from _initx_command._verb import Answer, Options, Verb

if TYPE_CHECKING:
    from keras_initx._types import Arrays, Model

__all__ = ["CALIBRATE", "INITIALIZE"]

_OF_DONOR = ("width", "depth")  # options of `--from`


def _add_initialize(options: Options) -> None:
    add_model(options)
    options.add(
        "--initializer",
        metavar="INITIALIZER",
        help="a strategy or an initializer of `initx list`; none for each layer's own initializer; with "
        "--from: of kernels without a counterpart",
    )
    options.add("--from", dest="donor", metavar="MODEL", help=f"take the weights from another model: {RULE}")
    # No defaults of the function: an option that is given without --from is an error.
    options.add("--width", choices=("clone", "select"), help="with --from: units of another width")
    options.add(
        "--depth",
        choices=("first", "identity", "stack", "uniform"),
        help="with --from: blocks of another depth",
    )
    options.add(
        "--seed", type=int, metavar="N", help="seed of all weights; by default a random one, which is printed"
    )
    _add_scope(options)


def _add_calibrate(options: Options) -> None:
    add_model(options)
    options.add("--data", metavar="DATA", help=f"{DATA_HELP}; none or no `--data` for drawn input")
    options.add(
        "--initializer",
        metavar="INITIALIZER",
        help="a data-dependent initializer, such as LSUV; none or no `--initializer` for each layer's own",
    )
    options.add(
        "--targets", metavar="FILE", help="labels, for the initializers that use them: an .npy or .npz file"
    )
    options.add(
        "--loss", help="a loss such as mse, for initializers that use gradients; by default the model's own"
    )
    options.add(
        "--samples", type=int, metavar="N", help="rows of the data; by default 256, or all to make heads from"
    )
    options.add("--training", action="store_true", help="run the model as in training")
    options.add("--redraw", action="store_true", help="draw new weights before the measurement")
    options.add("--seed", type=int, metavar="N", help="seed of drawn input and of `--redraw`")
    _add_scope(options)


def _add_scope(options: Options) -> None:
    options.add_scope("change only", "leave")
    options.add(
        "--out", required=True, metavar="FILE", help="the .keras file to write; may be the model itself"
    )
    options.add_json()


def _initialize(options: argparse.Namespace) -> Answer:
    def draw(model: "Model") -> object:
        from keras_initx.strategies import FromModel, initialize

        chosen = {name: getattr(options, name) for name in ("seed", "include", "exclude")}
        if options.donor is None:
            return initialize(model, options.initializer, **chosen)
        donor = load_model(options.donor, argument="--from")
        given = {name: value for name in _OF_DONOR if (value := getattr(options, name))}
        scheme = FromModel(donor, **given, otherwise=options.initializer or "by_role")
        return initialize(model, scheme, **chosen)

    _check_paths(options)
    _check_donor(options)
    return _rewrite(options, draw)


def _calibrate(options: argparse.Namespace) -> Answer:
    _check_paths(options)
    data = read_source(options.data, "--data")
    targets = read_source(options.targets, "--targets")

    def rescale(model: "Model") -> object:
        from keras_initx.calibration import calibrate

        names = ("loss", "samples", "training", "redraw", "seed", "include", "exclude")
        chosen = {name: getattr(options, name) for name in names}
        try:
            given = cast("Arrays | None", targets)
            return calibrate(model, as_data(data, model), options.initializer, targets=given, **chosen)
        except ValueError as error:
            if isinstance(data, dict) and "`data` must have the structure" in str(error):
                cure = (
                    f"--data holds {sorted(data)}: name rows and labels x and y, or name inputs as the model."
                )
                raise ValueError(f"{error} {cure}") from error
            raise

    return _rewrite(options, rescale)


def _check_donor(options: argparse.Namespace) -> None:
    """Raises ValueError for a donor that is missing or would be overwritten, or options that need one."""
    if options.donor is None:
        for name in _OF_DONOR:
            if (value := getattr(options, name)) is not None:
                raise ValueError(
                    f"`--{name}` needs `--from`, the model that the weights come from. Received: --{name} "
                    f"{value} without it. Add --from old.keras, or leave --{name} out."
                )
        return
    check_model(options.donor, argument="--from")
    donor, out = pathlib.Path(options.donor), pathlib.Path(options.out)
    if donor.is_file() and out.exists() and out.samefile(donor):
        raise ValueError(
            "`--out` must not be the file of `--from`, which would be lost. Received: --out "
            f"{options.out}. Name another file, such as --out {out.with_stem(f'{out.stem}_new')}."
        )


def _check_paths(options: argparse.Namespace) -> None:
    """Raises ValueError for a model that is missing, or for a file that cannot be written."""
    check_model(options.model)
    out = pathlib.Path(options.out)
    if out.suffix != ".keras" or not out.parent.is_dir():
        raise ValueError(f"`--out` must be a .keras file in a folder that exists. Received: {options.out!r}.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"`--out` must be a file that can be written. Received: {options.out!r}.")


def _rewrite(options: argparse.Namespace, change: "Callable[[Model], object]") -> Answer:
    """Loads the model, changes it, and writes it."""
    import tempfile

    load()
    model = load_model(options.model, modules=options.modules)
    report = change(model)
    if getattr(report, "starts", ()):
        raise ValueError(
            f"`--initializer` must make weights that a .keras file keeps. Received: {options.initializer}, "
            "which starts adapters, and a file holds their sum with the base. Start them in Python, after "
            "`load_model` and before `fit`."
        )
    source, out = pathlib.Path(options.model), pathlib.Path(options.out)
    # After Ctrl-C the report has the best weights so far. They do not replace the only copy of the model.
    if getattr(report, "interrupted", False) and out.exists() and source.exists() and out.samefile(source):
        raise KeyboardInterrupt
    try:
        # The file is written beside `--out` and renamed, so a killed run leaves the old file whole.
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            part = pathlib.Path(folder) / out.name
            model.save(part)
            part.replace(out)
    except OSError as error:
        raise ValueError(f"`--out` cannot be written. Received: {options.out!r}: {error}") from error
    return Answer(report)


INITIALIZE = Verb(
    "initialize",
    "draw new weights for a whole model, by a strategy or an initializer",
    _add_initialize,
    _initialize,
    "keras_initx.initialize",
)
CALIBRATE = Verb(
    "calibrate",
    "rescale the weights of a whole model on data, by a data-dependent initializer",
    _add_calibrate,
    _calibrate,
    "keras_initx.calibrate",
)
