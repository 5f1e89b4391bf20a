"""Runs and experiments of TensorBoard's HParams page."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

# Not the modules `api`, `summary` and `summary_v2` of the plugin: they write with TensorFlow.
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.scalar import metadata as scalar_metadata

from keras_initx.summaries._folder import SUFFIX, read_events

__all__ = ["Session", "experiment_of", "hparams_files", "read_sessions", "session_parts"]

_TAGS = (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG)


class Session(NamedTuple):
    """A run of the HParams page.

    Attributes:
        hparams: The hyperparameters: texts and numbers by name.
        scalars: Tags of the scalars in the same file, in the order in which they were written.
    """

    hparams: Mapping[str, str | float]
    scalars: tuple[str, ...]


def session_parts(hparams: Mapping[str, str | float], succeeded: bool) -> list[HParamsPluginData]:
    """Returns the two parts of a session, its start and its end.

    Args:
        hparams: Texts and numbers by name.
        succeeded: Whether the run ended well.
    """
    start = SessionStartInfo()
    for name, value in hparams.items():
        setattr(start.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
    end = SessionEndInfo(status=api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE)
    return [HParamsPluginData(session_start_info=start), HParamsPluginData(session_end_info=end)]


def experiment_of(hparams: Iterable[Mapping[str, str | float]], metrics: Iterable[str]) -> HParamsPluginData:
    """Returns the part of an experiment: domains of the hyperparameters, and tags of the metrics.

    Args:
        hparams: The hyperparameters of each run.
        metrics: Tags of scalars, in the order of their columns.
    """
    values: dict[str, set[Any]] = {}
    for name, value in (item for found in hparams for item in found.items()):
        values.setdefault(name, set()).add(value)
    experiment = api_pb2.Experiment()
    for name, found in values.items():
        info = experiment.hparam_infos.add(name=name, differs=len(found) > 1)
        if isinstance(next(iter(found)), str):
            info.type = api_pb2.DATA_TYPE_STRING
            info.domain_discrete.extend(sorted(found))
        else:  # an interval, the same as TensorBoard's own; it filters nothing until a user types a bound
            info.type = api_pb2.DATA_TYPE_FLOAT64
            info.domain_interval.min_value, info.domain_interval.max_value = min(found), max(found)
    for tag in metrics:
        experiment.metric_infos.add(name=api_pb2.MetricName(tag=tag))
    return HParamsPluginData(experiment=experiment)


def hparams_files(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Returns this package's event files in a local folder that belong to the HParams page.

    >>> hparams_files("a/folder/that/is/not/there")
    []

    Args:
        folder: The folder of a session or of an experiment.
    """
    files = sorted(pathlib.Path(folder).glob(f"*{SUFFIX}"))
    return [path for path in files if any(value.tag in _TAGS for value in _values(path))]


def read_sessions(log_dir: str | os.PathLike[str]) -> list[Session]:
    """Returns the runs below a local folder: the folders that `EventWriter.session` has written into.

    >>> read_sessions("a/folder/that/is/not/there")
    []

    Args:
        log_dir: The folder of the experiment.
    """
    files = [path for folder in sorted(pathlib.Path(log_dir).glob("*/")) for path in hparams_files(folder)]
    return [session for path in files for session in _sessions(list(_values(path)))]


def _sessions(values: list[summary_pb2.Summary.Value]) -> Iterator[Session]:
    """Yields the session of a file; nothing if the file belongs to an experiment."""
    plugins = {value.tag: value.metadata.plugin_data.plugin_name for value in values}
    scalars = tuple(tag for tag, plugin in plugins.items() if plugin == scalar_metadata.PLUGIN_NAME)
    for value in values:
        if value.tag == metadata.SESSION_START_INFO_TAG:
            start = metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
            hparams = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()}
            yield Session(hparams, scalars)


def _values(path: pathlib.Path) -> Iterator[summary_pb2.Summary.Value]:
    for event in read_events(path.read_bytes()):
        yield from event.summary.value
