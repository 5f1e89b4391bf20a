"""Initialization of a whole model in place."""

import functools
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_initx._types import Initializer, Model, Tensor, Variable
from keras_initx.checks import check_seed
from keras_initx.initializers import get, is_bias_initializer, is_law, is_none, nearest
from keras_initx.state import check_built, seeded, slotted, transaction
from keras_initx.strategies._drawing import Drawing
from keras_initx.strategies._model_width import model_width
from keras_initx.strategies._names import STRATEGIES
from keras_initx.strategies._plan import Draw, Plan, Strategy, describe
from keras_initx.strategies._report import InitReport
from keras_initx.walk import KernelSite, iter_kernels, iter_weights, matching, select

__all__ = ["initialize"]

Update = Callable[..., None]


def initialize(
    model: Model,
    initializer: Initializer | Strategy | type[Strategy] | None = "by_role",
    *,
    seed: int | None = None,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    frozen: bool = False,
    transactional: bool = True,
) -> InitReport:
    """Draws the weights of a built model anew, in place, with the true fans of each layer.

    Kernels are drawn by the initializer or strategy; all other weights by what their layers drew them with
    when they were built, so that a trained model starts over. A weight of which nothing tells that stays:
    there is a warning, and its path is in `report.kept`. Each variable has a stream of random numbers of its
    own, from the seed and its path: kernels of equal shape differ, and a new layer changes no other layer's
    draw. Functions that draw from the global generators of Keras, NumPy or Python follow the seed, too. The
    slots of a compiled model's optimizer are set back, its learning rate stays.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((8, 8, 64)), keras.layers.DepthwiseConv2D(3, name="dw")])
    >>> report = initialize(model, "initx>LecunScaled", seed=7)
    >>> report.rows[0].fans, f"{report.rows[0].std:.1f}"  # 1 / 3, where Keras' lecun_normal gives 1 / 24
    (Fans(fan_in=9, fan_out=9), '0.3')

    Args:
        model: A built Keras model or layer, of any form.
        initializer: A strategy or its name (`"by_role"` where you have no reason for another); any
            initializer of this package or of Keras, its name or config, for all kernels; or None for each
            layer's own.
        seed: Seed of all streams; None takes one from Python's generator, which
            `keras.utils.set_random_seed` rules. The report holds it.
        include: Patterns of paths (`"block3"` with all below it, `"*/query"`) or roles of what is to be
            drawn; None for all.
        exclude: Patterns or roles of what is to be left as it is.
        overrides: What draws the kernels or other weights of a pattern or role instead; the last that matches
            counts.
        frozen: Whether to draw the weights of layers that are not trainable, too.
        transactional: Whether to put everything back on an error, which holds the old weights until the end.

    Returns:
        A report with one row per weight in scope.

    Raises:
        ValueError: If the model is not built; a name, pattern, role or seed is not understood; or a strategy
            or initializer does not fit the model. Nothing has changed then, as after Ctrl-C.

    Reference:
        That of the strategy or initializer; for the fans see `keras_initx.fans`.
    """
    started = time.perf_counter()
    check_built(model)
    chosen = check_seed(seed)
    seed = random.randint(0, 2**31 - 1) if chosen is None else chosen
    # An initializer without a seed takes a number from Python's generator as it is made.
    with seeded(seed % 2**31):
        scheme = resolve(initializer)
        _check_kernels(scheme)
        sites = list(iter_kernels(model, trace=hasattr(scheme, "plan")))  # all else needs the fans alone
        weights: list[Any] = [*sites, *iter_weights(model, sites)]
        scope = select(weights, include, exclude)
        replaced = {pattern: None if is_none(i) else get(i) for pattern, i in (overrides or {}).items()}
        for pattern in replaced:
            matching(weights, pattern, "overrides")
        plan = _plan(
            scheme,
            model,
            [s for s in sites if not s.skip and (s.fans or s.is_scale)],
        )
        reset = False
        with transaction() if transactional else _without_undo() as update:
            drawing = Drawing(plan, replaced, frozen, seed, model_width(sites), update)
            rows = tuple(drawing.row(weight) for weight in scope)
            if any(row.initializer for row in rows):
                reset = _reset_optimizer(model, update)
        told = initializer if isinstance(initializer, str) else describe(scheme)
        name = "each layer's own" if scheme is None else told
        report = InitReport(rows, name, seed, reset, time.perf_counter() - started)
    if report.kept:
        warnings.warn(_told(report.kept), stacklevel=2)
    return report


def resolve(scheme: Any) -> Any:
    """Returns the strategy or initializer that a name, config, class or instance stands for; None for none.

    >>> resolve("ReZero"), resolve("LSUV"), resolve("none")
    (ReZero(), LSUV(), None)

    Args:
        scheme: What `initialize` takes.

    Raises:
        ValueError: If nothing is known by that name; the message names the nearest.
    """
    if is_none(scheme):
        return None
    if isinstance(scheme, str) and scheme in STRATEGIES:
        return STRATEGIES[scheme]()
    if hasattr(scheme, "plan"):
        return scheme() if isinstance(scheme, type) else scheme
    try:
        return get(scheme)
    except ValueError as error:
        near = nearest(scheme, STRATEGIES) if isinstance(scheme, str) else []
        if not near:
            raise
        raise ValueError(
            f"`initializer` must name a strategy of {sorted(STRATEGIES)} or an initializer. "
            f"Received: {scheme!r}. Nearest: {near[0]!r}."
        ) from error


def _told(kept: tuple[str, ...]) -> str:
    paths = ", ".join(f"`{path}`" for path in kept[:6]) + (", ..." if len(kept) > 6 else "")
    return (
        f"`initialize` left {len(kept)} weights as they are, trained or not, for nothing tells their initial "
        f"values: {paths}. Give them an initializer by `overrides`, or their layer a `get_config` that "
        "returns all arguments of its `__init__`."
    )


def _check_kernels(scheme: Any) -> None:
    """Refuses laws of biases, which would draw each kernel as zeros."""
    if is_bias_initializer(scheme):
        instead = (
            'call `calibrate(model, (x, y), "LabelPrior")`'
            if is_law(scheme)
            else f'pass `overrides={{"head/bias": {describe(scheme)}}}` with the path of its bias'
        )
        raise ValueError(
            f"`initializer` must draw kernels. Received: {describe(scheme)}, a law of biases. Give it to a "
            f"head as `bias_initializer`, or {instead}."
        )


def _plan(scheme: Any, model: Model, sites: list[KernelSite]) -> Plan:
    if scheme is None:
        return {}
    if hasattr(scheme, "plan"):
        return scheme.plan(tuple(sites), model)
    return {site: Draw(scheme) for site in sites if site.fans}


def _reset_optimizer(model: Model, update: Update) -> bool:
    """Gives a built optimizer the slots that it has before its first step; its learning rate stays."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return False
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(slotted(optimizer))
    for slot, start in zip(optimizer.variables, fresh.variables, strict=True):
        if slot.name != "learning_rate":
            update(slot, functools.partial(_value_of, start))
    return True


def _value_of(variable: Variable, _: Tensor) -> Any:
    return variable.value


class _without_undo:  # noqa: N801
    """Stands in for `transaction` where there is no memory for the old weights."""

    def __enter__(self) -> Update:
        return lambda variable, function: variable.assign(function(variable))

    def __exit__(self, *_: object) -> None:
        return None
