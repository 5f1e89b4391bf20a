"""A comparison as runs on the HParams page of TensorBoard."""

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
    """Writes a run for each trial, and in the folder above the hyperparameters and metrics of all runs.

    Args:
        results: The results.
        metric: Name of the metric.
        log_dir: A local folder.

    Raises:
        TypeError: If `log_dir` is not a path.
        ValueError: If the folder is not local or cannot be written.
    """
    path = check_log_dir(log_dir)
    if "://" in path:
        raise ValueError(
            f"`log_dir` must be a local folder, because a second call removes the files that it replaces. "
            f"Received: log_dir={path!r}. Write to a local folder and copy it."
        )
    root = pathlib.Path(path)
    try:
        for result in results:
            with _renewed(root / _run_of(result.trial)) as writer:
                writer.session(_hparams(result.trial), result.ended_well)
                for tag, value, step in _scalars(result, metric):
                    writer.scalar(tag, value, step)
        sessions = read_sessions(root)  # also of earlier comparisons
        # TensorBoard has a column for each tag, in this order. A trial that failed lacks some of the tags.
        whole_first = sorted(sessions, key=lambda session: -len(session.scalars))
        tags = dict.fromkeys(tag for session in whole_first for tag in session.scalars)
        with _renewed(root) as writer:
            metrics = [tag for tag in tags if not tag.startswith(_CURVES)]
            writer.experiment([session.hparams for session in sessions], metrics)
    except OSError as error:
        raise ValueError(
            f"`log_dir` must be a folder that can be written. Received: log_dir={path!r}: {error.strerror}. "
            "Choose another folder."
        ) from error


@contextlib.contextmanager
def _renewed(folder: pathlib.Path) -> Iterator[EventWriter]:
    """Yields a writer. Its file takes the place of the file that an earlier call wrote."""
    before = hparams_files(folder)
    with EventWriter(folder) as writer:
        yield writer
    for path in before:
        path.unlink(missing_ok=True)


def _run_of(trial: Trial) -> str:
    """Returns the name of a folder: words for a reader, and the key that tells trials apart."""
    return f"{re.sub(r'[^A-Za-z0-9.=+-]+', '_', str(trial))[:100]}_{trial.key}"


def _hparams(trial: Trial) -> dict[str, str | float]:
    found = dataclasses.asdict(trial)
    return {name: value for name, value in found.items() if value is not None}


def _scalars(result: TrialResult, metric: str) -> Iterator[tuple[str, float, int]]:
    """Yields tag, value and step of each scalar. Step e is the state after e epochs.

    Numbers of the whole trial that are missing or not finite are left out; curves keep all values.
    """
    epochs = max(map(len, result.curves.values()), default=0)
    signal = result.signal or {}
    # The time to the target is not here: the view of parallel coordinates leaves out runs without a metric,
    # and only some runs reach the target.
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
