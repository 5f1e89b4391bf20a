"""The speed of a comparison on Ray: the same trials one after another, on Ray, and in pinned processes.

`python benchmarks/compare_ray.py` measures the time from the start of the first trial to the end of the last
trial, and separately the time before and after. On a machine that does other work the numbers are worth
nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time

INITIALIZERS, SEEDS = ["initx>HeScaled", "glorot_uniform"], 4
LEAST = 20.0  # seconds of a trial; in shorter trials Ray's own work counts too much
AIM = 1.6


def build():
    import keras

    layers = keras.layers
    hidden = [layers.Conv2D(32, 3, activation="relu"), layers.Conv2D(32, 3, activation="relu")]
    top = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([layers.Input((8, 8, 1)), *hidden, *top])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def measure(mode: str, epochs: int, part: int) -> None:
    """Makes the trials, and prints the start, the end and the result of each."""
    begun = time.time()
    if mode == "pinned":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[part]})
    import numpy as np
    from sklearn.datasets import load_digits

    from keras_initx.experiments import Problem, Ray, Sequential, Trial

    images, labels = load_digits(return_X_y=True)
    x, y = np.float32(images.reshape(-1, 8, 8, 1) / 16), labels
    train, validation = (x[:1280], y[:1280]), (x[1280:], y[1280:])
    initializers = dict(zip(INITIALIZERS, INITIALIZERS, strict=True))
    problem = Problem(build, initializers, train, validation, None, "accuracy", False, None, 32, None)
    trials = [Trial(initializer, seed, None, epochs) for seed in range(SEEDS) for initializer in INITIALIZERS]
    if mode == "pinned":
        trials = trials[part :: len(os.sched_getaffinity(os.getppid()))]
    found = []

    def keep(result) -> None:
        if result.failure:
            raise RuntimeError(result.failure)
        end = time.time()
        found.append((str(result.trial), end - result.seconds, end, result.final))

    (Ray() if mode == "ray" else Sequential()).run(problem, trials, keep)
    print(json.dumps({"begun": begun, "ended": time.time(), "trials": found}))


def run(mode: str, epochs: int) -> dict:
    """Runs processes of a mode, and returns the seconds before, during and after the trials."""
    from keras_initx.experiments._tune import environment

    parts = len(os.sched_getaffinity(0)) if mode == "pinned" else 1
    threads = environment(1, 0) if mode == "pinned" else {}
    command = [sys.executable, __file__, "--mode", mode, "--epochs", str(epochs), "--part"]
    processes = [
        subprocess.Popen([*command, str(part)], stdout=subprocess.PIPE, text=True, env=os.environ | threads)
        for part in range(parts)
    ]
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    trials = [trial for one in told for trial in one["trials"]]
    first, last = min(trial[1] for trial in trials), max(trial[2] for trial in trials)
    return {
        "before": first - min(one["begun"] for one in told),
        "trials": last - first,
        "after": max(one["ended"] for one in told) - last,
        "median": sorted(trial[2] - trial[1] for trial in trials)[len(trials) // 2],
        "final": {trial[0]: trial[3] for trial in trials},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--no-table", action="store_true", help="only print")
    parser.add_argument("--mode", choices=["sequential", "ray", "pinned"], help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        measure(options.mode, options.epochs, options.part)
        return
    from report import write

    found = {mode: run(mode, options.epochs) for mode in ("sequential", "ray", "pinned")}
    base = found["sequential"]
    columns = [
        "how",
        "before, s",
        "trials, s",
        "after, s",
        "median trial, s",
        "times as fast",
        "same results",
    ]
    names = {"sequential": "one after another", "ray": "Ray", "pinned": "one process a core, pinned, no Ray"}
    count = len(base["final"])
    same = {
        mode: sum(base["final"][key] == one["final"][key] for key in base["final"])
        for mode, one in found.items()
    }
    rows = [
        [
            names[mode],
            *(f"{one[name]:.1f}" for name in ("before", "trials", "after", "median")),
            f"{base['trials'] / one['trials']:.2f}",
            f"{same[mode]} of {count}",
        ]
        for mode, one in found.items()
    ]
    reached = base["trials"] / found["ray"]["trials"]
    short = (
        "" if base["median"] >= LEAST else f" The trials are shorter than {LEAST:.0f} s: not a measurement."
    )
    note = (
        f"{count} trials of {options.epochs} epochs. Aim: Ray at least {AIM} times as fast, without "
        f"start-up: {'met' if reached >= AIM else 'missed'}, {reached:.2f}.{short} In the first row "
        "a trial has all cores. On Ray and in pinned processes a trial has one core."
    )
    command = f"python benchmarks/compare_ray.py --epochs {options.epochs}"
    title = "A comparison on Ray and one trial after another"
    write("compare_ray", title, command, columns, rows, note, keep=not options.no_table)


if __name__ == "__main__":
    main()
