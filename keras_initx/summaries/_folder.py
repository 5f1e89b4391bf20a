"""Folders of event files, local and remote."""

import os
import struct
from collections.abc import Iterator
from typing import Any

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.io import gfile

__all__ = ["SUFFIX", "check_log_dir", "last_step", "read_events"]

SUFFIX = ".initx"  # of this package's event files


def check_log_dir(log_dir: Any) -> str:
    """Returns a folder's path, if files can be written into it.

    >>> check_log_dir("runs/he")
    'runs/he'

    Args:
        log_dir: A local folder; or a URL such as `gs://bucket/runs`, where fsspec and the file system of its
            scheme, or boto3 for `s3://`, are installed.

    Returns:
        The path.

    Raises:
        TypeError: If it is not a path.
        ValueError: If it is a URL of a scheme that nothing installed can write to.
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
                f"{error}. Install fsspec and the file system of the scheme: gcsfs for gs://, s3fs for s3://."
            ) from error
    return path


def last_step(log_dir: str) -> int | None:
    """Returns the greatest step that this package's event files hold in a folder, as TensorBoard shows them.

    >>> last_step("a/folder/that/is/not/there") is None
    True

    Args:
        log_dir: As `check_log_dir` returns it.

    Returns:
        The step, or None if there is none.
    """
    names = sorted(gfile.listdir(log_dir)) if gfile.isdir(log_dir) else []
    steps: set[int] = set()
    for name in names:
        if not name.endswith(SUFFIX):
            continue
        for event in read_events(gfile.GFile(f"{log_dir.rstrip('/')}/{name}", "rb").read()):
            if event.HasField("session_log"):  # a restart drops what an earlier run wrote from there on
                steps = {step for step in steps if step < event.step}
            elif event.summary.value:
                steps.add(event.step)
    return max(steps, default=None)


def read_events(records: bytes) -> Iterator[Any]:
    """The events of a file, but for one that a kill has cut off."""
    at = 0
    while at + 12 <= len(records):
        end = at + 12 + struct.unpack_from("<Q", records, at)[0]  # its length, and a checksum of that
        if end + 4 > len(records):  # a checksum follows it
            return
        yield event_pb2.Event.FromString(records[at + 12 : end])
        at = end + 4
