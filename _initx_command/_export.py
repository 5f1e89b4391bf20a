"""`initx export`: a model to a folder for a server."""

import argparse
import pathlib

from _initx_command._loading import load
from _initx_command._models import add_model, check_model, load_model
from _initx_command._sources import as_data, one_line, read_source
from _initx_command._verb import Answer, Options, Verb

__all__ = ["EXPORT"]


def _add_export(options: Options) -> None:
    add_model(options)
    options.add("path", metavar="FOLDER", help="the model's folder, such as saved_models/digits")
    options.add(
        "--version", type=int, metavar="N", help="number of the version; by default one above the highest"
    )
    options.add(
        "--labels",
        metavar="FILE",
        help="names of the output's columns, one a line; they add the signature classify",
    )
    options.add(
        "--warmup", metavar="FILE", help="rows that a server replays when it loads the version: .npy or .npz"
    )
    options.add(
        "--keep", type=int, metavar="N", help="how many versions to keep, with the new one; by default all"
    )
    options.add(
        "--portable",
        action="store_true",
        help="also write VERSION.keras, which loads where keras_initx is not installed",
    )
    options.add_json()


def _export(options: argparse.Namespace) -> Answer:
    check_model(options.model)
    labels = _read_labels(options.labels) if options.labels else None
    if options.warmup and pathlib.Path(options.warmup).suffix not in (".npy", ".npz"):
        raise ValueError(f"`--warmup` must be an .npy or .npz file. Received: {options.warmup!r}.")
    warmup = read_source(options.warmup, "--warmup")
    load()
    from keras_initx.saved_model import export

    chosen = {name: getattr(options, name) for name in ("version", "keep", "portable")}
    model = load_model(options.model, modules=options.modules)
    pair = as_data(warmup, model)
    rows = pair[0] if isinstance(pair, tuple) else pair
    try:
        return Answer(export(model, options.path, labels=labels, warmup=rows, **chosen))
    except OSError as error:
        raise ValueError(
            f"`path` must be a folder that can be written. Received: {options.path!r}: {one_line(error)}"
        ) from error


def _read_labels(file: str) -> list[str]:
    try:
        return [line for line in pathlib.Path(file).read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`--labels` must be a text file with a name on each line. Received: {file!r}: {one_line(error)}"
        ) from error


EXPORT = Verb(
    "export",
    "write a model as the next version of a SavedModel for a server",
    _add_export,
    _export,
    "keras_initx.export",
)
