"""Event files of TensorBoard, written with TensorBoard's own protos and without TensorFlow."""

from keras_initx.summaries._buckets import buckets
from keras_initx.summaries._folder import check_log_dir, last_step
from keras_initx.summaries._hparams import Session, hparams_files, read_sessions
from keras_initx.summaries._writer import EventWriter

__all__ = [
    "EventWriter",
    "Session",
    "buckets",
    "check_log_dir",
    "hparams_files",
    "last_step",
    "read_sessions",
]
