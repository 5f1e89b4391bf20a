"""The verb `coordinates`: a few training steps at several widths, and the sizes of all pre-activations."""

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._types import Arrays, Data, Loss, Model
from keras_initx.checks import check_count, is_whole
from keras_initx.data import check_looked_up, take_pair
from keras_initx.losses import check_loss
from keras_initx.scaling._growths import Fans, fans_of, growths_of
from keras_initx.scaling._models import (
    Sized,
    build_model,
    check_grows,
    check_widths,
    notes_of,
    roles_of,
    sized,
)
from keras_initx.scaling._report import CoordinateReport
from keras_initx.scaling._rows import CoordinateRow, Divergence
from keras_initx.scaling._run import AnyInitializer, Run, Trained, Training, takes_model
from keras_initx.scaling._slopes import slopes_of
from keras_initx.state import repeated_masks, seeded
from keras_initx.strategies import resolve
from keras_initx.walk import input_specs

__all__ = ["coordinates"]


def coordinates(
    build: Callable[[int], Model],
    widths: Sequence[int],
    initializer: AnyInitializer,
    data: Data,
    *,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    loss: Loss | None = None,
    steps: int = 4,
    seeds: int | Sequence[int] = 2,
    samples: int = 16,
) -> CoordinateReport:
    """Trains a model for a few steps at several widths, and reports how its signal grows with the width.

    This is the coordinate check of muP. A learning rate that was tuned on a narrow model suits a wide model
    only if no pre-activation, and no change of a pre-activation by training, grows or vanishes with the
    width. The check trains all models on one batch. It measures the mean absolute pre-activation of each
    kernel, the logits of attention, and their changes since the start. The slope of log size over log width
    is 0 if the width does not matter, and 1 if the size doubles with the width.

    Law: under muP all values and changes have the slope 0 in the limit of great width, at each step. One
    thing differs by design: at the start the values of the output layer fall as 1 / sqrt(width). The output
    layer is therefore judged by its change, and falling values are no fault. `report.findings` names the
    layers that break a limit, tells a layer that is wrong from a layer that passes on the fault of another,
    and gives the cure as code. `report.check()` raises.

    The models run as in training, with the same dropout masks at each step. The optimizer gets the learning
    rates of the initializer's report by `report.optimizer`. Global random generators are put back at the end.

    >>> import keras, keras_initx as initx
    >>> def build(width):
    ...     return keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(width, "relu", name="in"),
    ...         keras.layers.Dense(width, "relu", name="hidden"), keras.layers.Dense(1, name="out")])
    >>> x = keras.random.normal((32, 8), seed=0)
    >>> data = (x, keras.ops.sum(x, axis=1, keepdims=True))
    >>> plain = coordinates(build, [64, 128, 256], "initx>HeScaled", data, loss="mse", steps=2)
    >>> [(found.path, found.kind) for found in plain.findings]
    [('hidden', 'grows'), ('out', 'grows')]
    >>> coordinates(build, [64, 128, 256], "MuP", data, loss="mse", steps=2).check()

    Args:
        build: Function of a width that returns a new model. The model may be compiled.
        widths: Two or more widths, the smallest first. Four that double each time, from 64 or more, give
            good slopes.
        initializer: Anything that `initialize` takes. A strategy with `base=None`, such as `"MuP"`, gets the
            model of the smallest width as its base. Or a function whose arguments are `model` and `seed`,
            which draws the weights itself and returns the report of `initialize`, or None for no learning
            rates.
        data: A pair (x, y) of arrays, or anything that `diagnose` takes, with targets.
        optimizer: A Keras optimizer or its name. Each model gets a copy. None for the optimizer that the
            models are compiled with, or else Adam with the learning rate 0.001, as in the authors' package.
        loss: A loss as `compile` takes it. None for the loss that the models are compiled with.
        steps: Number of training steps, all on one batch.
        seeds: Number of seeds (0, 1, 2, ...), or the seeds themselves.
        samples: Rows of the batch: the first ones of the data.

    Returns:
        A report with a row for each width, seed, layer and step, the slopes, and the findings.

    Raises:
        ValueError: If an argument is not understood; `build` ignores its width, or returns models of
            different structure; or the data, the loss or the initializer does not fit the models.

    Reference:
        Yang et al., 2022, "Tensor Programs V" (https://arxiv.org/abs/2203.03466), appendix D.1, and "Coord
        Check" of the authors' package (https://github.com/microsoft/mup). They plot the sizes; slopes,
        limits and causes were added here.
    """
    started = time.perf_counter()
    widths, chosen_seeds = check_widths(widths), _check_seeds(seeds)
    check_count("steps", steps)
    check_count("samples", samples)
    check_loss(loss)
    chosen = _check_optimizer(optimizer)
    # Whatever `build` draws comes from generators that are put back.
    with seeded(0), repeated_masks():
        batch, targets = _take(build_model(build, widths[0]), data, samples)
        first = build_model(build, widths[0], batch)
        check_looked_up(first, batch, lambda: input_specs(first))
        _check_task(first, targets, loss)
        own = first.optimizer if getattr(first, "compiled", False) else None
        used = chosen or own or keras.optimizers.Adam(1e-3)
        # The base is not the first model itself, which gets an optimizer and other weights.
        based = _based(initializer, build_model(build, widths[0], batch), used)
        run = Run(based, batch, targets, chosen, loss, steps)
        smallest = sized(widths[0], first)
        fans, trained = _train_all(run, build, widths, smallest, chosen_seeds)
    return _report(run, _told(used), smallest, fans, trained, time.perf_counter() - started)


