"""Versions from the disk to the answer and back, over real SavedModels."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest

from keras_initx.serving import ModelConfig, ServingError, find_models
from keras_initx.serving import _model as model_module
from keras_initx.serving import _opening as opening_module
from support import served_models
from support.served_models import ask, corrupt, half_plus_two, serve, states, unloaded

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Folders of half_plus_two to copy: version n adds n."""
    folder = tmp_path_factory.mktemp("exported")
    for version in (1, 2, 3):
        half_plus_two(folder, version, float(version))
    return folder


@pytest.fixture
def put(exported, tmp_path):
    """Puts a version into the model's folder as an exporter does: beside it, then renamed."""

    def put(version, name=None, model="half"):
        (tmp_path / model).mkdir(parents=True, exist_ok=True)
        temporary = tmp_path / model / f".{version}.tmp"
        shutil.copytree(exported / str(version), temporary)
        return temporary.rename(tmp_path / model / (name or str(version)))

    return put


def config(tmp_path, **kwargs):
    return [ModelConfig("half", str(tmp_path / "half"), **kwargs)]


def test_the_latest_version_answers_and_others_are_not_found(put, tmp_path):
    put(1), put(2)

    async def scenario(models):
        assert models.ready
        assert (models.names(), states(models)) == (["half"], {2: "AVAILABLE"})
        assert await ask(models, 4.0) == await ask(models, 4.0, version=2) == 4.0
        for which, told in (({"version": 1}, "Specific(half, 1)"), ({"name": "../half"}, "Latest(../half)")):
            with pytest.raises(ServingError) as caught:
                models.find(**{"name": "half", **which})
            assert (caught.value.code, caught.value.message) == (
                "NOT_FOUND",
                f"Servable not found for request: {told}",
            )
        assert models.statuses("other") == []

    serve(scenario, config(tmp_path))


@pytest.mark.parametrize(
    ("policy", "served"),
    [(1, {3}), (2, {2, 3}), (9, {1, 2, 3}), ("all", {1, 2, 3}), (frozenset({1, 3, 7}), {1, 3})],
)
def test_policies(put, tmp_path, policy, served):
    for version in (1, 2, 3):
        put(version)

    async def scenario(models):
        assert states(models) == dict.fromkeys(served, "AVAILABLE")
        assert [await ask(models, version=version) for version in sorted(served)] == sorted(served)

    serve(scenario, config(tmp_path, policy=policy))


def test_zero_padded_names_and_two_names_of_one_version(put, tmp_path, caplog):
    put(1, "00000123"), put(2, "0007"), put(3, "7"), put(1, "notes"), put(1, "-5")
    (tmp_path / "half" / "999").write_text("a file")

    async def scenario(models):
        assert states(models) == {123: "AVAILABLE", 7: "AVAILABLE"}
        assert await ask(models, version=7) == 3.0
        await models.poll()
        assert caplog.text.count("'0007' is left out: '7' is the same version") == 1

    serve(scenario, config(tmp_path, policy="all"))


@contextlib.asynccontextmanager
async def asking(models, count):
    """Clients that ask without a pause: none fails, and none sees an older version after a newer one."""
    done = False

    async def client():
        answers = []
        while not done:
            answers.append(await ask(models))
        return answers

    clients = [asyncio.create_task(client()) for _ in range(count)]
    yield
    done = True
    for answers in await asyncio.gather(*clients):
        assert answers == sorted(answers)
        assert {*answers} <= {1.0, 2.0}


def test_a_swap_under_load_fails_nothing_and_never_goes_back(put, tmp_path):
    put(1)

    async def scenario(models):
        async with asking(models, 32):
            while not models.find("half").waiting:
                await asyncio.sleep(0)
            put(2)
            await models.poll()
            after = await asyncio.gather(*(ask(models) for _ in range(32)))
            states = await unloaded(models)
        assert after == [2.0] * 32
        assert states == {2: "AVAILABLE", 1: "END"}

    serve(scenario, config(tmp_path))


