"""The signature of TensorFlow Serving's Classify call: from `tf.train.Example`s to labels and scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import tree

from keras_initx._types import Tensor
from keras_initx.saved_model._endpoints import CLASSIFY, Endpoint

if TYPE_CHECKING:
    import tensorflow as tf


def classify(
    main: Endpoint, labels: Sequence[str], rows: list[np.ndarray]
) -> tuple[Endpoint, list[np.ndarray]]:
    """Returns the signature of TensorFlow Serving's Classify call, and rows to run it on.

    Args:
        main: The model's own signature.
        labels: A name for each column of one of the model's outputs.
        rows: Rows that the model's own signature takes.

    Raises:
        ValueError: If the labels do not fit exactly one output, or an example cannot hold the inputs.
    """
    import tensorflow as tf

    source = _labelled(main.concrete.structured_outputs, labels)
    specs = tree.flatten(main.specs)
    features = {spec.name: _feature(spec) for spec in specs}
    names = [str(label) for label in labels]

    def serve(examples: Tensor) -> dict[str, Any]:
        parsed = tf.io.parse_example(examples, features)
        # An example holds float32, int64 and bytes alone; the model's inputs may have other dtypes.
        leaves = [tf.cast(parsed[spec.name], spec.dtype) for spec in specs]
        scores = tf.cast(main.call(*tree.pack_sequence_as(main.specs, leaves))[source], tf.float32)
        classes = tf.broadcast_to(tf.constant(names), tf.shape(scores))
        return {"classes": tf.ensure_shape(classes, (None, len(names))), "scores": scores}

    # TensorFlow Serving asks for an input with the name `inputs`.
    endpoint = Endpoint("classify", serve, [tf.TensorSpec([None], tf.string, "inputs")], method=CLASSIFY)
    return endpoint, [np.array(list(_examples(specs, rows)), object)]


def _labelled(outputs: "Mapping[str, tf.TensorSpec]", labels: object) -> str:
    """Returns the name of the output that has a column for each label."""
    # A string is an iterable of letters, but "cat" is not meant as three labels.
    given = list(labels) if isinstance(labels, Iterable) and not isinstance(labels, str | bytes) else []
    if not given or not all(isinstance(label, str) for label in given) or len(set(given)) < len(given):
        raise ValueError(
            f"`labels` must be a list of different strings. Received: labels={labels!r}. Pass one string for "
            "each column of the output, such as ['cat', 'dog']."
        )
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
            f"and the outputs {shapes}. A sigmoid with one column takes one label: the name of the positive "
            "class."
        )
    return fits[0]


def _feature(spec: "tf.TensorSpec") -> "tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature":
    """Returns the way to read an input from a `tf.train.Example`; an open axis is padded with zeros."""
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


def _examples(specs: Sequence["tf.TensorSpec"], rows: Sequence[np.ndarray]) -> Iterable[bytes]:
    """Yields a serialized `tf.train.Example` for each row."""
    import tensorflow as tf

    def feature(values: np.ndarray) -> "tf.train.Feature":
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
