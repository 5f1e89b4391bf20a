"""The benchmarks that train, at their smallest; the others are run by `make bench`."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.tensorflow
def test_lsuv_activations_starts_every_activation_in_every_way(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "lsuv_activations.py"), "--quick"]
    result = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    starts = [line.split(" | ")[:2] for line in result.stdout.splitlines() if " | " in line]
    activations = ("maxout", "ReLU", "very leaky ReLU", "tanh")
    assert starts == [[a, s] for a in activations for s in ("LSUV", "orthonormal", "He", "Glorot")]