def test_the_new_version_is_available_before_the_old_one_unloads(put, tmp_path, monkeypatch):
    put(1)
    seen = []
    monkeypatch.setattr(
        model_module.Model, "_set", lambda self, number, state, error=None: seen.append((number, state))
    )
    monkeypatch.setattr(model_module.Model, "_close", lambda self, version, quiet: version.close(quiet))

    async def scenario(models):
        put(2)
        await models.poll()

    serve(scenario, config(tmp_path))
    assert seen == [
        *((1, state) for state in ("START", "LOADING", "AVAILABLE")),
        *((2, state) for state in ("START", "LOADING", "AVAILABLE")),
        *((1, "UNLOADING"), (2, "UNLOADING")),
    ]


def test_a_version_drains_before_it_is_closed_and_whoever_found_it_may_ask_again(put, tmp_path):
    put(1)

    async def scenario(models):
        old = models.find("half")
        held, release = threading.Event(), threading.Event()
        run = old.model.run

        def slow(*args):
            held.set()
            assert release.wait(10)
            return run(*args)

        old.model.run = slow
        request = {"x": np.float32([0])}
        signature = old.signatures["serving_default"]
        running = asyncio.create_task(old.run(signature, request, ["y"]))
        await asyncio.to_thread(held.wait)
        put(2)
        await models.poll()
        assert await ask(models) == 2.0
        assert states(models) == {2: "AVAILABLE", 1: "UNLOADING"}
        queued = asyncio.create_task(old.run(signature, request, ["y"]))
        await asyncio.sleep(0)
        release.set()
        answers = [await running, await queued, await old.run(signature, request, ["y"])]
        assert [answer["y"].tolist() for answer in answers] == [[1.0]] * 3
        assert await unloaded(models) == {2: "AVAILABLE", 1: "END"}
        with pytest.raises(ServingError, match="ask again"):
            await old.run(signature, request, ["y"])

    serve(scenario, config(tmp_path), quiet_seconds=0.05)


def test_a_corrupt_version_ends_with_its_error_while_the_old_one_serves(put, tmp_path):
    put(1)

    async def scenario(models):
        loads = []
        open_version = model_module.open_version

        def counted(folder, *args):
            loads.append(pathlib.Path(folder).name)
            return open_version(folder, *args)

        model_module.open_version = counted
        try:
            folder = put(2)
            corrupt(folder)
            for _ in range(3):
                await models.poll()
            assert await ask(models) == 1.0
            broken, good = models.statuses("half")
            assert (broken.number, broken.state, broken.error_code) == (2, "END", "DATA_LOSS")
            assert "saved_model.pb" in broken.error_message
            assert (good.number, good.state) == (1, "AVAILABLE")
            assert loads == ["2"]  # not again while its files are the same
            shutil.rmtree(folder)
            put(2)
            await models.poll()  # its files may change still
            assert loads == ["2"]
            await models.poll()
            assert (loads, await ask(models)) == (["2", "2"], 2.0)
        finally:
            model_module.open_version = open_version

    serve(scenario, config(tmp_path))


def test_a_version_that_cannot_run_leaves_the_one_that_answers(put, tmp_path):
    import tensorflow as tf

    class Broken(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):
            return {"y": tf.ensure_shape(tf.numpy_function(lambda a: a * 2, [x], tf.float32), [None])}

    put(1)

    async def scenario(models):
        broken = Broken()
        tf.saved_model.save(broken, str(tmp_path / "half" / "2"), {"serving_default": broken.__call__})
        await models.poll()
        assert await ask(models) == 1.0
        failed, good = models.statuses("half")
        assert (failed.number, failed.state, failed.error_code) == (2, "END", "FAILED_PRECONDITION")
        assert "calls Python code" in failed.error_message
        assert (good.number, good.state, good.error_message) == (1, "AVAILABLE", "")

    serve(scenario, config(tmp_path))


def test_a_lower_version_is_not_measured_by_the_latest(put, tmp_path):
    import tensorflow as tf

    def refuses_zeros():
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        with tf.control_dependencies([tf.compat.v1.debugging.assert_positive(x)]):
            return {"serving_default": ({"x": x}, {"y": tf.identity(x)})}

    put(2)
    served_models.save(tmp_path / "half", 1, refuses_zeros)

    async def scenario(models):
        assert states(models) == {1: "AVAILABLE", 2: "AVAILABLE"}
        served_models.save(tmp_path / "half", 3, refuses_zeros)
        await models.poll()
        assert states(models)[3] == "END"  # one that would answer in its place is
        assert await ask(models, 4.0) == 4.0

    serve(scenario, config(tmp_path, policy="all"))


