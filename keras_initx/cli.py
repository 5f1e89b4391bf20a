"""The command `initx`: what the package can do, at the command line."""

import argparse
import contextlib
import inspect
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["main"]

_BINS = 17
_MOST = 2**26  # entries of a draw
_BAR = 50  # characters of the longest bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `initx` and returns its exit status: 0, or 2 for a name, shape or option that is not understood.

    >>> main(["show", "ConstantFill", "2x3"])  # doctest: +ELLIPSIS
    initx>ConstantFill, variance: ...
    0

    Args:
        arguments: What follows the command's name; None for the process' own.
    """
    options = _parser().parse_args(arguments)
    try:
        facts = options.verb(options)
    except ValueError as error:
        print(f"initx: {error}", file=sys.stderr)
        return 2
    with contextlib.suppress(BrokenPipeError):  # `initx list | head` has read enough
        plain = facts if isinstance(facts, dict | list) else facts.to_dict()
        print(json.dumps(plain, indent=2) if options.json else options.write(facts), flush=True)
        return 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it exits
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("initx", description="Published weight initializers for Keras 3.")
    verbs = parser.add_subparsers(required=True, metavar="list | show | initialize | calibrate")
    verb = verbs.add_parser("list", help="all initializers: name, family, what they need, what they do")
    verb.set_defaults(verb=lambda _: _list(), write=_write_list)
    verb.add_argument("--json", action="store_true", help="for a program to read")
    verb = verbs.add_parser("show", help="one initializer: law, reference, defaults, and a draw")
    verb.set_defaults(verb=_show, write=_write_show)
    verb.add_argument("name", help="as in the list, with or without initx>")
    verb.add_argument("shape", nargs="?", help="of a kernel to draw, such as 256,128 or 3x3x64x128")
    verb.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    verb.add_argument("--json", action="store_true", help="for a program to read")
    verb = verbs.add_parser("initialize", help="a whole model: new weights by a strategy or an initializer")
    verb.set_defaults(verb=_initialize, write=str)
    verb.add_argument("model", help="a .keras file")
    verb.add_argument(
        "--initializer",
        default="by_role",
        help="a strategy, an initializer, or none for each layer's own (by_role)",
    )
    verb.add_argument("--seed", type=int, help="of all weights; a random one is reported")
    _add_model_options(verb)
    verb = verbs.add_parser("calibrate", help="a whole model: rescale its weights to the law's std on data")
    verb.set_defaults(verb=_calibrate, write=str)
    verb.add_argument("model", help="a .keras file")
    verb.add_argument("--data", required=True, help="an .npy or .npz file, or a data set of tfds")
    verb.add_argument("--initializer", help="the law, such as initx>LSUV (each layer's own, or LSUV)")
    verb.add_argument("--targets", help="labels, for the laws that use them: an .npy or .npz file")
    verb.add_argument("--loss", help="for laws that take gradients, such as mse (the model's own)")
    verb.add_argument("--samples", type=int, default=256, help="rows of data to measure on (256)")
    verb.add_argument("--training", action="store_true", help="run as in training")
    verb.add_argument("--redraw", action="store_true", help="draw the law's base first")
    verb.add_argument("--seed", type=int, help="of the redraw")
    _add_model_options(verb)
    return parser


def _add_model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--include", action="append", help="path pattern or role to change; may be repeated")
    verb.add_argument("--exclude", action="append", help="path pattern or role to leave; may be repeated")
    verb.add_argument("--out", required=True, help="the .keras file to write; may be the model itself")
    verb.add_argument("--json", action="store_true", help="for a program to read")


def _list() -> list[dict[str, str]]:
    from keras_initx import initializers

    return [
        {
            "name": f"initx>{cls.__name__}",
            "family": family,
            "needs": "shape, data" if family in ("data-dependent", "gradient") else "shape",
            "summary": _paragraphs(cls)[0],
        }
        for family, classes in initializers.FAMILIES.items()
        for cls in classes
    ]


def _show(options: argparse.Namespace) -> dict[str, Any]:
    from keras_initx import initializers

    rows = {row["name"]: row for row in _list()}
    name = options.name if ">" in options.name else f"initx>{options.name}"
    if name not in rows:
        initializers.get(options.name)  # raises for a name that Keras does not know either
        raise ValueError(f"`name` must be one of `initx list`. Received: {options.name!r}.")
    shape = _parse_shape(options.shape)
    initializer = initializers.get(name)
    config = initializer.get_config()
    parameters = inspect.signature(type(initializer)).parameters.values()
    facts = rows[name] | {
        "law": _find("Law:", type(initializer)),
        "reference": _find("Reference:", type(initializer)),
        "signature": f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})",
        "defaults": config,
    }
    if shape is None:
        return facts
    seeded = type(initializer).from_config(_seed(config, options.seed))
    return facts | {"draw": _measure(seeded, shape)}


def _initialize(options: argparse.Namespace) -> Any:
    from keras_initx.strategies import initialize

    scheme = None if options.initializer.lower() == "none" else options.initializer
    chosen = {"seed": options.seed, "include": options.include, "exclude": options.exclude}
    return _change(options, lambda model: initialize(model, scheme, **chosen))


def _calibrate(options: argparse.Namespace) -> Any:
    from keras_initx.calibration import calibrate

    names = ("samples", "training", "redraw", "seed", "include", "exclude")
    chosen = {name: getattr(options, name) for name in names}
    data = _read(options.data, "--data")
    targets = options.targets and _read(options.targets, "--targets")
    chosen |= {"targets": targets, "loss": options.loss}
    return _change(options, lambda model: calibrate(model, data, options.initializer, **chosen))


def _read(source: str, option: str) -> Any:
    """Reads an array, a dict of arrays, or a data set, or says why not in a ValueError."""
    import numpy as np

    path = pathlib.Path(source)
    if path.suffix not in (".npy", ".npz"):
        return _load_data_set(source, option)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"`{option}` must be a file of numbers that NumPy can read. Received: {source!r}: {reason}"
        ) from error
    if path.suffix == ".npy":
        return found
    return dict(found) if len(found.files) > 1 else found[found.files[0]]


def _load_data_set(name: str, option: str) -> Any:
    try:
        from keras_initx import datasets

        with contextlib.redirect_stdout(sys.stderr):  # where tfds says that it prepares one
            return datasets.load(name, "train")[0].batch(256)
    except (ImportError, ConnectionError) as error:
        cure = " pip install 'keras_initx[examples]' brings it." if isinstance(error, ImportError) else ""
        raise ValueError(f"`{option}` cannot be loaded. Received: {name!r}: {error}.{cure}") from error


def _change(options: argparse.Namespace, verb: Callable[[Any], Any]) -> Any:
    """Loads the model, has the verb change it, and writes it."""
    out = pathlib.Path(options.out)
    if out.suffix != ".keras" or not out.parent.is_dir():
        raise ValueError(f"`--out` must be a .keras file in a folder that exists. Received: {options.out!r}.")
    model = _load(options.model)
    report = verb(model)
    # Beside it and renamed: a killed run leaves the file that was there.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        part = pathlib.Path(folder) / out.name
        model.save(part)
        part.replace(out)
    return report


def _load(path: str) -> Any:
    """Loads a model, or says why not in a ValueError."""
    import keras

    if not pathlib.Path(path).is_file():
        raise ValueError(f"`model` must be a .keras file. Received: {path!r}, which is no file.")
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # zipfile's, h5py's, Keras' own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"`model` must be a .keras file that Keras can load. Received: {path!r}: {reason}"
        ) from error


def _seed(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Returns the config with its seed set, and those of the initializers that it holds, as ICNR's does."""
    nested = {key: _seed(value, seed) for key, value in config.items() if isinstance(value, dict)}
    return config | nested | ({"seed": seed} if "seed" in config else {})


