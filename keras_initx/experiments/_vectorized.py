"""The runner that trains all seeds of one initializer in a single vectorised program, on JAX."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from keras_initx._types import Model, Tensor
from keras_initx.checks import check_count, first_line
from keras_initx.experiments._batches import Shuffled, is_arrays, rows_of
from keras_initx.experiments._prepare import prepare
from keras_initx.experiments._problem import Problem, build_model, rows_to_try
from keras_initx.experiments._run_trial import is_finite, numbers_of, result_of
from keras_initx.experiments._sequential import Progress
from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["Vectorized"]


class Vectorized:
    """Trains all seeds of one initializer and learning rate at once, by `jax.vmap`, on the JAX backend.

    The step is the model's own `train_step`, and an epoch is one compiled loop over the batches. The batches
    are the same as in the other runners, so that the results differ from theirs only by the order of sums.
    The models of all seeds must differ in the values of their variables alone. The seconds of a trial are its
    share of the seconds of the program.

    The runner pays for small models, because their steps cost more in dispatch than in arithmetic. It does
    not pay for convolutions on a CPU: there it is slower than one trial after another. It needs the memory of
    all seeds together.

    Args:
        size: The largest number of trials that are trained at once; None for all seeds.
        progress: Whether to show on stderr how many trials have ended, and how long the others will take.

    Raises:
        ValueError: If `size` is not an int of at least 1.
    """

    def __init__(self, size: int | None = None, progress: bool = True) -> None:
        self.size, self.progress = None if size is None else check_count("size", size), progress

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials, group by group.

        Args:
            problem: The model, the data and the settings that all trials share.
            trials: The trials to make.
            keep: Called with each result.

        Raises:
            ValueError: If the backend is not JAX, data are not arrays, or there are callbacks.
        """
        _check(problem)
        program = _Program(problem)
        progress = Progress(len(trials), self.progress)
        key = lambda trial: (trial.initializer, str(trial.learning_rate), trial.epochs)  # noqa: E731
        for _, group in itertools.groupby(sorted(trials, key=key), key):
            members = list(group)
            size = self.size or len(members)
            for chunk in (members[start : start + size] for start in range(0, len(members), size)):
                progress.show(f"{chunk[0].initializer}, {len(chunk)} seeds")
                for result in _run_group(program, chunk):
                    keep(result)
                progress.step(len(chunk))


def _check(problem: Problem) -> None:
    cure = "Take runner='sequential'."
    if keras.backend.backend() != "jax":
        received = keras.backend.backend()
        raise ValueError(f"`runner`: `Vectorized` needs KERAS_BACKEND=jax. Received: {received}. {cure}")
    if problem.callbacks:
        raise ValueError(
            f"`callbacks` must be None: `Vectorized` trains outside of `fit`. Received: callbacks. {cure}"
        )
    for name in ("train", "validation", "test"):
        data = problem.data(name)
        if data is not None and not is_arrays(data):
            raise ValueError(
                f"`{name}` must be a tuple of arrays: `Vectorized` takes rows from them on the device. "
                f"Received: {type(data).__name__}. {cure}"
            )


class _State(NamedTuple):
    """The values of the variables of a model; once stacked, with a leading axis of seeds."""

    trainable: list[Tensor]
    non_trainable: list[Tensor]
    optimizer: list[Tensor]