def replace(tmp_path, exported, version, source):
    """Removes a version and puts another model under its number."""
    shutil.rmtree(tmp_path / "half" / version)
    shutil.copytree(exported / source, tmp_path / "half" / version)


def test_a_version_that_is_written_again_is_read_again(exported, put, tmp_path, caplog):
    put(1)

    async def scenario(models):
        first = models.find("half")
        await models.poll()
        await models.poll()
        assert models.find("half") is first  # files that stay are read once
        shutil.rmtree(tmp_path / "half" / "1")
        await models.poll()
        assert await ask(models) == 1.0
        put(2, "1")
        await models.poll()
        assert await ask(models) == 1.0  # its files may change still
        await models.poll()
        assert await ask(models) == 2.0
        assert await unloaded(models) == {1: "AVAILABLE"}
        assert "version 1 is read again: its files changed" in caplog.text
        replace(tmp_path, exported, "1", "3")
        await models.poll()
        await models.poll()
        assert await ask(models) == 3.0

    serve(scenario, config(tmp_path))


def test_files_of_equal_names_sizes_and_times_are_told_apart_by_tensorflows_mark(tmp_path):
    from keras_initx.serving._folders import fingerprint

    marks = set()
    for text in ("one", "two"):
        (tmp_path / "fingerprint.pb").write_text(text)
        os.utime(tmp_path / "fingerprint.pb", (0, 0))
        marks.add(fingerprint(str(tmp_path), str(tmp_path)))
    assert len(marks) == 2


def test_a_version_that_cannot_be_read_again_goes_on_and_its_status_says_why(exported, put, tmp_path):
    put(1)

    async def scenario(models):
        corrupt(tmp_path / "half" / "1")
        for _ in range(3):
            await models.poll()
        assert await ask(models) == 1.0
        (status,) = models.statuses("half")
        assert (status.state, status.error_code) == ("AVAILABLE", "DATA_LOSS")
        assert "saved_model.pb" in status.error_message
        replace(tmp_path, exported, "1", "2")
        await models.poll()
        await models.poll()
        assert await ask(models) == 2.0
        (status,) = models.statuses("half")
        assert (status.state, status.error_code, status.error_message) == ("AVAILABLE", "OK", "")

    serve(scenario, config(tmp_path))


def test_a_swap_of_the_same_number_under_load_fails_nothing(exported, put, tmp_path):
    put(1)

    async def scenario(models):
        async with asking(models, 8):
            replace(tmp_path, exported, "1", "2")
            await models.poll()
            await models.poll()
            await unloaded(models)
        assert await ask(models) == 2.0

    serve(scenario, config(tmp_path))


def test_a_saved_model_without_a_version_folder_is_told_with_its_cure(exported, tmp_path, caplog):
    shutil.copytree(exported / "1", tmp_path / "my models" / "half")

    async def scenario(models):
        assert models.names() == ["half"]
        assert models.statuses("half") == []
        reason = models.reason("half")
        assert "is a SavedModel without a version folder. Give it one: `mv " in reason
        assert reason in caplog.text
        subprocess.run(reason.split("`")[1], shell=True, check=True)
        await models.poll()
        assert await ask(models) == 1.0
        assert models.reason("half") == ""

    serve(scenario, lambda: find_models(tmp_path / "my models"))


@pytest.mark.parametrize("missing", ["saved_model.pb", "variables/variables.index", "variables"])
def test_a_half_copied_version_at_the_start_leaves_the_one_before_it(put, tmp_path, missing):
    put(1)
    part = put(2) / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()

    async def scenario(models):
        assert models.ready
        assert await ask(models) == 1.0
        assert states(models) == {2: "END", 1: "AVAILABLE"}

    serve(scenario, config(tmp_path))


