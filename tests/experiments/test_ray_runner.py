"""The Ray runner: the table of an undisturbed run, whatever dies while it runs.

Only the refusals run without Ray, which the `ray` extra brings.
"""

import collections
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import keras
import numpy as np
import pytest

from keras_initx.experiments import Ray, Sequential, _tune, compare

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'keras-initx[ray]')"
)
ROOT = pathlib.Path(__file__).parents[2]
SCHEMES = ["initx>HeScaled", "glorot_uniform", "ones"]
SEEDS, EPOCHS = 3, 4


def build():
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def data(rows=128):
    x = np.random.default_rng(0).normal(size=(rows, 8)).astype("float32")
    return x, x.sum(axis=1)


class Log(keras.callbacks.Callback):
    """Writes who makes which trial, and stays with it for a while."""

    def __init__(self, path, trial, seconds):
        super().__init__()
        self.path, self.trial, self.seconds = path, trial, seconds

    def on_train_begin(self, logs=None):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {self.trial.key}\n")

    def on_epoch_end(self, epoch, logs=None):
        time.sleep(self.seconds / EPOCHS)


class Logs:
    """Callbacks for trials, and what they wrote."""

    def __init__(self, folder, seconds=2.0, fault=lambda trial: None):
        self.path, self.seconds, self.fault = pathlib.Path(folder) / "log", seconds, fault
        self.path.touch()

    def __call__(self, trial):
        self.fault(trial)
        return [Log(self.path, trial, self.seconds)]

    def lines(self):
        return [line.split() for line in self.path.read_text().splitlines()]

    def counts(self):
        """How many times each trial was begun."""
        return collections.Counter(key for _, key in self.lines())

    def __str__(self):
        return f"{len(self.lines())} starts of {len(self.counts())} trials"


def run(runner, callbacks=None, **given):
    options = {"seeds": SEEDS, "epochs": EPOCHS, "target": 1.0, "test": data(), "callbacks": callbacks}
    return compare(build, SCHEMES, data(), data(64), runner=runner, **options | given)


def table(found):
    """All that does not depend on the clock."""
    clocks = {"seconds", "seconds_to_target"}
    rows = [{name: value for name, value in vars(row).items() if name not in clocks} for row in found.rows]
    results = [{**result.to_dict(), **dict.fromkeys(clocks)} for result in found.results]
    return [json.dumps(row) for row in (*rows, *results)]  # in which NaN is NaN


def others(found, trial):
    """The results of all trials but one."""
    return [line for line in table(found) if '"curves"' in line and json.dumps(vars(trial)) not in line]


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
def installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.60.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_the_extra_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ValueError, match=r"no ray\. pip install 'keras-initx\[ray\]'"):
        run("ray")


@pytest.mark.parametrize("found", ["2.59.3", "2.9.0"])
def test_a_ray_without_its_security_measures_is_refused(monkeypatch, installed, found):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: found)
    with pytest.raises(ValueError, match=rf"2\.60 or newer.*Received: ray {found}.*keras-initx\[ray\]"):
        Ray()


