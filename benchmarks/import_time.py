"""How much longer `import keras_initx` takes than `import keras` alone, each in fresh processes."""

import os
import statistics
import subprocess
import sys
import time

import report

LIMIT = 0.3
RUNS = 7


def seconds(backend: str, statement: str) -> float:
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def measure(backend: str) -> list[str]:
    statements = "import keras", "import keras_initx"
    for statement in statements:
        seconds(backend, statement)
    pairs = [[seconds(backend, statement) for statement in statements] for _ in range(RUNS)]
    extra = statistics.median(ours - keras for keras, ours in pairs)
    alone = statistics.median(keras for keras, _ in pairs)
    return [backend, f"{alone:.2f} s", f"{extra:+.2f} s", f"{LIMIT} s", "met" if extra <= LIMIT else "missed"]


def installed(backend: str) -> bool:
    command = [sys.executable, "-c", f"import {backend}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    report.write(
        "import_time",
        "`import keras_initx` against `import keras`",
        "python benchmarks/import_time.py",
        ["backend", "import keras", "keras_initx adds", "limit", ""],
        [measure(backend) for backend in ("tensorflow", "jax", "torch") if installed(backend)],
        f"Times are for whole processes. The difference is the median over {RUNS} interleaved pairs.",
    )
