"""A comparison as runs of TensorBoard's HParams dashboard."""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from keras_initx.experiments._trial import Trial, TrialResult
from keras_initx.summaries import EventWriter, check_log_dir, hparams_files, read_sessions

__all__ = ["write_runs"]

_CURVES = "epoch/"


def write_runs(results: Sequence[TrialResult], metric: str, log_dir: str | os.PathLike[str]) -> None:
    """Writes a run for each trial, and above them what all runs of the folder share."""
    path = check_log_dir(log_dir)
    if "://" in path:
        raise ValueError(
            f"`log_dir` must be a local folder, as what a second call replaces is removed. Received: "
            f"log_dir={path!r}. Write to a local one and copy it."
        )
    root = pathlib.Path(path)
    try:
        for result in results:
            with _renewed(root / _run_of(result.trial)) as writer:
                writer.session(_hparams(result.trial), result.ended_well)
                for tag, value, step in _scalars(result, metric):
                    writer.scalar(tag, value, step)
        sessions = read_sessions(root)  # those of earlier comparisons, too
        whole_first = sorted(sessions, key=lambda session: -len(session.scalars))  # the order of the columns
        tags = dict.fromkeys(tag for session in whole_first for tag in session.scalars)
        with _renewed(root) as writer:
            metrics = [tag for tag in tags if not tag.startswith(_CURVES)]
            writer.experiment([session.hparams for session in sessions], metrics)
    except OSError as error:
        raise ValueError(
            f"`log_dir` must be a folder that can be written. Received: log_dir={path!r}: {error.strerror}. "
            "Choose another."
        ) from error


@contextlib.contextmanager
def _renewed(folder: pathlib.Path) -> Iterator[EventWriter]:
    """A writer whose file takes the place of the one that an earlier call wrote."""
    before = hparams_files(folder)
    with EventWriter(folder) as writer:
        yield writer
    for path in before:
        path.unlink(missing_ok=True)


def _run_of(trial: Trial) -> str:
    """A folder's name to be read, and to tell trials apart."""
    return f"{re.sub(r'[^A-Za-z0-9.=+-]+', '_', str(trial))[:100]}_{trial.key}"


def _hparams(trial: Trial) -> dict[str, str | float]:
    found = dataclasses.asdict(trial)
    return {name: value for name, value in found.items() if value is not None}


def _scalars(result: TrialResult, metric: str) -> Iterator[tuple[str, float, int]]:
    """Tags, values and steps. Step e is the state after e epochs; metrics are numbers or left out."""
    epochs = max(map(len, result.curves.values()), default=0)
    signal = result.signal or {}
    # Not the time to the target: the view of parallel coordinates has no line for a run that lacks a metric.
    found = {
        f"test/{metric}": result.test,
        f"validation/{metric}": result.final,
        f"best/{metric}": result.best,
        "signal/forward_gain": signal.get("forward_gain"),
        "signal/backward_gain": signal.get("backward_gain"),
        "seconds": result.seconds,
    }
    for name, curve in result.curves.items():
        yield from ((f"{_CURVES}{name}", value, epoch) for epoch, value in enumerate(curve, 1))
    for tag, value in found.items():
        if value is not None and abs(value) <= np.finfo(np.float32).max:
            yield tag, value, 0 if tag.startswith("signal/") else epochs
