"""How long the command `initx` takes to answer, compared with a bare Python, each in fresh processes."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import report

RUNS = 7
ROOT = pathlib.Path(__file__).parents[1]
EXPORTED = ROOT / "saved_models" / "prose-or-code"
COMMAND = [sys.executable, "-m", "_initx_command"]
# The words after `initx`, and the seconds within which a quiet machine must answer; None for no promise.
LIMITS: dict[str, float | None] = {
    "--help": 0.3,
    "diagnose --help": 0.3,
    "serve --help": 0.3,
    "--version": None,
    "--print-completion bash": None,
    "list": 2.0,
    "show HeScaled": 2.0,
    "show he_normal": 2.0,
    f"inspect {EXPORTED.relative_to(ROOT)}": 1.0,
}
FIRST_LINE = 1.0


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_to_the_first_line(command: list[str]) -> float:
    """Returns the seconds from the start of the process to the end of the first line on stderr."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline() if process.stderr else ""
        elapsed = time.perf_counter() - started
        process.kill()
    assert line.startswith("initx: importing"), line
    return elapsed


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(folder: str) -> list[list[str]]:
    bare = [sys.executable, "-c", "pass"]
    model = f"{folder}/model.keras"
    build = f"import keras; keras.Sequential([keras.layers.Input((4,))]).save({model!r})"
    seconds([sys.executable, "-c", build])
    commands = {words: [*COMMAND, *words.split()] for words in LIMITS}
    first = [*COMMAND, "diagnose", model]
    for command in commands.values():
        seconds(command)  # compiles the modules and brings the files into memory
    taken: dict[str, list[float]] = {"python -c pass": [], **{words: [] for words in commands}, "first": []}
    for _ in range(RUNS):  # interleaved, so that a busy minute slows all commands alike
        taken["python -c pass"].append(seconds(bare))
        for words, command in commands.items():
            taken[words].append(seconds(command))
        taken["first"].append(seconds_to_the_first_line(first))
    rows = [["`python -c pass`", *numbers(taken["python -c pass"]), "", ""]]
    for words, limit in LIMITS.items():
        promise = [f"{limit} s", verdict(taken[words], limit)] if limit else ["", ""]
        rows.append([f"`initx {words}`", *numbers(taken[words]), *promise])
    first_line = "`initx diagnose model.keras`, first line on stderr"
    rows.append(
        [first_line, *numbers(taken["first"]), f"{FIRST_LINE} s", verdict(taken["first"], FIRST_LINE)]
    )
    return rows


def numbers(taken: list[float]) -> list[str]:
    return [f"{statistics.median(taken):.2f} s", f"{min(taken):.2f} s"]


def verdict(taken: list[float], limit: float) -> str:
    return "met" if statistics.median(taken) <= limit else "missed"


if __name__ == "__main__":
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(scratch)
    cores = len(os.sched_getaffinity(0))
    report.write(
        "command_line",
        "How long the command `initx` takes to answer",
        "python benchmarks/command_line.py",
        ["command", "median", "least", "limit on a quiet machine", ""],
        found,
        f"Times are for whole processes: {RUNS} interleaved runs of each command, after one run that "
        "is not counted. `initx` runs as `python -m _initx_command`. The load (processes that wait "
        f"or run, over a minute) was {before:.1f} at the start and {os.getloadavg()[0]:.1f} at the "
        f"end, on {cores} cores. With a load above {cores}, other work slows these commands down.",
    )
