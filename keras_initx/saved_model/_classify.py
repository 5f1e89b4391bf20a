"""The signature of TensorFlow Serving's Classify call: from `tf.train.Example`s to labels and scores."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import tree

from keras_initx.saved_model._endpoints import CLASSIFY, Endpoint


def classify(main: Endpoint, labels: Any, rows: list[Any]) -> tuple[Endpoint, list[Any]]:
    """Returns the signature of TensorFlow Serving's Classify call, and rows for it.

    Args:
        main: The model's own signature.
        labels: A name for each column of one of its outputs.
        rows: Rows that it takes.
    """
    import tensorflow as tf

    source = _labelled(main.concrete.structured_outputs, labels)
    specs = tree.flatten(main.specs)
    features = {spec.name: _feature(spec) for spec in specs}
    names = [str(label) for label in labels]

    def serve(examples: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(examples, features)
        leaves = [tf.cast(parsed[spec.name], spec.dtype) for spec in specs]
        scores = tf.cast(main.call(*tree.pack_sequence_as(main.specs, leaves))[source], tf.float32)
        classes = tf.broadcast_to(tf.constant(names), tf.shape(scores))
        return {"classes": tf.ensure_shape(classes, (None, len(names))), "scores": scores}

    # TensorFlow Serving knows the tensor by this name.
    endpoint = Endpoint("classify", serve, [tf.TensorSpec([None], tf.string, "inputs")], method=CLASSIFY)
    return endpoint, [np.array(list(_examples(specs, rows)), object)]


def _labelled(outputs: dict[str, Any], labels: Any) -> str:
    """Returns the output whose columns the labels name."""
    given = list(labels) if isinstance(labels, Iterable) and not isinstance(labels, str | bytes) else []
    if not given or not all(isinstance(label, str) for label in given) or len(set(given)) < len(given):
        raise ValueError(f"`labels` must be a list of different strings. Received: labels={labels!r}.")
    fits = [
        name
        for name, value in outputs.items()
        if value.dtype.is_floating
        and (value.shape.rank is None or (value.shape.rank == 2 and value.shape[1] in (None, len(given))))
    ]
    if len(fits) != 1:
        shapes = {name: f"{value.dtype.name}{value.shape}" for name, value in outputs.items()}
        raise ValueError(
            f"`labels` must be as many as one output of the model has columns. Received: {len(given)} labels "
            f"and the outputs {shapes}. A sigmoid's one column takes one label, that of its positive class."
        )
    return fits[0]


def _feature(spec: Any) -> Any:
    """How an input is read from a `tf.train.Example`; along an open axis, short rows are padded with 0."""
    import tensorflow as tf

    shape = spec.shape.as_list()[1:]
    kind = tf.float32 if spec.dtype.is_floating else tf.string if spec.dtype == tf.string else tf.int64
    if spec.dtype.is_complex or None in shape[1:]:
        raise ValueError(
            "`labels` need inputs that a tf.train.Example can hold: real numbers or strings, with no open "
            f"axis beyond the first of a row. Received: {spec.name} {spec.dtype.name}{spec.shape}. "
            "Leave the labels out."
        )
    if None in shape:
        return tf.io.FixedLenSequenceFeature(shape[1:], kind, allow_missing=True)
    return tf.io.FixedLenFeature(shape, kind)


def _examples(specs: list[Any], rows: list[Any]) -> Iterable[bytes]:
    import tensorflow as tf

    def feature(values: np.ndarray) -> Any:
        kind = values.dtype.kind
        if kind in "OSUT":
            texts = [text if isinstance(text, bytes) else str(text).encode() for text in values.tolist()]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        if kind in "iub":
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values.astype("int64").tolist()))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values.tolist()))

    for row in zip(*rows, strict=True):
        found = {spec.name: feature(np.ravel(value)) for spec, value in zip(specs, row, strict=True)}
        yield tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString()
