"""Requests as JSON documents, their strings, and how messages show them."""

import base64
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from keras_initx.serving._errors import ServingError, invalid

__all__ = ["is_base64", "parse", "read_signature_name", "read_string", "show", "type_error", "type_name"]

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"
_SHOWN = 256  # bytes of a value in a message
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_BREAKS = dict.fromkeys(map(ord, " \t\n\v\f\r"))


def parse(body: bytes) -> dict[str, Any]:
    """Returns the object that a request's body holds; what follows it is ignored.

    Raises:
        ServingError: If it is no JSON, no object, or nested too deeply.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    # Strings may carry any bytes, and get them back in `read_string`.
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(_SPACE)
    try:
        document, _ = _DECODER.raw_decode(text)
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply.") from None
    except json.JSONDecodeError as error:
        told = "Invalid value." if error.msg == "Expecting value" else f"{error.msg}."
        raise invalid(f"JSON Parse error: {told} at offset: {error.pos}") from None
    except ValueError:  # Python's limit of digits
        raise invalid("JSON Parse error: Number too big to be stored.") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {show(document)} Is not object")
    return document


def read_signature_name(document: Mapping[str, Any]) -> str:
    """Returns the signature that a document names; empty for the default."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string "
            "value."
        )
    return name


def read_string(value: Any) -> bytes:
    """Returns the bytes of a string, or of a base64 object."""
    if is_base64(value):
        return _unescape(value["b64"])
    if isinstance(value, dict):
        raise invalid(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    if not isinstance(value, str):
        raise type_error(value, "string")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def _unescape(text: str) -> bytes:
    """The bytes of base64 as TensorFlow Serving reads it: white space anywhere, padding all or none of it.

    The padding may be of dots. The alphabet of URLs, with `-` and `_`, is not read.
    """
    match = _BASE64.fullmatch(text.translate(_BREAKS))
    if match is None:
        raise invalid("Unable to base64 decode")
    digits, padding = match.groups()
    missing = -len(digits) % 4
    if missing == 3 or len(padding) not in (0, missing):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(digits + "=" * missing)


def is_base64(value: Any) -> bool:
    """Whether a value is an object of the form `{"b64": "..."}`, which stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def show(value: Any) -> str:
    """Returns a value as JSON for a message, cut after 256 bytes."""
    try:
        pieces = itertools.accumulate(json.JSONEncoder().iterencode(value))
        text = next((piece for piece in pieces if len(piece) > _SHOWN), None)
        return json.dumps(value) if text is None else text[:_SHOWN] + "...(truncated)"
    except RecursionError:
        return "...(nested too deeply)"


def type_name(value: Any) -> str:
    """Returns the kind of a JSON value, as messages name it."""
    names = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return str(value) if isinstance(value, bool) else names.get(type(value), "Number")


def type_error(value: Any, type_: str) -> ServingError:
    """Returns the error of a value that is not of the type that a tensor has."""
    return invalid(f"JSON Value: {show(value)} Type: {type_name(value)} is not of expected type: {type_}")