def _take(model: Model, data: Data, samples: int) -> tuple[Any, Any]:
    """Returns the batch and its targets."""
    batch, targets = take_pair(model, data, samples)
    rows = len(tree.flatten(batch)[0])  # arrays bring the targets of all their rows
    return batch, tree.map_structure(lambda leaf: None if leaf is None else leaf[:rows], targets)


def _train_all(
    run: Run, build: Callable[[int], Model], widths: Sequence[int], smallest: Sized, seeds: Sequence[int]
) -> tuple[dict[int, Fans], dict[int, dict[int, Trained]]]:
    """Trains the models of all widths, one after the other, from each seed."""
    shapes: dict[tuple[tuple[int, ...], ...], int] = {}
    fans: dict[int, Fans] = {}
    trained: dict[int, dict[int, Trained]] = {}
    for width in widths:
        is_first = width == smallest.width
        model = smallest if is_first else sized(width, build_model(build, width, run.batch), smallest)
        check_grows(model, shapes)
        fans[width], trained[width] = fans_of(model), _train(run, model, seeds)
        del model  # a model holds itself in cycles, and the next one may need its memory
        gc.collect()
    return fans, trained


def _train(run: Run, model: Sized, seeds: Sequence[int]) -> dict[int, Trained]:
    """Trains a model from each seed."""
    training = Training(run, model)
    try:
        return {seed: training.train(seed) for seed in seeds}
    except ValueError as error:
        raise ValueError(f"{error} (at width={model.width})") from error


def _report(
    run: Run,
    optimizer: str,
    smallest: Sized,
    fans: Mapping[int, Fans],
    trained: Mapping[int, Mapping[int, Trained]],
    seconds: float,
) -> CoordinateReport:
    widths, seeds = tuple(trained), tuple(trained[smallest.width])
    rows = [
        CoordinateRow(width, seed, path, role, step, value, found.changes[step][path])
        for width, of_width in trained.items()
        for seed, found in of_width.items()
        for step, values in enumerate(found.values)
        for path, role in roles_of(smallest).items()
        if (value := values.get(path)) is not None
    ]
    diverged = [
        Divergence(width, seed, found.diverged)
        for width, of_width in trained.items()
        for seed, found in of_width.items()
        if found.diverged is not None
    ]
    return CoordinateReport(
        tuple(rows),
        tuple(slopes_of(rows)),
        growths_of(smallest, fans, trained),
        widths,
        run.steps,
        seeds,
        len(tree.flatten(run.batch)[0]),
        optimizer,
        tuple(diverged),
        tuple(notes_of(smallest)),
        seconds,
    )


def _told(optimizer: keras.optimizers.Optimizer) -> str:
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    return f"{type(optimizer).__name__} with the learning rate {rate:g}"


def _based(initializer: AnyInitializer, base: Model, optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns the initializer; a strategy that lacks its base gets the smallest model.

    A strategy by name is also told the optimizer. An object says itself which one it is made for.
    """
    if takes_model(initializer):
        return initializer
    chosen = resolve(initializer)
    if not dataclasses.is_dataclass(chosen) or getattr(chosen, "base", chosen) is not None:
        return chosen
    named = isinstance(initializer, str | type) and hasattr(chosen, "optimizer")
    return dataclasses.replace(chosen, base=base, **({"optimizer": optimizer} if named else {}))  # type: ignore[type-var]


def _check_optimizer(optimizer: object) -> keras.optimizers.Optimizer | None:
    if optimizer is None or isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    try:
        if isinstance(optimizer, str):
            return keras.optimizers.get(optimizer)
    except ValueError:
        pass
    raise ValueError(
        "`optimizer` must be a Keras optimizer, its name, or None for the one that the models are compiled "
        f'with. Received: optimizer={optimizer!r}. Pass keras.optimizers.Adam(1e-3), or "adam".'
    )


def _check_task(model: Model, targets: Arrays | None, loss: Loss | None) -> None:
    """Raises ValueError if there is nothing to train on."""
    compiled = getattr(model, "compiled", False)
    if loss is None and not compiled:
        raise ValueError(
            "`loss` must be given, or `build` must compile its models. Received: loss=None, and "
            f'`{model.name}` is not compiled. Pass loss="mse", for example.'
        )
    if targets is None and (loss is not None or model.loss is not None):
        raise ValueError(
            "`data` must have targets for the loss. Received: inputs alone. Pass a pair (x, y), or an "
            "iterable of such pairs."
        )


def _check_seeds(seeds: object) -> list[int]:
    chosen: Any = range(seeds) if is_whole(seeds) else seeds
    whole = isinstance(chosen, list | tuple | range) and all(is_whole(seed) and seed >= 0 for seed in chosen)
    if not whole or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"`seeds` must be a positive int, or different ints of at least 0. Received: seeds={seeds!r}."
        )
    return [int(seed) for seed in chosen]
