"""Other models, versions and labels while the server runs: all or nothing."""

import asyncio
import dataclasses
import threading

import pytest

from keras_initx.serving import ModelConfig, ServingError
from keras_initx.serving import _opening as opening_module
from support.served_models import ask, corrupt, half_plus_two, serve, states, unloaded

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Models `half` (versions 1 and 2), `third` (3) and `broken` (4): version n adds n."""
    folder = tmp_path_factory.mktemp("base")
    for name, version in (("half", 1), ("half", 2), ("third", 3), ("broken", 4)):
        path = half_plus_two(folder / name, version, float(version))
    corrupt(path)
    return folder


@pytest.fixture
def half(base):
    return ModelConfig("half", str(base / "half"), frozenset({1}))


@pytest.fixture
def third(base):
    return ModelConfig("third", str(base / "third"))


def test_models_are_added_and_removed(half, third):
    async def scenario(models):
        await models.reload([half, third])
        assert (await ask(models), await ask(models, name="third")) == (1.0, 3.0)
        await models.reload([third])
        assert models.names() == ["third"]
        assert models.statuses("half") == []
        with pytest.raises(ServingError, match="not found"):
            models.find("half")
        await models.reload([])
        assert (models.names(), models.ready) == ([], False)

    serve(scenario, [half])


def test_policies_and_labels_change_and_what_stays_is_not_loaded_again(half, third):
    async def scenario(models):
        kept = models.find("third")
        both = dataclasses.replace(half, policy="all", labels={"stable": 1, "canary": 2})
        await models.reload([both, third])
        assert [await ask(models, label=label) for label in ("stable", "canary")] == [1.0, 2.0]
        await models.reload([dataclasses.replace(both, labels={"stable": 2}), third])
        assert await ask(models, label="stable") == 2.0
        with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
            models.find("half", label="canary")
        await models.reload([dataclasses.replace(half, policy=1), third])
        assert await unloaded(models) == {2: "AVAILABLE", 1: "END"}
        assert models.find("third") is kept

    serve(scenario, [half, third])


def test_another_base_path_replaces_the_model(half, base):
    async def scenario(models):
        await models.reload([ModelConfig("half", str(base / "third"))])
        assert await ask(models) == 3.0
        assert states(models) == {3: "AVAILABLE"}

    serve(scenario, [half])


@pytest.mark.parametrize(
    ("change", "told", "code"),
    [
        (lambda half, base: [half, half], r"Received twice: \['half'\]", "INVALID_ARGUMENT"),
        (
            lambda half, base: [ModelConfig("broken", str(base / "broken"))],
            "broken has no version to serve in .*version 4: .*saved_model.pb",
            "FAILED_PRECONDITION",
        ),
        (
            lambda half, base: [dataclasses.replace(half, policy=2), ModelConfig("none", str(base / "none"))],
            "none has no version to serve",
            "FAILED_PRECONDITION",
        ),
        (
            lambda half, base: [ModelConfig("one", str(base / "third" / "3"))],
            "one has no version to serve in .* is a version: name its folder",
            "FAILED_PRECONDITION",
        ),
        (
            lambda half, base: [dataclasses.replace(half, policy=frozenset({9}))],
            "half has no version to serve",
            "FAILED_PRECONDITION",
        ),
        (
            lambda half, base: [
                dataclasses.replace(half, policy=frozenset({2}), labels={"stable": 1, "new": 5})
            ],
            "assign label to version 5 of model half, which is not currently available",
            "FAILED_PRECONDITION",
        ),
    ],
)
def test_a_bad_config_changes_nothing(half, base, third, change, told, code):
    half = dataclasses.replace(half, labels={"stable": 1})

    async def scenario(models):
        before = models.find("half"), models.find("third")
        with pytest.raises(ServingError, match=told) as caught:
            await models.reload([third, *change(half, base)])
        assert caught.value.code == code
        await models.poll()
        assert (await unloaded(models))[1] == "AVAILABLE"
        assert [n for n, state in states(models).items() if state == "AVAILABLE"] == [1]
        assert models.names() == ["half", "third"]
        assert (models.find("half", label="stable"), models.find("third")) == before

    serve(scenario, [half, third])


def test_a_reload_under_load_fails_nothing(half):
    async def scenario(models):
        done = False

        async def client():
            answers = set()
            while not done:
                answers.add(await ask(models))
            return answers

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for version in (2, 1, 2):
            await models.reload([dataclasses.replace(half, policy=frozenset({version}))])
        await unloaded(models)
        done = True
        assert set.union(*await asyncio.gather(*clients)) == {1.0, 2.0}

    serve(scenario, [half])


def test_a_reload_ends_though_its_caller_is_gone(half, third, monkeypatch):
    held, release = threading.Event(), threading.Event()
    warm_up = opening_module.warm_up

    def slow(model, before):
        held.set()
        assert release.wait(10)
        warm_up(model, before)

    async def scenario(models):
        monkeypatch.setattr(opening_module, "warm_up", slow)
        call = asyncio.create_task(models.reload([third]))
        await asyncio.to_thread(held.wait)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert models.names() == ["half"]
        release.set()
        await models.reload([third])  # after the first one
        assert models.names() == ["third"]

    serve(scenario, [half])


def test_a_stop_during_a_load_leaves_nothing(half, third, monkeypatch):
    held, release = threading.Event(), threading.Event()

    def slow(model, before):
        held.set()
        assert release.wait(10)

    async def scenario(models):
        monkeypatch.setattr(opening_module, "warm_up", slow)
        call = asyncio.create_task(models.reload([half, third]))
        await asyncio.to_thread(held.wait)
        await models.stop()
        release.set()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert (models.ready, models.names()) == (False, ["half"])

    serve(scenario, [half])
