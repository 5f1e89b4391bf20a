"""`initx compare`: which initializer trains a model best, over seeds."""

import argparse
import functools
import importlib.util
import pathlib
import re
from typing import TYPE_CHECKING, TypeAlias

from _initx_command._loading import load
from _initx_command._models import add_model, check_model, is_named, load_model
from _initx_command._sources import DATA_HELP, as_data, as_option, load_splits, read_source
from _initx_command._verb import Answer, Options, Verb

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_initx._types import Data
    from keras_initx.experiments import Comparison

    # Rows and labels, or rows, labels and sample weights: arrays, or dicts of arrays.
    Rows: TypeAlias = tuple[Data | None, ...]

__all__ = ["COMPARE"]

_HELD_OUT = 5  # without `--validation`, one row in five is validation data
_MODES = ("auto", "max", "min")
_RUNNERS = ("ray", "sequential", "vectorized")
_GIVEN = ("seeds", "epochs", "metric", "mode", "target", "batch_size", "runner", "store")


def _add_compare(options: Options) -> None:
    add_model(options, "; the model must be compiled")
    options.add("--data", required=True, metavar="DATA", help=f"data to train on, with labels: {DATA_HELP}")
    options.add("--targets", metavar="FILE", help="labels of --data in an .npy or .npz file of their own")
    options.add(
        "--validation",
        metavar="FILE",
        help="data to choose on: an .npz file of x and y; by default a fifth of --data, which is held out",
    )
    options.add(
        "--test",
        metavar="FILE",
        help="data to report on: an .npz file of x and y; by default the test split of a data set",
    )
    options.add(
        "--initializers",
        required=True,
        metavar="NAMES",
        help="initializers and strategies with commas between them, such as he_normal,LSUV; "
        "none for each layer's own initializer",
    )
    _add_training(options)
    options.add("--runner", choices=_RUNNERS, help="how the trials run")
    options.add(
        "--store", metavar="FOLDER", help="a folder for the results; the same command continues from it"
    )
    options.add(
        "--plots", metavar="FOLDER", help="write curves.png, finals.png and rates.png into this folder"
    )
    options.add_json()


def _add_training(options: Options) -> None:
    options.add("--seeds", type=int, metavar="N", help="number of seeds")
    options.add(
        "--learning-rates",
        metavar="RATES",
        help="numbers with commas between them; by default the rate that the model was compiled with",
    )
    options.add("--epochs", type=int, metavar="N", help="epochs of each trial")
    options.add("--metric", help="loss, or a metric that the model was compiled with")
    options.add(
        "--mode",
        choices=_MODES,
        help="max if more of the metric is better, min if less is; auto takes the class of the metric",
    )
    options.add(
        "--target", type=float, metavar="VALUE", help="report how long the metric takes to this value"
    )
    options.add("--batch-size", type=int, metavar="N", help="rows of a batch")


def _compare(options: argparse.Namespace) -> Answer:
    check_model(options.model)
    rates = _numbers(options.learning_rates) if options.learning_rates else None
    initializers = _labelled(options.initializers)
    plots = _make_folder(options.plots) if options.plots else None
    train, validation, test = _read(options)
    load()
    try:
        found = _train(options, initializers, train, validation, test, rates)
    except KeyboardInterrupt:
        kept = f"the same command continues from the results in {options.store}" if options.store else ""
        raise KeyboardInterrupt(kept) from None
    if plots:
        from keras_initx.plots import plot_curves, plot_finals, plot_rates

        for name, draw in (("curves", plot_curves), ("finals", plot_finals), ("rates", plot_rates)):
            draw(found).savefig(plots / f"{name}.png")
    good = any(result.ended_well for result in found.results)
    return Answer(found, "" if good else "no trial ended well")


def _train(
    options: argparse.Namespace,
    initializers: dict[str, str | None],
    train: "Rows",
    validation: "Rows",
    test: "Rows | None",
    rates: list[float] | None,
) -> "Comparison":
    from keras_initx.experiments import compare

    model = options.model
    if is_named(model):
        model = functools.partial(load_model, model, modules=options.modules)
    else:
        # A model that cannot be loaded would fail in each trial, in the words of Keras.
        load_model(model, modules=options.modules)
    chosen = {name: getattr(options, name) for name in _GIVEN}
    try:
        return compare(model, initializers, train, validation, learning_rates=rates, test=test, **chosen)
    except ValueError as error:  # names arguments; the user of the command knows options
        names = {"build_fn": "`model`", "train": "`--data`", "initializers": "`--initializers`"}
        names |= {name: as_option(name) for name in (*_GIVEN, "validation", "test", "learning_rates")}
        told = re.sub(r"`(\w+)`", lambda name: names.get(name[1], name[0]), str(error))
        raise ValueError(told) from error


def _make_folder(path: str) -> pathlib.Path:
    """Makes the folder of `--plots`, or raises ValueError before a long run."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("`--plots` needs matplotlib: pip install 'keras-initx[plots]'")
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`--plots` must be a folder that can be written. Received: {path!r}: {error.strerror}."
        ) from error
    return folder


def _labelled(text: str) -> dict[str, str | None]:
    """Returns the initializers by their names. `none` is each layer's own initializer."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`--initializers` must differ. Received: {', '.join(twice)} more than once.")
    return {name: None if name.lower() == "none" else name for name in names}


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"`--learning-rates` must be numbers. Received: {text!r}. Write 0.01,0.1.") from None


def _read(options: argparse.Namespace) -> "tuple[Rows, Rows, Rows | None]":
    """Returns the training, validation and test data."""
    train, test = _pair(options.data, options.targets, "--data")
    if options.test:
        test, _ = _pair(options.test, None, "--test")
    if options.validation:
        validation, _ = _pair(options.validation, None, "--validation")
    else:
        train, validation = _hold_out(train)
    return train, validation, test


def _pair(source: str, targets: str | None, option: str) -> "tuple[Rows, Rows | None]":
    """Returns rows with their labels, and the same of the data set's test split, or None."""
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


def _arrays(split: "tf.data.Dataset", option: str) -> "Rows":
    """Returns a data set as arrays in memory."""
    import numpy as np

    x, y = zip(*split.as_numpy_iterator(), strict=True)
    if len({np.shape(row) for row in x}) > 1:
        raise ValueError(f"`{option}` must hold rows of one shape. Received: {np.shape(x[0])} and others.")
    return np.stack(x), np.stack(y)


def _hold_out(data: "Rows") -> "tuple[Rows, Rows]":
    """Draws one row in five for validation. The seed is fixed, so each run holds out the same rows."""
    load()
    import numpy as np
    from keras import tree

    counts = sorted({len(leaf) for leaf in tree.flatten(data)})
    if len(counts) > 1 or counts[0] < _HELD_OUT:
        raise ValueError(
            f"`--data` must hold as many rows in each array, and at least {_HELD_OUT}. Received: {counts}."
        )
    held, kept = np.split(np.random.default_rng(0).permutation(counts[0]), [counts[0] // _HELD_OUT])
    train, validation = (tree.map_structure(lambda leaf: leaf[rows], data) for rows in (kept, held))  # noqa: B023
    return train, validation


COMPARE = Verb(
    "compare",
    "train a model from several initializers over seeds, and name the best initializer",
    _add_compare,
    _compare,
    "keras_initx.compare",
)
