"""The time of the demo's training, logging, export and prediction, and the accuracies that it reaches."""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import report

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
LIMIT = 240.0
SEEDS = (1, 2, 3)


def run(folder: str, name: str, *arguments: str) -> None:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def demo(seed: int) -> tuple[float, dict[str, float]]:
    """Runs the demo in an empty folder. Returns its seconds and the held-out accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(folder, "image_classification.py", "--seed", str(seed))
        run(folder, "predict.py", "saved_models/digits")
        spent = time.perf_counter() - started
        records = {
            p.parent.name: json.loads(p.read_text()) for p in pathlib.Path(folder).rglob("record.json")
        }
    return spent, {
        name: list(r["epochs"].values())[-1]["val_accuracy"] for name, r in sorted(records.items())
    }


if __name__ == "__main__":
    rows = []
    for seed in SEEDS:
        spent, accuracies = demo(seed)
        verdict = "met" if spent <= LIMIT else "missed"
        rows.append(
            [str(seed), f"{spent:.0f} s", verdict, *(f"{value:.3f}" for value in accuracies.values())]
        )
    report.write(
        "demo",
        "The commands of `make demo`, after installation",
        "python benchmarks/demo.py",
        ["seed", "time", f"limit {LIMIT:.0f} s", *(f"{name} (held-out accuracy)" for name in accuracies)],
        rows,
        "Chance is 0.1. A net that always answers with one digit has a little more or less.",
    )