def test_a_version_whose_files_change_while_it_loads_waits_for_them(put, tmp_path, monkeypatch):
    put(1)
    warm_up = opening_module.warm_up

    def touch(model, before):
        pathlib.Path(model.path, "assets.extra").mkdir(exist_ok=True)
        pathlib.Path(model.path, "assets.extra", "more").write_text("half")

    async def scenario(models):
        monkeypatch.setattr(opening_module, "warm_up", touch)
        put(2)
        await models.poll()
        assert models.statuses("half")[0].error_code == "ABORTED"
        monkeypatch.setattr(opening_module, "warm_up", warm_up)
        await models.poll()
        await models.poll()
        assert await ask(models) == 2.0

    serve(scenario, config(tmp_path))


def test_a_vanished_folder_unloads_nothing_and_a_removed_version_gives_way_to_another(put, tmp_path, caplog):
    put(1), put(2)
    half = tmp_path / "half"

    async def scenario(models):
        half.rename(tmp_path / "away")
        await models.poll()
        await models.poll()
        assert await ask(models) == 2.0
        assert caplog.text.count("keeps [2]") == 1
        half.mkdir()
        await models.poll()
        assert await ask(models) == 2.0
        half.rmdir()
        (tmp_path / "away").rename(half)
        shutil.rmtree(half / "2")
        await models.poll()
        assert await ask(models) == 1.0
        assert await unloaded(models) == {1: "AVAILABLE", 2: "END"}

    serve(scenario, config(tmp_path))


def test_of_all_versions_a_removed_one_unloads(put, tmp_path):
    put(1), put(2)

    async def scenario(models):
        shutil.rmtree(tmp_path / "half" / "1")
        await models.poll()
        assert await unloaded(models) == {2: "AVAILABLE", 1: "END"}
        shutil.rmtree(tmp_path / "half" / "2")
        await models.poll()
        assert await unloaded(models) == {2: "AVAILABLE", 1: "END"}

    serve(scenario, config(tmp_path, policy="all"))


def test_ended_versions_are_told_of_but_not_for_ever(put, tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "HISTORY", 2)
    put(1)

    async def scenario(models):
        for number in range(2, 7):
            shutil.copytree(tmp_path / "half" / "1", tmp_path / "half" / str(number))
            await models.poll()
            await unloaded(models)
        assert states(models) == {6: "AVAILABLE", 5: "END", 4: "END"}

    serve(scenario, config(tmp_path))


def test_the_clock_picks_up_renamed_folders(put, tmp_path):
    put(1)

    async def scenario(models):
        put(2)
        put(3, model="other")
        async with asyncio.timeout(10):
            while await ask(models) != 2.0 or "other" not in models.names() or not states(models, "other"):
                await asyncio.sleep(0.01)

    serve(scenario, lambda: find_models(tmp_path), poll_seconds=0.05)


def test_labels(put, tmp_path, caplog):
    put(1), put(2)
    labels = {"stable": 1, "canary": 2, "gone": 5}

    async def scenario(models):
        assert [await ask(models, label=label) for label in ("stable", "canary")] == [1.0, 2.0]
        assert "label gone: no version 5" in caplog.text
        with pytest.raises(ServingError, match=r"Specific\(half, 5\)") as caught:
            models.find("half", label="gone")
        assert caught.value.code == "NOT_FOUND"
        for name in ("half", "other"):
            with pytest.raises(ServingError, match="Unrecognized servable version label: x") as caught:
                models.find(name, label="x")
            assert caught.value.code == "INVALID_ARGUMENT"

    serve(scenario, config(tmp_path, policy="all", labels=labels))


def test_a_root_serves_its_models_and_those_that_come_later(put, tmp_path):
    put(1)

    async def scenario(models):
        assert models.names() == ["half"]
        corrupt(put(2, model="broken"))
        put(3, model="third")
        await models.poll()
        assert models.names() == ["broken", "half", "third"]
        assert (await ask(models), await ask(models, name="third")) == (1.0, 3.0)
        assert states(models, "broken") == {2: "END"}
        assert models.ready  # a broken model does not hold the others back
        shutil.rmtree(tmp_path / "third")
        await models.poll()
        assert await ask(models, name="third") == 3.0
        with pytest.raises(ServingError, match="change the folder"):
            await models.reload([])

    serve(scenario, lambda: find_models(tmp_path))