def test_a_ray_without_what_tune_needs_is_refused(monkeypatch, installed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "pandas")
    with pytest.raises(ValueError, match=r"no pandas\. pip install 'keras-initx\[ray\]'"):
        Ray()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cpus": 0}, "`cpus` must be a whole number, or a fraction"),
        ({"cpus": 1.5}, "`cpus` must be a whole number, or a fraction"),
        ({"cpus": True}, "`cpus`"),
        ({"gpus": -1}, "`gpus`"),
        ({"gpus": float("nan")}, "`gpus`"),
        ({"retries": -1}, "`retries` must be an int of at least 0"),
        ({"retries": 1.0}, "`retries`"),
        ({"address": "ray://head:10001"}, "which is Ray Client's"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(installed, given, told):
    with pytest.raises(ValueError, match=told):
        Ray(**given)


def test_the_address_is_the_environments_where_none_is_given(installed, monkeypatch):
    assert Ray().address is None
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert Ray().address == "there:6379"
    assert Ray(address="here:6379").address == "here:6379"


def test_a_trial_has_the_backend_the_threads_and_the_gpus_that_it_was_given():
    alone, shared = _tune.environment(1, 0), _tune.environment(4, 0.5)
    assert alone["KERAS_BACKEND"] == keras.backend.backend()
    assert (alone["TF_NUM_INTRAOP_THREADS"], shared["TF_NUM_INTRAOP_THREADS"]) == ("1", "4")
    assert alone["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "CUDA_VISIBLE_DEVICES" not in shared
    assert shared["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def faulty(trial):
    """A trial that raises, one that is out of memory."""
    if trial.initializer == "glorot_uniform" and trial.seed == 0:
        raise RuntimeError("as it was told")
    if trial.initializer == "glorot_uniform" and trial.seed == 1:
        np.zeros(2**60, "uint8")


def left_over():
    """Folders and processes of a cluster of the runner's own."""
    folders = list(pathlib.Path("/tmp").glob("initx-*/session_*"))
    processes = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"/tmp/initx-" in (entry / "cmdline").read_bytes():
                processes.append(int(entry.name))
    return folders, processes


@needs_ray
def test_its_table_is_the_sequential_ones_whatever_trials_raise(tmp_path):
    """Errors, NaN and exhausted memory are results at once: nothing is made twice, nothing is left over."""
    given = {"batch_size": 16, "learning_rates": [0.05, 0.1]}
    before = left_over()
    logs = Logs(tmp_path, 0.0, faulty)
    kept = tmp_path / "store"
    found = run(Ray(progress=False), logs, store=kept, **given)
    assert left_over() == before
    again = run(Ray(progress=False), logs, store=kept, **given)  # trains nothing, and starts no Ray
    assert table(found) == table(again) == table(run(Sequential(progress=False), faulted(tmp_path), **given))
    assert set(logs.counts().values()) == {1}
    assert len(found.results) == 18
    assert sum(result.diverged for result in found.results) >= 3
    failures = [result.failure for result in found.results if result.failure]
    assert len(failures) == 4
    assert sum("RuntimeError: as it was told" in failure for failure in failures) == 2
    assert sum("MemoryError" in failure for failure in failures) == 2


def faulted(folder):
    other = folder / "sequential"
    other.mkdir()
    return Logs(other, 0.0, faulty)


@needs_ray
def test_asha_stops_trials_that_are_behind_and_says_so(tmp_path):
    found = run(Ray(early_stopping=True, progress=False), epochs=8)
    stopped = [result for result in found.results if result.stopped]
    assert stopped
    assert all(1 <= len(result.curves["loss"]) < 8 and result.signal for result in stopped)
    assert all(result.test is None and result.final is not None for result in stopped)
    whole = [result for result in found.results if not (result.stopped or result.diverged)]
    assert all(len(result.curves["loss"]) == 8 and result.test is not None for result in whole)
    assert sum(row.stopped for row in found.rows) == len(stopped)


@needs_ray
def test_a_problem_that_cannot_travel_and_a_trial_that_fits_nowhere_are_told():
    lock = threading.Lock()
    sys.modules["only_here"] = module = types.ModuleType("only_here")
    exec("def callbacks(trial): return []", module.__dict__)
    with pytest.raises(ValueError, match=r"Ray's processes can load them.*only_here"):
        run(Ray(progress=False), module.callbacks)
    with pytest.raises(ValueError, match=r"sent to another process.*TypeError"):
        run(Ray(progress=False), callbacks=lambda trial: [lock])
    with pytest.raises(ValueError, match=r"must fit on a machine\. Received: cpus=1000"):
        run(Ray(cpus=1000, progress=False))


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


@needs_ray
@pytest.mark.slow
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


@needs_ray
@pytest.mark.slow
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


@needs_ray
@pytest.mark.slow
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


@needs_ray
@pytest.mark.slow
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
import test_ray_runner as here
from keras_initx.experiments import Ray

found = here.run(Ray(), here.Logs(sys.argv[1]), store=sys.argv[2])
print(len(found.results))
"""


@needs_ray
@pytest.mark.slow
def test_after_a_kill_of_the_driver_the_same_command_repeats_nothing(undisturbed, tmp_path):
    store, logs, folders = tmp_path / "store", Logs(tmp_path), left_over()[0]
    path = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent), str(ROOT / "tests")])
    command = [sys.executable, "-c", COMMAND, str(tmp_path), str(store)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    results = lambda: [file.stem for file in store.glob("*.json") if file.stem != "comparison"]  # noqa: E731
    wait_for(lambda: len(results()) >= 3)
    process.kill()
    process.wait()
    wait_for(lambda: not left_over()[1], 30)  # Ray's processes end with their driver, its folder stays
    for folder in set(left_over()[0]) - set(folders):
        shutil.rmtree(folder.parent)
    ended = results()
    before = logs.counts()
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
    again = logs.counts() - before
    print(f"\nDriver killed: {len(before)} begun, {len(ended)} ended; then {len(again)} begun")
    assert not set(again) & set(ended)
    assert len(again) == SEEDS * len(SCHEMES) - len(ended)
    assert table(run("sequential", Logs(tmp_path), store=store)) == table(undisturbed)
