"""Arrays to TensorBoard event files, by TensorBoard's own protos and without importing TensorFlow."""

import itertools
import os
import pathlib
import socket
import time
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata

# RecordWriter over a plain file: EventFileWriter would import all of TensorFlow where it is installed.
from tensorboard.summary.writer.record_writer import RecordWriter

__all__ = ["EventWriter", "buckets"]

BINS = 30
_counter = itertools.count()


class EventWriter:
    """Writes histograms and scalars into a new event file of a folder; each write reaches the file at once.

    TensorBoard is told that the run (re)starts at `first_step`, so that what a killed run wrote for that step
    and later ones is dropped from its pages.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EventWriter(folder) as writer:
    ...     writer.histogram("weights/kernel", np.arange(10.0), step=0)
    ...     writer.path.name.startswith("events.out.tfevents.")
    True

    Args:
        log_dir: A local folder; it is made when there is none.
        first_step: The first step that will be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str], first_step: int = 0) -> None:
        folder = pathlib.Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names and takes names with "tfevents".
        unique = f"{socket.gethostname()}.{os.getpid()}.{next(_counter):06d}"
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{unique}.initx"
        self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(session_log=start, step=first_step))

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """Writes the distribution of an array's finite values, and a scalar with the share of the others.

        Args:
            tag: Name of the series; the part before the first slash is its category.
            values: Array of any shape and numeric dtype.
            step: Step on TensorBoard's axis.
        """
        table, nonfinite = buckets(values)
        self._summary(tag, table, histogram_metadata.create_summary_metadata(None, None), step)
        if nonfinite:
            self.scalar(f"nonfinite_fraction/{tag}", nonfinite, step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes one number.

        Args:
            tag: Name of the series; the part before the first slash is its category.
            value: The number.
            step: Step on TensorBoard's axis.
        """
        metadata = scalar_metadata.create_summary_metadata(None, None)
        self._summary(tag, np.asarray(value, np.float32), metadata, step)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "EventWriter":
        """Returns the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.close()

    def _summary(self, tag: str, array: np.ndarray, metadata: Any, step: int) -> None:
        shape = tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
        )
        dtype = {"float32": types_pb2.DT_FLOAT, "float64": types_pb2.DT_DOUBLE}[array.dtype.name]
        # Not `np.ascontiguousarray`, which turns a scalar into an array of shape (1,).
        content = np.asarray(array, order="C").tobytes()
        tensor = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=content)
        summary = summary_pb2.Summary()
        summary.value.add(tag=tag, metadata=metadata, tensor=tensor)
        self._write(event_pb2.Event(summary=summary, step=step))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()


def buckets(values: Any, bins: int = BINS) -> tuple[np.ndarray, float]:
    """Counts an array's finite values in buckets of equal width.

    >>> table, nonfinite = buckets([0.0, 1.0, 1.0, np.nan], bins=2)
    >>> print(table, nonfinite)
    [[0.  0.5 1. ]
     [0.5 1.  2. ]] 0.25

    Args:
        values: Array of any shape and numeric dtype.
        bins: Number of buckets.

    Returns:
        Rows of (left edge, right edge, count) in float64, and the fraction of NaN and Inf. When all values
        are equal, all edges are that value and the last bucket holds them; without any value all are zero.
    """
    flat = np.asarray(values).astype(np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    nonfinite = 1 - finite.size / flat.size if flat.size else 0.0
    if finite.size == 0:
        return np.zeros((bins, 3)), nonfinite
    low, high = finite.min(), finite.max()
    edges = np.linspace(low, high, bins + 1)
    width = (high - low) / bins
    if width == 0:
        counts = np.zeros(bins, np.int64)
        counts[-1] = finite.size
    else:
        index = ((finite - low) / width).astype(np.int64)
        counts = np.bincount(np.minimum(index, bins - 1), minlength=bins)
    return np.stack([edges[:-1], edges[1:], counts], axis=1), nonfinite
