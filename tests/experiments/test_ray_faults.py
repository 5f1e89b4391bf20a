"""The Ray runner: the table of an undisturbed run, whatever dies while it runs."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keras_initx.experiments import Ray, Sequential
from support.ray_trials import INITIALIZERS, SEEDS, Logs, left_over, needs_ray, others, run, table

pytestmark = [needs_ray, pytest.mark.slow]
ROOT = pathlib.Path(__file__).parents[2]


def wait_for(condition, most=120):
    begun = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - begun < most
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def meanwhile(function):
    """Runs a function beside the body, whose errors are the test's."""
    errors = []

    def guarded():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    assert not errors, errors


@pytest.fixture(scope="module")
def undisturbed():
    return run(Sequential(progress=False))


@pytest.fixture
def nodes():
    """A head and a worker node of one CPU each on this machine."""
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield found
        finally:
            ray.shutdown()
            found.shutdown()


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_worker_costs_its_trial_a_second_start(nodes, undisturbed, tmp_path):
    nodes.add_node(num_cpus=1)
    logs = Logs(tmp_path)

    def kill():
        pid, _ = wait_for(logs.lines)[0]
        time.sleep(0.5)
        os.kill(int(pid), signal.SIGKILL)

    begun = time.monotonic()
    with meanwhile(kill):
        found = run(Ray(address=nodes.address), logs)
    print(f"\nWorker killed: {logs}, {time.monotonic() - begun:.0f} s")
    assert table(found) == table(undisturbed)
    assert sorted(logs.counts().values()) == [1] * 8 + [2]


def test_the_trials_of_a_lost_node_are_made_on_what_is_left(nodes, undisturbed, tmp_path):
    worker = nodes.add_node(num_cpus=1)
    raylet = worker.all_processes["raylet"][0].process.pid
    logs = Logs(tmp_path, 4.0)

    def remove():
        mine = wait_for(lambda: [int(pid) for pid, _ in logs.lines() if parent(pid) == raylet])
        time.sleep(0.5)
        for pid in (raylet, *mine):  # processes outlive their raylet, a machine's end they would not
            os.kill(pid, signal.SIGKILL)

    begun = time.monotonic()
    with meanwhile(remove):
        found = run(Ray(address=nodes.address), logs)
    nodes.remove_node(worker)
    print(f"\nNode lost: {logs}, {time.monotonic() - begun:.0f} s")
    assert table(found) == table(undisturbed)
    assert sorted(logs.counts().values()) == [1] * 8 + [2]


def deadly(trial):
    if trial.initializer == "glorot_uniform" and trial.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_trial_that_always_kills_its_process_is_a_failure_and_the_only_one(nodes, undisturbed, tmp_path):
    nodes.add_node(num_cpus=1)
    logs = Logs(tmp_path, 0.2, deadly)
    found = run(Ray(address=nodes.address, retries=1), logs)
    (failed,) = [result for result in found.results if result.failure]
    print(f"\nAlways killed: {failed.failure!r} after {failed.seconds:.0f} s")
    assert (failed.trial.initializer, failed.trial.seed) == ("glorot_uniform", 1)
    assert failed.failure.startswith("lost 2 times: ActorDiedError")
    assert others(found, failed.trial) == others(undisturbed, failed.trial)
    assert len(others(found, failed.trial)) == 8


def greedy(trial):
    """Takes memory until somebody intervenes; but no more than 6 GiB."""
    if trial.initializer == "glorot_uniform" and trial.seed == 1:
        held = []
        for _ in range(60):
            held.append(np.ones(100 * 2**20, "uint8"))
            time.sleep(0.1)


def test_a_trial_that_takes_all_memory_is_a_failure_and_the_others_are_made(
    undisturbed, tmp_path, monkeypatch
):
    """Ray's memory monitor ends the process, at a limit set 3 GiB above what is in use."""
    told = dict(line.split()[:2] for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    total, free = int(told["MemTotal:"]), int(told["MemAvailable:"])
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(total - free + 3 * 2**20) / total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    logs = Logs(tmp_path, 0.2, greedy)
    found = run(Ray(retries=1), logs)
    (failed,) = [result for result in found.results if result.failure]
    print(f"\nOut of memory: {failed.failure!r} after {failed.seconds:.0f} s")
    assert (failed.trial.initializer, failed.trial.seed) == ("glorot_uniform", 1)
    assert failed.failure.startswith("lost 2 times: OutOfMemoryError: ")
    assert others(found, failed.trial) == others(undisturbed, failed.trial)
    assert len(others(found, failed.trial)) == 8


COMMAND = """
import sys
from support import ray_trials as here
from keras_initx.experiments import Ray

found = here.run(Ray(), here.Logs(sys.argv[1]), store=sys.argv[2])
print(len(found.results))
"""


def test_after_a_kill_of_the_driver_the_same_command_repeats_nothing(undisturbed, tmp_path):
    store, logs, folders = tmp_path / "store", Logs(tmp_path), left_over()[0]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", COMMAND, str(tmp_path), str(store)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    results = lambda: [file.stem for file in store.glob("*.json") if file.stem != "comparison"]  # noqa: E731
    wait_for(lambda: len(results()) >= 3)
    process.kill()
    process.wait()
    wait_for(lambda: not left_over()[1], 30)  # Ray's processes end with their driver, its folder stays
    for folder in {session.parent for session in set(left_over()[0]) - set(folders)}:
        shutil.rmtree(folder)
    ended = results()
    before = logs.counts()
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
    again = logs.counts() - before
    print(f"\nDriver killed: {len(before)} begun, {len(ended)} ended; then {len(again)} begun")
    assert not set(again) & set(ended)
    assert len(again) == SEEDS * len(INITIALIZERS) - len(ended)
    assert table(run("sequential", Logs(tmp_path), store=store)) == table(undisturbed)
