"""Arrays to TensorBoard event files, by TensorBoard's own protos and without importing TensorFlow."""

from keras_initx.summaries._buckets import buckets
from keras_initx.summaries._folder import check_log_dir, last_step
from keras_initx.summaries._writer import EventWriter

__all__ = ["EventWriter", "buckets", "check_log_dir", "last_step"]