def test_a_root_that_vanishes_takes_nothing_away(put, tmp_path, caplog):
    put(1, model="root/half")

    async def scenario(models):
        shutil.move(tmp_path / "root", tmp_path / "away")
        await models.poll()
        await models.poll()
        assert await ask(models) == 1.0
        assert caplog.text.count("What is served stays: `root` must be a folder") == 1

    serve(scenario, lambda: find_models(tmp_path / "root"))


def test_an_empty_root_is_not_ready_until_a_model_comes(put, tmp_path):
    async def scenario(models):
        assert not models.ready
        put(1)
        await models.poll()
        assert models.ready

    serve(scenario, lambda: find_models(tmp_path))


def test_links_out_of_the_root_are_refused_and_reported(exported, put, tmp_path):
    root = tmp_path / "root"
    (root / "half").mkdir(parents=True)
    put(1, model="root/inside")
    (root / "half" / "1").symlink_to(exported / "1")
    (root / "outside").symlink_to(exported)
    (root / "alias").symlink_to(root / "inside")

    async def scenario(models):
        for name in ("half", "outside"):
            status = models.statuses(name)[-1]
            assert (status.number, status.state, status.error_code) == (1, "END", "PERMISSION_DENIED")
            assert "is a link out of" in status.error_message
            with pytest.raises(ServingError, match="not found"):
                models.find(name)
        assert await ask(models, name="alias") == await ask(models, name="inside") == 1.0
        (root / "half" / "1").unlink()
        put(1, model="root/half")
        await models.poll()
        await models.poll()
        assert await ask(models) == 1.0

    serve(scenario, lambda: find_models(root))


def test_a_base_path_that_is_a_link_itself_is_its_own_root(exported, tmp_path):
    (tmp_path / "half").symlink_to(exported)

    async def scenario(models):
        assert await ask(models) == 3.0

    serve(scenario, config(tmp_path))


def test_loading_does_not_block_the_loop(put, tmp_path, monkeypatch):
    put(1)
    held, release = threading.Event(), threading.Event()
    warm_up = opening_module.warm_up

    def slow(model, before):
        held.set()
        assert release.wait(10)
        warm_up(model, before)

    async def scenario(models):
        monkeypatch.setattr(opening_module, "warm_up", slow)
        put(2)
        poll = asyncio.create_task(models.poll())
        await asyncio.to_thread(held.wait)
        assert states(models) == {1: "AVAILABLE", 2: "LOADING"}
        assert await ask(models) == 1.0
        release.set()
        await poll
        assert await ask(models) == 2.0

    serve(scenario, config(tmp_path))


def test_a_bad_row_fails_alone_in_a_real_graph(tmp_path):
    import tensorflow as tf

    def build():
        x = tf.compat.v1.placeholder(tf.string, [None], "x")
        return {"serving_default": ({"x": x}, {"y": tf.strings.to_number(x)})}

    served_models.save(tmp_path / "half", 1, build)

    async def scenario(models):
        found = models.find("half")
        texts = [b"1", b"2", b"three", b"4"]
        runs = [
            found.run(found.signatures["serving_default"], {"x": np.array([text], object)}, ["y"])
            for text in texts
        ]
        return await asyncio.gather(*runs, return_exceptions=True)

    one, two, bad, four = serve(scenario, config(tmp_path))
    assert [answer["y"].tolist() for answer in (one, two, four)] == [[1.0], [2.0], [4.0]]
    assert bad.code == "INVALID_ARGUMENT"
    assert "three" in bad.message


def test_choices_of_outputs_do_not_pile_up(tmp_path, monkeypatch):
    import tensorflow as tf

    from keras_initx.serving import _loaded

    def build():
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        return {"serving_default": ({"x": x}, {f"y{n}": x + n for n in range(4)})}

    served_models.save(tmp_path / "half", 1, build)
    monkeypatch.setattr(_loaded, "MAX_CALLS", 2)

    async def scenario(models):
        found = models.find("half")
        for outputs in (["y0"], ["y1"], ["y3", "y2"], ["y2", "y3"], ["y0"]):
            answer = await found.run(found.signatures["serving_default"], {"x": np.float32([1])}, outputs)
            assert {name: value.tolist() for name, value in answer.items()} == {
                name: [1.0 + int(name[1])] for name in outputs
            }
        assert len(found.model._calls) == 2

    serve(scenario, config(tmp_path))