class _Program:
    """Epochs of training and evaluations of many seeds at once, compiled once for all groups.

    Keras' JAX trainer has a step as a pure function: it takes the values of all variables, and returns the
    new values. `jax.vmap` maps this function over seeds, and `jax.lax.scan` over the batches of an epoch:

        orders (seeds, rows) -> (batches, seeds, batch_size) -> scan over batches of vmap over seeds of step
    """

    def __init__(self, problem: Problem) -> None:
        import jax

        self.problem = problem
        self.model = build_model(problem, 0)  # only its functions are used, on values of other models
        data = {name: problem.data(name) for name in ("train", "validation", "test")}
        self.data = {name: jax.device_put(arrays) for name, arrays in data.items() if arrays is not None}
        rows = rows_to_try(self.model, 1)
        self.model.test_on_batch(
            *tree.map_structure(lambda leaf: leaf[:rows], data["train"])
        )  # makes the metrics
        self.model.reset_metrics()
        self.metrics = [variable.value for variable in self.model.metrics_variables]
        self.train = jax.jit(self._train)
        self.evaluate = jax.jit(self._evaluate, static_argnums=1)

    def _train(self, state: _State, orders: Tensor) -> tuple[_State, dict[str, Tensor]]:
        """Trains one epoch. `orders` has the numbers of the rows in the order of each seed: (seeds, rows)."""
        import jax

        step = jax.vmap(self.model.train_step)

        def one(carry: tuple[Any, ...], chosen: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
            batch = tree.map_structure(lambda leaf: leaf[chosen], self.data["train"])
            logs, carry = step(carry, batch)
            return tuple(carry), logs

        carry = (*state, self._metrics(len(orders)))
        carry, logs = self._over_batches(one, carry, orders)
        return _State(*carry[:3]), logs

    def _evaluate(self, state: _State, name: str) -> tuple[_State, dict[str, Tensor]]:
        """Evaluates all seeds on the data of this name, whose batches are the same for all seeds."""
        import jax

        step = jax.vmap(self.model.test_step, in_axes=(0, None))
        data = self.data[name]

        def one(carry: tuple[Any, ...], chosen: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
            logs, carry = step(carry, tree.map_structure(lambda leaf: leaf[chosen[0]], data))
            return tuple(carry), logs

        rows = jax.numpy.arange(rows_of(data))[None]
        carry = (state.trainable, state.non_trainable, self._metrics(len(state.optimizer[0])))
        carry, logs = self._over_batches(one, carry, rows)
        return _State(carry[0], carry[1], state.optimizer), logs

    def _over_batches(
        self, one: Callable[..., Any], carry: tuple[Any, ...], orders: Tensor
    ) -> tuple[Any, Any]:
        """Runs `one` over the full batches in a compiled loop, then over a smaller last batch.

        `jax.lax.scan` needs batches of one shape, so the last batch is outside of the loop. Metrics of Keras
        are running means, so the logs of the last batch are the logs of the epoch.
        """
        import jax

        size, rows = self.problem.batch_size, orders.shape[1]
        full, logs = rows // size, None
        if full:
            chosen = orders[:, : full * size].reshape(len(orders), full, size).swapaxes(0, 1)
            carry, logs = jax.lax.scan(one, carry, chosen)
            logs = {name: values[-1] for name, values in logs.items()}
        if rows % size:
            carry, logs = one(carry, orders[:, full * size :])
        return carry, logs

    def _metrics(self, seeds: int) -> list[Tensor]:
        """Returns fresh values of the metrics' variables, one copy for each seed."""
        return [keras.ops.repeat(value[None], seeds, axis=0) for value in self.metrics]


def _run_group(program: _Program, trials: Sequence[Trial]) -> Iterable[TrialResult]:
    """Trains trials that differ in their seeds alone, and yields their results."""
    started = time.perf_counter()
    problem, ready, prepared = program.problem, [], []
    for trial in trials:
        try:
            made = prepare(problem, trial)
        except Exception as error:
            failure = first_line(error, kind=True)
            yield TrialResult(trial, failure=failure, seconds=time.perf_counter() - started)
            continue
        ready.append((trial, _state_of(made.model)))
        prepared.append(made.findings)  # the models themselves would fill the memory
    if not ready:
        return
    members, states = zip(*ready, strict=True)
    train = time.perf_counter()
    logs, waited, tests = _fit(program, members, _stack(states))
    waited = [(moment - train) / len(members) for moment in waited]
    seconds = (time.perf_counter() - started) / len(trials)
    for number, (trial, found) in enumerate(zip(members, prepared, strict=True)):
        own = [numbers_of({name: values[number] for name, values in epoch.items()}) for epoch in logs]
        ended = next((e for e, epoch in enumerate(own) if not is_finite(epoch, problem)), len(own) - 1) + 1
        test = float(tests[number]) if tests is not None and ended == len(own) else None
        yield result_of(problem, trial, own[:ended], waited, test, found, seconds)


def _fit(
    program: _Program, trials: Sequence[Trial], state: _State
) -> tuple[list[dict[str, Any]], list[float], Any]:
    """Returns the logs of all seeds by epoch, the moment at which each epoch ended, and the test metric."""
    problem, logs, moments = program.problem, [], []
    orders = [Shuffled(program.data["train"], problem.batch_size, trial.seed) for trial in trials]
    for epoch in range(trials[0].epochs):
        state, trained = program.train(state, np.stack([order.order_of(epoch) for order in orders]))
        state, validated = program.evaluate(state, "validation")
        found = {**trained, **{f"val_{name}": values for name, values in validated.items()}}
        logs.append({name: np.asarray(values) for name, values in found.items()})
        moments.append(time.perf_counter())
    test = program.evaluate(state, "test")[1][problem.metric] if "test" in program.data else None
    return logs, moments, test


def _state_of(model: Model) -> _State:
    model.optimizer.build(model.trainable_variables)
    lists = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    return _State(*([variable.value for variable in variables] for variables in lists))


def _stack(states: Sequence[_State]) -> _State:
    return tree.map_structure(lambda *values: keras.ops.stack(values), *states)
