"""The benchmarks that no `make bench` runs whole: on a GPU, and in a quick form."""

import os
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.tensorflow  # which is absent in the process that it starts
def test_the_gpu_benchmark_runs_on_a_cpu_without_tensorflow_and_calls_it_no_measurement(tmp_path):
    pytest.importorskip("jax")
    results = BENCHMARKS / "results" / "gpu.md"
    before = results.read_bytes()
    code = f"""
import sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, *others):
        absent = name.partition(".")[0] in ("tensorflow", "tensorflow_datasets")
        return None if absent else super().find_spec(name, *others)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
sys.path.insert(0, {str(BENCHMARKS)!r})
sys.argv = ["gpu.py", "--cpu"]
import gpu
gpu.main()
assert "tensorflow" not in sys.modules
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("CPU, not a GPU")
    assert result.stdout.count(" | ") == 2 * 8
    assert results.read_bytes() == before


@pytest.mark.slow
@pytest.mark.tensorflow  # it starts its own processes
def test_the_benchmark_of_uses_runs_quickly_on_small_models_and_keeps_the_table():
    results = BENCHMARKS / "results"
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    command = [sys.executable, BENCHMARKS / "uses.py", "--quick", "--before", BENCHMARKS.parent]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# Not a measurement")
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 8
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
