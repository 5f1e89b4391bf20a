"""The batcher over a model made of a function, held and released by the test: no TensorFlow, no sleep."""

import asyncio
import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initx.serving import ServingError
from keras_initx.serving._batching import Batcher
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import Signature, TensorSpec

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def signature(key="double", inputs=("x",), shape=(None,), kind="float", batched=True):
    specs = {name: TensorSpec(f"{name}:0", kind, shape) for name in inputs}
    return Signature(key, "tensorflow/serving/predict", specs, {"y": TensorSpec("y:0", kind, shape)}, batched)


class Held:
    """A model whose runs wait for `go`, and which tells what it was fed."""

    def __init__(self, function=lambda x: 2 * x, held=True):
        self.function = function
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        self.runs = []
        if not held:
            self.go.set()

    def run(self, signature, inputs, outputs):
        self.runs.append({name: value.tolist() for name, value in inputs.items()})
        self.began.release()
        assert self.go.wait(10)
        return {"y": self.function(*inputs.values())}


def row(*values):
    return {"x": np.array(values, np.float32)}


def in_loop(scenario, model, **limits):
    """Runs `scenario(batcher)` in a loop; afterwards nothing may be left."""

    async def main():
        batcher = Batcher(model, Limits(**limits))
        try:
            return await scenario(batcher)
        finally:
            model.go.set()
            await batcher.drain(0)
            assert batcher.waiting == batcher._size == 0
            assert not batcher._waiting
            batcher.close()
            await asyncio.to_thread(batcher.join)

    return asyncio.run(main())


async def begun(model, batcher, requests, sign=None):
    """Tasks for the requests; the first one runs and is held, the others wait."""
    tasks = [asyncio.ensure_future(batcher.run(sign or signature(), request, ("y",))) for request in requests]
    await asyncio.to_thread(model.began.acquire)
    while batcher.waiting < len(requests) - 1:
        await asyncio.sleep(0)
    return tasks


def test_what_arrives_while_one_runs_is_the_next_batch():
    model, rows = Held(), []

    async def scenario(batcher):
        batcher._observe = rows.append
        tasks = await begun(model, batcher, [row(1), row(2), row(3, 4), row(5)])
        model.go.set()
        return await asyncio.gather(*tasks)

    answers = in_loop(scenario, model)
    assert [answer["y"].tolist() for answer in answers] == [[2], [4], [6, 8], [10]]
    assert model.runs == [{"x": [1]}, {"x": [2, 3, 4, 5]}]
    assert rows == [1, 4]


def test_a_batch_ends_at_its_rows_and_a_larger_request_runs_whole():
    model = Held()

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(0), row(1), row(2), row(3), row(4, 5, 6, 7), row(8)])
        model.go.set()
        await asyncio.gather(*tasks)

    in_loop(scenario, model, max_batch_rows=2)
    assert [run["x"] for run in model.runs] == [[0], [1, 2], [3], [4, 5, 6, 7], [8]]


def test_signatures_outputs_and_shapes_are_not_mixed_and_none_starves():
    model = Held()
    other = signature("other")
    wide = {"x": np.ones((1, 3), np.float32)}

    async def scenario(batcher):
        first = await begun(model, batcher, [row(0)])
        requests = [(signature(), row(1)), (other, row(2)), (signature(), row(3)), (signature(), row(4))]
        tasks = [asyncio.ensure_future(batcher.run(sign, inputs, ("y",))) for sign, inputs in requests]
        tasks.append(asyncio.ensure_future(batcher.run(signature(shape=(None, None)), wide, ("y",))))
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*first, *tasks)

    in_loop(scenario, model, max_batch_rows=2)
    assert [run["x"] for run in model.runs] == [[0], [1, 3], [2], [[1, 1, 1]], [4]]


@pytest.mark.parametrize(
    ("sign", "requests"),
    [
        (signature(batched=False), [row(1), row(2), row(3)]),  # neither proven nor asked for
        (signature(), [row(), row(), row()]),  # no rows
        (signature(inputs=("x", "z")), [{**row(1, 2), "z": np.float32([3])}] * 3),  # unequal rows
        (signature(shape=()), [{"x": np.float32(1)}] * 3),  # scalars
    ],
)
def test_what_may_not_be_batched_runs_alone(sign, requests):
    model = Held(lambda x, z=0: x)

    async def scenario(batcher):
        tasks = await begun(model, batcher, requests, sign)
        model.go.set()
        await asyncio.gather(*tasks)

    in_loop(scenario, model)
    assert len(model.runs) == len(requests)


