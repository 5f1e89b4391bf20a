"""`initialize`: draws the weights of a whole model in place."""

import functools
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_initx._types import Initializer, Model, Tensor, Variable
from keras_initx.checks import check_seed
from keras_initx.initializers import get, is_bias_initializer, is_law, is_none, makes_heads, nearest
from keras_initx.optimizers import Multiplier, Multipliers
from keras_initx.state import check_built, seeded, slotted, transaction
from keras_initx.strategies._adapters import default_draws
from keras_initx.strategies._drawing import Drawing
from keras_initx.strategies._model_width import model_width
from keras_initx.strategies._names import STRATEGIES
from keras_initx.strategies._plan import Draw, Plan, Strategy, WholePlan, describe
from keras_initx.strategies._report import OWN, InitReport
from keras_initx.strategies._starts import Starts
from keras_initx.tables import listed
from keras_initx.walk import KernelSite, Weight, iter_kernels, iter_weights, matching, select

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
    """Draws all weights of a built model anew, in place, with the true fans of each layer.

    The initializer draws the kernels. All other weights (biases, scales, moving statistics) are drawn by the
    initializers that their layers were built with, so that a trained model starts over. The layer names the
    initializer, or a copy of the layer has it, or the weight was made with it. If nothing tells the initial
    value of a weight, the weight stays, a warning names it, and its path is in `report.kept`.

    Each variable has its own stream of random numbers, made from the seed and its path: kernels of equal
    shape differ, and a new layer does not change the draw of any other layer. Functions that draw from the
    global generators of Keras, NumPy or Python follow the seed, too. The slots of a compiled model's
    optimizer are reset; its learning rate stays.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((8, 8, 64)), keras.layers.DepthwiseConv2D(3, name="dw")])
    >>> report = initialize(model, seed=7)
    >>> report.rows[0].fans, f"{report.rows[0].std:.1f}"  # 1 / 3, where Keras' lecun_normal gives 1 / 24
    (Fans(fan_in=9, fan_out=9), '0.3')

    Args:
        model: A built Keras model or layer, of any form.
        initializer: The initializer of the kernels: a strategy or its name (`"by_role"`, `"Fixup"`); or any
            initializer of this package or of Keras, its name or config. None draws each kernel by its own
            layer's initializer.
        seed: Seed of all streams. None takes a seed from Python's generator, which
            `keras.utils.set_random_seed` sets. The report holds the seed.
        include: Patterns of paths (`"block3"` with everything below it, `"*/query"`) or roles to draw. None
            for all weights.
        exclude: Patterns or roles to leave as they are. None for none.
        overrides: Other initializers for some weights, by pattern or role: `{"head": "zeros"}`. If several
            patterns match a weight, the last one counts.
        frozen: Whether to draw the weights of layers that are not trainable, too.
        transactional: Whether to undo all changes on an error, for which the old weights stay in memory until
            the end.

    Returns:
        A report with one row per weight in scope.

    Raises:
        ValueError: If the model is not built; a name, pattern, role or seed is not known; or the initializer
            does not fit the model. The model is then unchanged, as it is after Ctrl-C, unless `transactional`
            is False.

    Reference:
        The reference of the initializer; for the fans see `keras_initx.fans`.
    """
    started = time.perf_counter()
    check_built(model)
    chosen = check_seed(seed)
    seed = random.randint(0, 2**31 - 1) if chosen is None else chosen
    # Keras' initializers without a seed take one from Python's generator when they are made: the caller's
    # generator must not move.
    with seeded(seed % 2**31):
        chosen = resolve(initializer)
        _check_kernels(chosen)
        # Only strategies need the trace; an initializer needs the fans alone, and saves the time.
        sites = list(iter_kernels(model, trace=hasattr(chosen, "plan")))
        weights: list[Any] = [*sites, *iter_weights(model, sites)]
        scope = select(weights, include, exclude)
        replaced = {pattern: None if is_none(i) else get(i) for pattern, i in (overrides or {}).items()}
        for pattern in replaced:
            matching(weights, pattern, "overrides")
        known = tuple(s for s in sites if not (s.skip or s.is_factor) and (s.fans or s.is_scale))
        plan, scope = _planned(chosen, model, weights, known, scope)
        starts = Starts.of(chosen, scope, replaced, frozen)
        multipliers = _multipliers(chosen, plan, model, known)
        reset = False
        with transaction() if transactional else _without_undo() as update:
            rates = {id(v): row.learning_rate for v, row in zip(model.weights, multipliers.rows, strict=True)}
            draws = {id(weight.kernel): draw for weight, draw in plan.items()}
            drawing = Drawing(
                draws, chosen is not None, replaced, frozen, seed, model_width(sites), update, rates
            )
            rows = tuple(drawing.row(weight) for weight in scope)
            if any(row.initializer for row in rows):
                reset = _reset_optimizer(model, update)
            begun = starts.finish(model)  # last: nothing after it can fail
        told = initializer if isinstance(initializer, str) else describe(chosen)
        name = "each layer's own" if chosen is None else told
        report = InitReport(rows, name, seed, reset, time.perf_counter() - started, multipliers, begun)
    for told in filter(None, (_left(report), _unknown(report) if chosen is not None else "")):
        warnings.warn(told, stacklevel=2)
    return report


