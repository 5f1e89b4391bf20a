"""Folders of event files, local and remote."""

import os
import struct
from collections.abc import Iterator

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.io import gfile

__all__ = ["SUFFIX", "check_log_dir", "last_step", "read_events"]

SUFFIX = ".initx"  # end of the names of this package's event files


def check_log_dir(log_dir: str | os.PathLike[str]) -> str:
    """Returns the path of a folder for event files, if files can be written there.

    >>> check_log_dir("runs/he")
    'runs/he'

    Args:
        log_dir: A local folder; or a URL such as `gs://bucket/runs`. A URL needs fsspec and the file system
        of
            its protocol, or boto3 for `s3://`.

    Returns:
        The path.

    Raises:
        TypeError: If `log_dir` is not a path.
        ValueError: If `log_dir` is a URL with a protocol that no installed package can write to.
    """
    if not isinstance(log_dir, str | os.PathLike):
        raise TypeError(
            f"`log_dir` must be a path. Received: log_dir={log_dir!r}. Pass a folder or a URL, "
            'such as "runs/he".'
        )
    path = os.fspath(log_dir)
    if "://" in path:
        try:
            gfile.get_filesystem(path)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"`log_dir` must be a folder, or a URL that fsspec can write to. Received: log_dir={path!r}: "
                f"{error}. Install fsspec and the file system of the protocol: gcsfs for gs://, s3fs for s3://."
            ) from error
    return path


def last_step(log_dir: str) -> int | None:
    """Returns the greatest step in this package's event files of a folder, as TensorBoard shows the steps.

    >>> last_step("a/folder/that/is/not/there") is None
    True

    Args:
        log_dir: The path of a folder, from `check_log_dir`.

    Returns:
        The step; None if the folder has no event with a step.
    """
    names = sorted(gfile.listdir(log_dir)) if gfile.isdir(log_dir) else []
    steps: set[int] = set()
    for name in names:
        if not name.endswith(SUFFIX):
            continue
        for event in read_events(gfile.GFile(f"{log_dir.rstrip('/')}/{name}", "rb").read()):
            if event.HasField("session_log"):  # a restart drops the later steps of the run before
                steps = {step for step in steps if step < event.step}
            elif event.summary.value:
                steps.add(event.step)
    return max(steps, default=None)


def read_events(records: bytes) -> Iterator[event_pb2.Event]:
    """Yields the events of a file. An event that a kill has cut off ends the file.

    A record is the length of the event, a checksum of the length, the event, and a checksum of the event:

        8 bytes | 4 bytes | length bytes | 4 bytes

    Args:
        records: The bytes of a file.
    """
    at = 0
    while at + 12 <= len(records):
        end = at + 12 + struct.unpack_from("<Q", records, at)[0]
        if end + 4 > len(records):
            return
        yield event_pb2.Event.FromString(records[at + 12 : end])
        at = end + 4