def _measure(initializer: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Draws a kernel in float32 and counts its entries."""
    import keras
    import numpy as np

    if not 0 < math.prod(shape) <= _MOST:
        raise ValueError(f"`shape` must hold from 1 to {_MOST:,} entries to be shown. Received: {shape}.")
    values: np.ndarray = keras.ops.convert_to_numpy(initializer(shape, dtype="float32"))
    counts, edges = np.histogram(values, _BINS)
    facts: dict[str, Any] = {"shape": list(shape)}
    if hasattr(initializer, "split"):
        facts |= initializer.split(shape).fans.to_dict()
    return facts | {
        "mean": float(values.mean(dtype="float64")),
        "std": float(values.std(dtype="float64")),
        "min": float(values.min()),
        "max": float(values.max()),
        "counts": counts.tolist(),
        "edges": edges.tolist(),
    }


def _parse_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}([x,][0-9]{1,18})*", text):
        raise ValueError(
            f"`shape` must be counts with commas or x between them. Received: {text!r}. "
            "Write 256,128 or 3x3x64x128."
        )
    return tuple(int(size) for size in re.split("[x,]", text))


def _paragraphs(cls: type) -> list[str]:
    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", inspect.getdoc(cls) or "")]


def _find(head: str, cls: type) -> str:
    """Returns the paragraph of a docstring that begins with `head`, without it."""
    return next((text.removeprefix(head).strip() for text in _paragraphs(cls) if text.startswith(head)), "")


def _write_list(rows: list[dict[str, str]]) -> str:
    widths = {key: max(len(row[key]) for row in rows) for key in ("name", "family", "needs")}
    return "\n".join(
        "  ".join([*(row[key].ljust(width) for key, width in widths.items()), row["summary"]]) for row in rows
    )


def _write_show(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}, {facts['family']}: {facts['summary']}"]
    for key in ("law", "reference"):
        lines += ["", *textwrap.wrap(f"{key.capitalize()}: {facts[key]}", 100)]
    lines += ["", *textwrap.wrap(f"Signature: {facts['signature']}", 100)]
    defaults = [f"{name}={value!r}" for name, value in facts["defaults"].items()]
    lines += ["", *textwrap.wrap(f"Defaults: {', '.join(defaults) or 'none'}", 100)]
    return "\n".join(lines + (["", *_write_draw(facts["draw"])] if "draw" in facts else []))


def _write_draw(draw: dict[str, Any]) -> list[str]:
    numbers = [f"{name} {draw[name]:.4g}" for name in list(draw)[1:] if name not in ("counts", "edges")]
    most = max(draw["counts"])
    edges = [f"{edge:+.3g}" for edge in draw["edges"]]
    width = max(map(len, edges))
    bars = [
        f"{low:>{width}} to {high:>{width}} | " + f"{'#' * -(-count * _BAR // most)} {count}".lstrip()
        for low, high, count in zip(edges, edges[1:], draw["counts"], strict=False)
    ]
    return [f"A draw of shape {tuple(draw['shape'])}: {', '.join(numbers)}", "", *bars]