def resolve(initializer: Initializer | Strategy | type[Strategy] | None) -> Any:
    """Returns the object that a name, config, class or instance of an initializer or strategy stands for.

    >>> resolve("ReZero"), resolve("LSUV"), resolve("none")
    (ReZero(), LSUV(), None)

    Args:
        initializer: The `initializer` argument of `initialize`.

    Returns:
        A strategy, which has `plan`; an initializer or function of shape and dtype; or None, which stands for
        each layer's own initializer.

    Raises:
        ValueError: If no initializer has that name. The message gives the nearest name.
    """
    if is_none(initializer):
        return None
    if isinstance(initializer, str) and initializer in STRATEGIES:
        return STRATEGIES[initializer]()
    if hasattr(initializer, "plan"):
        return initializer() if isinstance(initializer, type) else initializer
    try:
        return get(initializer)
    except ValueError as error:
        near = nearest(initializer, STRATEGIES) if isinstance(initializer, str) else []
        if not near:
            raise
        raise ValueError(
            f"`initializer` must name a strategy of {sorted(STRATEGIES)} or an initializer. "
            f"Received: {initializer!r}. Nearest: {near[0]!r}."
        ) from error


def _left(report: InitReport) -> str:
    """Returns a warning of weights that nothing tells the initial values of; empty if there are none."""
    if not report.kept:
        return ""
    left = sum(row.size for row in report.rows if row.path in report.kept)
    share = left / max(1, sum(row.size for row in report.rows))
    return (
        f"`initialize` left {len(report.kept)} of {len(report.rows)} weights, {_percent(share)} of their "
        "parameters, as they are, trained or not, since nothing tells their initial values: "
        f"{_paths(report.kept)}. Pass initializers for them in `overrides`, or give their layer a "
        "`get_config` that returns all arguments of its `__init__`. Import keras_initx before the model is "
        "built: then the weights that `add_weight` makes keep their initializers."
    )


def _unknown(report: InitReport) -> str:
    """Returns a warning of kernels that the layers drew, since nothing tells their fans; empty if none."""
    unknown = [row.path for row in report.rows if row.is_kernel and OWN in row.note]
    if not unknown:
        return ""
    kernels = {row.path: row.size for row in report.rows if row.is_kernel}
    share = sum(kernels[path] for path in unknown) / sum(kernels.values())
    return (
        f"`initialize` does not know what {len(unknown)} of {len(kernels)} kernels are for, "
        f"{_percent(share)} of their parameters, and drew them by their layers' own initializers: "
        f"{_paths(unknown)}. The rows of the report say why; `keras_initx.walk.register` teaches their "
        "layers."
    )


