"""The writer of event files."""

import io
import itertools
import os
import pathlib
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata

# RecordWriter over a plain file: EventFileWriter would import all of TensorFlow if it is installed.
from tensorboard.summary.writer.record_writer import RecordWriter

from keras_initx.summaries._buckets import BINS, buckets
from keras_initx.summaries._folder import SUFFIX, check_log_dir
from keras_initx.summaries._hparams import experiment_of, session_parts

__all__ = ["EventWriter"]

PART = 4 * 2**20  # bytes of a remote file after which the next file begins
_PNG = b"\x89PNG\r\n\x1a\n"
_counter = itertools.count()


class EventWriter:
    """Writes histograms, scalars and images into a new event file of a folder.

    In a local folder each write reaches the file at once, so a killed run keeps everything that it wrote.
    Remote stores cannot append to a file. There, events reach the store with `flush` and `close`, which write
    the whole file anew, and go on with the next file after 4 MiB.

    The file tells TensorBoard that the run starts, or starts again, at `first_step`. TensorBoard then drops
    the events of an earlier run from this step on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EventWriter(folder) as writer:
    ...     writer.histogram("weights/kernel", np.arange(10.0), step=0)
    ...     pathlib.Path(writer.path).name.startswith("events.out.tfevents.")
    True

    Args:
        log_dir: A local folder, which is made if it does not exist; or a URL such as `gs://bucket/runs`. A
        URL
            needs fsspec and the file system of its protocol, or boto3 for `s3://`.
        first_step: The first step that will be written.

    Attributes:
        path: Path of the file that is being written.

    Raises:
        TypeError: If `log_dir` is not a path.
        ValueError: If `log_dir` is a URL with a protocol that no installed package can write to.
    """

    path: str
    _file: BinaryIO

    def __init__(self, log_dir: str | os.PathLike[str], first_step: int = 0) -> None:
        self._log_dir = check_log_dir(log_dir)
        self._remote = "://" in self._log_dir
        gfile.makedirs(self._log_dir)
        self._open()
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(session_log=start, step=first_step))

    def histogram(self, tag: str, values: ArrayLike, step: int, bins: int = BINS) -> None:
        """Writes the distribution of the finite values of an array.

        If the array has NaN or Inf, a scalar `nonfinite_fraction/<tag>` has their share.

        Args:
            tag: Name of the series; the part before the first slash is its category.
            values: Array of any shape and numeric dtype.
            step: Step on TensorBoard's axis.
            bins: Number of buckets.
        """
        table, nonfinite = buckets(values, bins)
        self._summary(tag, _array(table), histogram_metadata.create_summary_metadata(None, None), step)
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
        self._summary(tag, _array(np.asarray(value, np.float32)), metadata, step)

    def image(self, tag: str, image: bytes | np.ndarray, step: int) -> None:
        """Writes one image.

        Args:
            tag: Name of the series; the part before the first slash is its category.
            image: The bytes of a PNG file; or a uint8 array of shape (height, width), or (height, width,
                channels) with 1 channel (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
            step: Step on TensorBoard's axis.

        Raises:
            ValueError: If `image` is neither.
        """
        png = image if isinstance(image, bytes) else _encode(image)
        if not png.startswith(_PNG):
            raise ValueError(
                "`image` must be the bytes of a PNG file, or a uint8 array. Received: bytes that begin with "
                f"{png[:8]!r}. Save the image as PNG."
            )
        width, height = struct.unpack(">II", png[16:24])  # the header comes first in a PNG
        metadata = image_metadata.create_summary_metadata(None, None)
        self._summary(tag, _strings([b"%d" % width, b"%d" % height, png], [3]), metadata, step)

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Writes the layout of the Custom Scalars page. The last layout of a folder counts.

        Args:
            charts: Charts by title, by category. A chart is a list of regular expressions, and draws all
                scalars with a tag that matches one of them.
        """
        layout = layout_pb2.Layout()
        for category, titles in charts.items():
            drawn = layout.category.add(title=category)
            for title, tags in titles.items():
                drawn.chart.add(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        tensor = _strings([layout.SerializeToString()], [])
        metadata = layout_metadata.create_summary_metadata()
        self._summary(layout_metadata.CONFIG_SUMMARY_TAG, tensor, metadata, step=0)

    def session(self, hparams: Mapping[str, str | float], succeeded: bool) -> None:
        """Makes the folder a run of the HParams page. The page shows the last value of each scalar.

        Args:
            hparams: The hyperparameters: texts and numbers by name.
            succeeded: Whether the run ended well.
        """
        for part in session_parts(hparams, succeeded):
            self._hparams(part)

    def experiment(self, hparams: Iterable[Mapping[str, str | float]], metrics: Iterable[str]) -> None:
        """Tells the HParams page about all runs. Call it for the folder above the folders of the runs.

        Args:
            hparams: The hyperparameters of each run.
            metrics: Tags of the scalars that the page compares.
        """
        self._hparams(experiment_of(hparams, metrics))

    def flush(self) -> None:
        """Makes everything that was written reach the folder."""
        self._file.flush()
        if self._remote:
            content = self._file.getvalue()  # type: ignore[attr-defined]
            with gfile.GFile(self.path, "wb") as file:
                file.write(content)
            if len(content) > PART:
                self._open()

    def close(self) -> None:
        """Flushes and closes the file."""
        self.flush()
        self._file.close()

    def __enter__(self) -> "EventWriter":
        """Returns the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.close()

    def _open(self) -> None:
        # TensorBoard reads files with "tfevents" in their names, in the order of the names. So the time comes
        # first, and the counter tells files of one second apart.
        unique = f"{socket.gethostname()}.{os.getpid()}.{next(_counter):06d}"
        name = f"events.out.tfevents.{int(time.time()):010d}.{unique}{SUFFIX}"
        self.path = f"{self._log_dir.rstrip('/')}/{name}"
        self._file = io.BytesIO() if self._remote else pathlib.Path(self.path).open("wb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(file_version="brain.Event:2"))

    def _summary(
        self, tag: str, tensor: tensor_pb2.TensorProto, metadata: summary_pb2.SummaryMetadata, step: int
    ) -> None:
        summary = summary_pb2.Summary()
        summary.value.add(tag=tag, metadata=metadata, tensor=tensor)
        self._write(event_pb2.Event(summary=summary, step=step))

    def _hparams(self, part: HParamsPluginData) -> None:
        tag = f"_hparams_/{part.WhichOneof('data')}"
        self._summary(tag, hparams_metadata.NULL_TENSOR, hparams_metadata.create_summary_metadata(part), 0)

    def _write(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()


def _array(array: np.ndarray) -> tensor_pb2.TensorProto:
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    )
    dtype = {"float32": types_pb2.DT_FLOAT, "float64": types_pb2.DT_DOUBLE}[array.dtype.name]
    # Not `np.ascontiguousarray`, which turns a scalar into an array of shape (1,).
    content = np.asarray(array, order="C").tobytes()
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=content)


def _strings(strings: list[bytes], shape: list[int]) -> tensor_pb2.TensorProto:
    sizes = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=strings,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=sizes),
    )


def _encode(image: np.ndarray) -> bytes:
    """Returns an array as the bytes of a PNG file."""
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
    if not fits or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        described = (
            f"{getattr(image, 'dtype', type(image).__name__)} of shape {getattr(image, 'shape', None)}"
        )
        raise ValueError(
            "`image` must be the bytes of a PNG file, or a uint8 array of shape (height, width) or "
            f"(height, width, channels) with 1 to 4 channels. Received: {described}. "
            "Convert floats by (255 * image).astype('uint8')."
        )
    import PIL.Image  # TensorBoard depends on it

    file = io.BytesIO()
    grey = image.ndim == 3 and image.shape[2] == 1
    PIL.Image.fromarray(image[..., 0] if grey else image).save(file, "PNG")
    return file.getvalue()
