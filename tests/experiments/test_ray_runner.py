"""The Ray runner: what it refuses, and the table of the sequential runner.

Only the refusals run without Ray, which the `ray` extra brings.
"""

import importlib.metadata
import importlib.util
import sys
import threading
import types

import keras
import numpy as np
import pytest

from keras_initx.experiments import Ray, Sequential, _tune
from support.ray_trials import Logs, left_over, needs_ray, run, table


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.60.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"`Ray` needs ray.*pip install 'keras-initx\[ray\]'"):
        run("ray")


@pytest.mark.parametrize("found", ["2.59.3", "2.9.0"])
def test_a_ray_without_its_security_measures_is_refused(monkeypatch, installed, found):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: found)
    with pytest.raises(ImportError, match=rf"2\.60 or newer.*Received: ray {found}.*keras-initx\[ray\]"):
        Ray()


def test_a_ray_without_what_tune_needs_is_refused(monkeypatch, installed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else name)
    with pytest.raises(ImportError, match=r"needs pandas\..*pip install 'keras-initx\[ray\]'"):
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
        ({"address": "ray://head:10001"}, "an address of Ray Client"),
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
