"""`initx compare`: which initialization is best for a model, over seeds."""

import argparse
import functools
import pathlib
import re
from typing import Any

from keras_initx.cli._models import add_model, is_named, load_model
from keras_initx.cli._sources import DATA_HELP, as_data, as_option, load_splits, read_source
from keras_initx.extras import require

__all__ = ["add_compare"]

_HELD_OUT = 5  # one row in so many is validation data where none are given
_RUNNERS = ("ray", "sequential", "vectorized")


def add_compare(verbs: Any) -> None:
    """Adds the verb to the command.

    Args:
        verbs: What `ArgumentParser.add_subparsers` returned.
    """
    verb = verbs.add_parser("compare", help="a whole model: which initialization trains it best, over seeds")
    verb.set_defaults(verb=_compare, write=str)
    add = verb.add_argument
    add_model(verb, "; compiled")
    add("--data", required=True, help=f"to train on: {DATA_HELP}; with labels")
    add("--targets", help="labels of --data, where they are in an .npy or .npz file of their own")
    add("--validation", help="to choose on: an .npz file of x and y (a fifth of --data, held out)")
    add("--test", help="to report on: an .npz file of x and y (a data set's own test split)")
    add(
        "--initializers",
        required=True,
        help="names with commas between, such as he_normal,LSUV; strategies; none for each layer's own",
    )
    add("--seeds", type=int, default=5, help="how many (5)")
    add("--learning-rates", help="numbers with commas between (the one that the model was compiled with)")
    add("--epochs", type=int, default=10, help="of each trial (10)")
    add("--metric", default="loss", help="a metric that the model was compiled with (loss)")
    add(
        "--mode",
        choices=["auto", "max", "min"],
        default="auto",
        help="max: more of the metric is better; min: less (what Keras knows of it)",
    )
    add("--target", type=float, help="a value of the metric: how long it takes is told")
    add("--batch-size", type=int, default=32, help="rows of a batch (32)")
    add("--runner", choices=_RUNNERS, default="sequential", help="what makes the trials (sequential)")
    add("--store", help="a folder for the results, from which the same command goes on")
    add("--plots", metavar="FOLDER", help="write pictures into it: curves.png, finals.png, rates.png")
    add("--json", action="store_true", help="for a program to read")


def _compare(options: argparse.Namespace) -> Any:
    from keras_initx.experiments import compare

    given = ("seeds", "epochs", "metric", "mode", "target", "batch_size", "runner", "store")
    chosen = {name: getattr(options, name) for name in given}
    rates = options.learning_rates and _numbers(options.learning_rates)
    initializers = _labelled(options.initializers)
    plots = options.plots and _plots(options.plots)
    train, validation, test = _read(options)
    model = options.model
    if is_named(model):
        model = functools.partial(load_model, model, modules=options.modules)
    else:
        load_model(model, modules=options.modules)  # or the trials would say in Keras' words what is missing
    if options.store:
        options.interrupted = f"the same command goes on from what is in {options.store}"
    try:
        found = compare(
            model, initializers, train, validation, learning_rates=rates or None, test=test, **chosen
        )
    except ValueError as error:  # in the words of the command
        names = {"build_fn": "`model`", "train": "`--data`", "initializers": "`--initializers`"}
        names |= {name: as_option(name) for name in (*given, "validation", "test", "learning_rates")}
        told = re.sub(r"`(\w+)`", lambda name: names.get(name[1], name[0]), str(error))
        raise ValueError(told) from error
    if plots:
        from keras_initx.plots import plot_curves, plot_finals, plot_rates

        for name, draw in (("curves", plot_curves), ("finals", plot_finals), ("rates", plot_rates)):
            draw(found).savefig(plots / f"{name}.png")
    if not any(result.ended_well for result in found.results):
        options.broken = "no trial ended well"
    return found


def _plots(path: str) -> pathlib.Path:
    """Makes the folder, and says before a long run what would fail after it."""
    require("matplotlib", extra="plots", purpose="`--plots`")
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`--plots` must be a folder that can be written. Received: {path!r}: {error.strerror}."
        ) from error
    return folder


def _labelled(text: str) -> dict[str, Any]:
    """Initializers by their names; `none` is each layer's own."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`--initializers` must differ. Received: {', '.join(twice)} more than once.")
    return {name: None if name.lower() == "none" else name for name in names}


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"`--learning-rates` must be numbers. Received: {text!r}. Write 0.01,0.1.") from None


def _read(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Training, validation and test data, as tuples of arrays."""
    train, test = _pair(options.data, options.targets, "--data")
    if options.test:
        test, _ = _pair(options.test, None, "--test")
    if options.validation:
        validation, _ = _pair(options.validation, None, "--validation")
    else:
        train, validation = _hold_out(train)
    return train, validation, test


def _pair(source: str, targets: str | None, option: str) -> tuple[Any, Any]:
    """Rows and their labels, and those of the data set's own test split or None."""
    if source.lower() == "none":
        raise ValueError(f"`{option}` must have labels. Received: none, which is drawn input without labels.")
    if not source.endswith((".npy", ".npz")):
        splits = load_splits(source, option)
        test = _arrays(splits["test"], option) if "test" in splits else None
        return _arrays(splits["train"], option), test
    found = read_source(source, option)
    pair = as_data(found)
    if targets:
        rows = pair[0] if isinstance(pair, tuple) else found
        return (rows, read_source(targets, "--targets")), None
    if not isinstance(pair, tuple):
        received = sorted(found) if isinstance(found, dict) else "one array"
        cure = "Or name a file of labels by `--targets`." if option == "--data" else ""
        raise ValueError(
            f"`{option}` must be an .npz file of the arrays x and y, with sample_weight or without, or name "
            f"a data set of tfds. Received: {source!r}, which holds {received}. {cure}".rstrip()
        )
    return pair, None


def _arrays(split: Any, option: str) -> tuple[Any, Any]:
    """A data set of tfds in memory."""
    import numpy as np

    x, y = zip(*split.as_numpy_iterator(), strict=True)
    if len({np.shape(row) for row in x}) > 1:
        raise ValueError(f"`{option}` must hold rows of one shape. Received: {np.shape(x[0])} and others.")
    return np.stack(x), np.stack(y)


def _hold_out(data: Any) -> tuple[Any, Any]:
    """One row in five, drawn, for validation; the same ones each time."""
    import numpy as np
    from keras import tree

    counts = sorted({len(leaf) for leaf in tree.flatten(data)})
    if len(counts) > 1 or counts[0] < _HELD_OUT:
        raise ValueError(
            f"`--data` must hold as many rows in each array, and at least {_HELD_OUT}. Received: {counts}."
        )
    held, kept = np.split(np.random.default_rng(0).permutation(counts[0]), [counts[0] // _HELD_OUT])
    take = lambda rows: tree.map_structure(lambda leaf: leaf[rows], data)  # noqa: E731
    return take(kept), take(held)