@pytest.mark.parametrize("error", [ServingError("INVALID_ARGUMENT", "negative"), RuntimeError("negative")])
def test_a_bad_row_fails_alone(error):
    def root(x):
        if (x < 0).any():
            raise error
        return x**0.5

    model = Held(root)

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(0), row(4), row(-1), row(9)])
        model.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    _, four, bad, nine = in_loop(scenario, model)
    assert (four["y"].tolist(), nine["y"].tolist()) == ([2], [3])
    assert isinstance(bad, ServingError)
    assert bad.code == getattr(error, "code", "INTERNAL")
    assert ("negative" in bad.message) == isinstance(error, ServingError)


def test_a_bad_row_costs_its_neighbours_few_runs():
    def positive(x):
        if (x < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        return x

    model = Held(positive)

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(n) for n in (0, 1, 2, 3, -4, 5, 6, 7, 8)])
        model.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = in_loop(scenario, model)
    assert [isinstance(answer, ServingError) for answer in answers] == [n == 4 for n in range(9)]
    assert [len(run["x"]) for run in model.runs] == [1, 8, 4, 2, 2, 1, 1, 4]


@pytest.mark.parametrize("function", [lambda x: x.sum(), lambda x: x[:1], lambda x: np.append(x, 0)])
def test_outputs_that_do_not_count_the_rows_end_the_batching_of_their_signature(function):
    model = Held(function)

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(1), row(2), row(3)])
        model.go.set()
        first = await asyncio.gather(*tasks)
        again = await asyncio.gather(*(batcher.run(signature(), row(n), ("y",)) for n in (1, 2, 3)))
        return first, again

    for answers in in_loop(scenario, model):
        assert [answer["y"].tolist() for answer in answers] == [
            function(row(n)["x"]).tolist() for n in (1, 2, 3)
        ]
    assert [run["x"] for run in model.runs] == [[1], [2, 3], [2], [3], [1], [2], [3]]


@pytest.mark.parametrize(
    "error",
    [
        KeyError("/home/someone/layer.py"),
        ServingError("UNKNOWN", "Traceback"),
        ServingError("INTERNAL", "0x7f"),
    ],
)
def test_what_broke_inside_is_for_the_log_and_not_for_clients(error, caplog):
    def fail(x):
        raise error

    async def scenario(batcher):
        with pytest.raises(ServingError) as caught:
            await batcher.run(signature(), row(1), ("y",))
        return caught.value

    told = in_loop(scenario, Held(fail, held=False))
    assert told.message == "The model failed on this request; the server's log says why."
    assert told.code == getattr(error, "code", "INTERNAL")
    assert str(error) in caplog.text
    assert "Traceback (most recent call last)" in caplog.text


def test_an_answer_cannot_be_written_into_which_others_share():
    model = Held()

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(0), row(1), row(2)])
        model.go.set()
        return await asyncio.gather(*tasks)

    _, one, two = in_loop(scenario, model)
    with pytest.raises(ValueError, match="read-only"):
        one["y"][:] = 9
    assert two["y"].tolist() == [4]


# What a signature may be: rows that know nothing of each other, a mean over all of them, as many values as
# they say, or rows that are refused. Only the first may be batched, and the last fails beside others.
KINDS = {
    "rows": (True, lambda x: 2 * x),
    "mean": (False, lambda x: x - x.mean()),
    "words": (False, lambda x: np.repeat(x, abs(x).astype(int))),
    "strict": (True, lambda x: refuse_negative(x) + 1),
}


def refuse_negative(x):
    if (x < 0).any():
        raise ServingError("INVALID_ARGUMENT", f"negative: {x.min()}")
    return x


class Recorded:
    """A model of all kinds, whose runs each wait for a permit."""

    def __init__(self):
        self.go, self.permits, self.runs = threading.Event(), threading.Semaphore(0), []

    def run(self, signature, inputs, outputs):
        while not (self.permits.acquire(timeout=0.001) or self.go.is_set()):
            pass
        self.runs.append((signature.key, inputs["x"].tolist()))
        return {"y": KINDS[signature.key][1](inputs["x"])}


def alone(key, values):
    try:
        return {"y": KINDS[key][1](row(*values)["x"])}
    except ServingError as error:
        return error