def _paths(paths: Sequence[str]) -> str:
    return listed([f"`{path}`" for path in paths], 6)


def _percent(share: float) -> str:
    """Returns a share that is not 0 as a percentage that is not 0."""
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def _check_kernels(initializer: Strategy | Initializer | None) -> None:
    """Refuses initializers of heads and of biases, which would draw every kernel as zeros."""
    if makes_heads(initializer):
        name = type(initializer).__name__
        raise ValueError(
            f"`initializer` must draw kernels. Received: {describe(initializer)}, which makes a head from "
            f'features and targets. Call `calibrate(model, (x, y), "{name}")`.'
        )
    if getattr(initializer, "scope", "") == "adapter":
        name = type(initializer).__name__
        raise ValueError(
            f"`initializer` must draw kernels. Received: {describe(initializer)}, which starts adapters on "
            f'data. Call `calibrate(model, data, "{name}")`.'
        )
    if is_bias_initializer(initializer):
        instead = (
            'call `calibrate(model, (x, y), "LabelPrior")`'
            if is_law(initializer)
            else f'pass `overrides={{"head/bias": {describe(initializer)}}}` with the path of its bias'
        )
        raise ValueError(
            f"`initializer` must draw kernels. Received: {describe(initializer)}, which draws biases. "
            f"Pass it to a head as `bias_initializer`, or {instead}."
        )


def _planned(
    initializer: Any,
    model: Model,
    weights: Sequence[KernelSite | Weight],
    known: Sequence[KernelSite],
    scope: list[Any],
) -> tuple[WholePlan, list[Any]]:
    """Returns the draw of each weight that the initializer draws, and the weights in scope.

    An initializer draws the factors A of adapters; the factors B begin at zero, so that the model computes
    what its base computes. A strategy for adapters has nothing but adapters in its scope.
    """
    if getattr(initializer, "of_adapters", False):
        plan = initializer.plan(scope, model)
        return plan, [weight for weight in scope if weight in plan]
    sites = [weight for weight in weights if isinstance(weight, KernelSite)]
    adapters = getattr(initializer, "adapter_draws", default_draws)(sites)
    if initializer is None:
        return adapters, scope
    if hasattr(initializer, "plan"):
        whole = getattr(initializer, "takes_all_weights", False)
        return adapters | dict(initializer.plan(weights if whole else known, model)), scope
    drawn = [*known, *(site for site in sites if site.role == "lora_a")]
    own = {site: Draw(initializer) for site in drawn if site.fans}
    return adapters | own, scope


def _multipliers(
    initializer: Strategy | Initializer | None,
    plan: Plan | WholePlan,
    model: Model,
    sites: Sequence[KernelSite],
) -> Multipliers:
    """The factors by which an optimizer multiplies its settings, for each weight of the whole model."""
    if (multipliers := getattr(initializer, "multipliers", None)) is not None:
        return multipliers(sites, model)
    rates = {id(site.kernel): Multiplier(learning_rate=draw.learning_rate) for site, draw in plan.items()}
    return Multipliers.of(model.weights, rates)


def _reset_optimizer(model: Model, update: Update) -> bool:
    """Sets the slots of a built optimizer to their values before the first step; its learning rate stays."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return False
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(slotted(optimizer))
    # The learning rate may be a user's choice since `compile`; all other slots follow from the weights.
    for slot, start in zip(optimizer.variables, fresh.variables, strict=True):
        if slot.name != "learning_rate":
            update(slot, functools.partial(_value_of, start))
    return True


def _value_of(variable: Variable, _: Tensor) -> Tensor:
    return variable.value


class _without_undo:  # noqa: N801
    """Has the form of `transaction`, and keeps no old weights: for models too large to hold twice."""

    def __enter__(self) -> Update:
        return lambda variable, function: variable.assign(function(variable))

    def __exit__(self, *_: object) -> None:
        return None
