"""JSON objects to `tf.train.Example` messages, for classify and regress."""

from collections.abc import Mapping
from typing import Any

from keras_initx.serving._documents import is_base64, read_string, show, type_name
from keras_initx.serving._errors import invalid

__all__ = ["decode_examples"]

_INT64 = range(-(2**63), 2**63)


def decode_examples(document: Mapping[str, Any]) -> list[bytes]:
    """Returns the serialized examples of a request, each with the request's `context` where it has one.

    Args:
        document: The request's object: `examples`, a list of objects, and maybe `context`, an object.

    Raises:
        ServingError: In TensorFlow Serving's words, where they are none.
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
    # Messages that follow one another are read as one, the later over the earlier.
    return [context + _example(value) for value in examples]


def _example(value: Any) -> bytes:
    from tensorflow.core.example.example_pb2 import Example

    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)
    return example.SerializeToString()


def _add(value: Any, name: str, feature: Any) -> None:
    stored: Any
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
