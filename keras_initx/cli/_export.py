"""`initx export` and `initx inspect`: a model to a folder that a server takes, and what a folder holds."""

import argparse
import pathlib
from typing import Any

from keras_initx.checks import first_line
from keras_initx.cli._models import add_model, load_model
from keras_initx.cli._sources import as_data, read_source

__all__ = ["add_export", "add_inspect"]


def add_export(verbs: Any) -> None:
    """Adds the verb to the parser.

    Args:
        verbs: What `add_subparsers` returned.
    """
    verb = verbs.add_parser("export", help="a model to the next version of a SavedModel that a server takes")
    verb.set_defaults(verb=_export, write=str)
    add_model(verb)
    verb.add_argument("path", help="the model's folder, such as saved_models/digits")
    verb.add_argument("--version", type=int, help="number of the version (one more than the highest)")
    verb.add_argument(
        "--labels", metavar="FILE", help="names of the output's columns, one a line: adds classify"
    )
    verb.add_argument("--warmup", metavar="FILE", help="rows that a server replays as it loads: .npy or .npz")
    verb.add_argument("--keep", type=int, metavar="N", help="versions to leave, the new one among them (all)")
    verb.add_argument("--portable", action="store_true", help="write VERSION.keras beside it, without initx")
    verb.add_argument("--json", action="store_true", help="for a program to read")


def add_inspect(verbs: Any) -> None:
    """Adds the verb to the parser.

    Args:
        verbs: What `add_subparsers` returned.
    """
    verb = verbs.add_parser(
        "inspect", help="an exported model: versions, signatures, where it is safe to serve"
    )
    verb.set_defaults(verb=_inspect, write=str)
    verb.add_argument("path", help="the model's folder, such as saved_models/digits")
    verb.add_argument("--json", action="store_true", help="for a program to read")


def _export(options: argparse.Namespace) -> Any:
    from keras_initx.saved_model import export

    labels = options.labels and _read_labels(options.labels)
    if options.warmup and pathlib.Path(options.warmup).suffix not in (".npy", ".npz"):
        raise ValueError(f"`--warmup` must be an .npy or .npz file. Received: {options.warmup!r}.")
    warmup = read_source(options.warmup, "--warmup") if options.warmup else None
    chosen = {name: getattr(options, name) for name in ("version", "keep", "portable")}
    model = load_model(options.model, modules=options.modules)
    pair = as_data(warmup, model)
    warmup = pair[0] if isinstance(pair, tuple) else pair
    try:
        return export(model, options.path, labels=labels, warmup=warmup, **chosen)
    except OSError as error:
        raise ValueError(
            f"`path` must be a folder that can be written. Received: {options.path!r}: {first_line(error)}"
        ) from error


def _inspect(options: argparse.Namespace) -> Any:
    from keras_initx.saved_model import inspect

    found = inspect(options.path)
    unread = [str(version.version) for version in found.versions if version.error]
    if unread:
        options.broken = f"versions that cannot be read: {', '.join(unread)}"
    return found


def _read_labels(file: str) -> list[str]:
    try:
        return [line for line in pathlib.Path(file).read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            "`--labels` must be a text file with a name on each line. "
            f"Received: {file!r}: {first_line(error)}"
        ) from error
