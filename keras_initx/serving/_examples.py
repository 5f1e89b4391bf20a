"""JSON objects to `tf.train.Example` messages, for classify and regress.

The error texts are TensorFlow Serving's, word for word: clients may parse them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_initx.serving._documents import Json, is_base64, read_string, show, type_name
from keras_initx.serving._errors import invalid

if TYPE_CHECKING:
    from tensorflow.core.example.feature_pb2 import Feature

__all__ = ["decode_examples"]

_INT64 = range(-(2**63), 2**63)


def decode_examples(document: Mapping[str, Json]) -> list[bytes]:
    """Returns the examples of a request as serialized `tf.train.Example` messages.

    Args:
        document: The request's body: `examples`, a list of objects, and optionally `context`, an object. The
            features of the context are added to each example.

    Raises:
        ServingError: If the document does not have this form, or if a feature mixes types.
    """
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {show(document)} When method is classify, key 'examples' is "
            "expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {show(document)} 'examples' value is an empty array")
    # Protobuf reads serialized messages that follow one another as one message; the later one wins.
    return [context + _example(value) for value in examples]


def _example(value: Json) -> bytes:
    from tensorflow.core.example.example_pb2 import Example

    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)
    return example.SerializeToString()


def _add(value: Json, name: str, feature: "Feature") -> None:
    stored: bytes | int | float
    if isinstance(value, str) or is_base64(value):
        kind, stored = "bytes_list", read_string(value)
    elif isinstance(value, bool | int):
        if value not in _INT64:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        kind, stored = "int64_list", int(value)
    elif isinstance(value, float):
        kind, stored = "float_list", value
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        expected = present.removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(stored)