def told(answer):
    return answer["y"].tolist() if isinstance(answer, dict) else (answer.code, answer.message)


VALUES = st.lists(st.integers(-1, 3), min_size=1, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(KINDS)), VALUES),
        st.just("run"),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
    ),
    max_size=25,
)


@given(STEPS, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_an_answer_is_the_answer_alone_whatever_else_is_asked_and_cancelled(steps, rows):
    model, asked = Recorded(), []

    async def scenario(batcher):
        for step in steps:
            if step == "run":
                model.permits.release()
            elif step[0] == "cancel":
                if asked:
                    asked[step[1] % len(asked)][2].cancel()
            else:
                sign = signature(step[0], batched=KINDS[step[0]][0])
                task = asyncio.ensure_future(batcher.run(sign, row(*step[1]), ("y",)))
                asked.append((*step, task))
            await asyncio.sleep(0)
        model.go.set()
        return await asyncio.gather(*(task for *_, task in asked), return_exceptions=True)

    answers = in_loop(scenario, model, max_batch_rows=rows)
    for (key, values, task), answer in zip(asked, answers, strict=True):
        assert task.cancelled() or told(answer) == told(alone(key, values))
    requests = {(key, tuple(values)) for key, values, _ in asked}
    for key, values in model.runs:
        assert (KINDS[key][0] and len(values) <= rows) or (key, tuple(values)) in requests


def test_cancelled_requests_leave_before_they_run():
    model = Held()

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(n) for n in range(1000)])
        for task in tasks[:500]:  # the first one runs already: its answer has no taker
            task.cancel()
        await asyncio.gather(*tasks[:500], return_exceptions=True)
        assert batcher.waiting == 500
        for task in tasks[501:]:
            task.cancel()
        await asyncio.gather(*tasks[501:], return_exceptions=True)
        model.go.set()
        return await tasks[500]

    assert in_loop(scenario, model)["y"].tolist() == [1000]
    assert [run["x"] for run in model.runs] == [[0], [500]]


def test_a_full_queue_refuses_at_once():
    model = Held()

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(n) for n in range(4)])
        refused = batcher.run(signature(), row(9), ("y",))
        with pytest.raises(ServingError, match="3 requests wait already") as caught:
            refused.send(None)  # its first step, which waits for nothing
        assert caught.value.http_status == 429
        model.go.set()
        await asyncio.gather(*tasks)
        return await batcher.run(signature(), row(9), ("y",))

    assert in_loop(scenario, model, max_queue=3)["y"].tolist() == [18]


def test_the_queue_is_bounded_in_bytes_too_those_of_strings_included():
    model = Held(lambda x: x)
    words = {"x": np.array([b"a" * 900], object)}

    async def scenario(batcher):
        tasks = await begun(model, batcher, [words, words], signature(kind="string"))
        with pytest.raises(ServingError, match="1 requests wait") as caught:
            await batcher.run(signature(kind="string"), words, ("y",))
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        model.go.set()
        await asyncio.gather(*tasks)

    in_loop(scenario, model, max_queue_bytes=1000)


def test_drain_waits_for_what_runs_and_waits_and_a_closed_batcher_refuses():
    model = Held()

    async def scenario(batcher):
        tasks = await begun(model, batcher, [row(1), row(2)])
        drained = asyncio.ensure_future(batcher.drain(0))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not drained.done()
        model.go.set()
        await drained
        assert all(task.done() for task in tasks)
        batcher.close()
        with pytest.raises(ServingError, match="ask again") as caught:
            await batcher.run(signature(), row(1), ("y",))
        assert caught.value.code == "UNAVAILABLE"

    in_loop(scenario, model)


def test_nothing_holds_the_inputs_of_a_request_that_failed():
    def fail(x):
        raise ServingError("INVALID_ARGUMENT", "no")

    class Array(np.ndarray):
        """An array that can be referred to weakly."""

    async def scenario(batcher):
        array = row(1)["x"].view(Array)
        seen = weakref.ref(array)
        with contextlib.suppress(ServingError):
            await batcher.run(signature(), {"x": array}, ("y",))
        return seen

    gc.disable()
    try:
        assert in_loop(scenario, Held(fail, held=False))() is None
    finally:
        gc.enable()


def test_limits_are_checked():
    with pytest.raises(ValueError, match=r"`max_queue` must be at least 1. Received: max_queue=0"):
        Limits(max_queue=0)
