"""JSON bodies of requests: parsing, strings and bytes, and values inside error messages.

The error texts are TensorFlow Serving's, word for word: clients may parse them.
"""

import base64
import itertools
import json
import re
from collections.abc import Mapping
from typing import TypeAlias

from keras_initx.serving._errors import ServingError, invalid

__all__ = [
    "Json",
    "is_base64",
    "parse",
    "read_signature_name",
    "read_string",
    "show",
    "type_error",
    "type_name",
]

# A value of a JSON document, as Python reads it.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"
_SHOWN = 256  # characters of a value that an error message shows
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_BREAKS = dict.fromkeys(map(ord, " \t\n\v\f\r"))


def parse(body: bytes) -> dict[str, Json]:
    """Returns the JSON object in a request's body. Text after the object is ignored.

    Args:
        body: The body in UTF-8, with or without a byte order mark.

    Raises:
        ServingError: If the body is not JSON, is not an object, or is nested too deeply.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    # A string tensor may carry bytes that are not UTF-8. "surrogateescape" keeps them, and `read_string`
    # gives them back.
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(_SPACE)
    try:
        document, _ = _DECODER.raw_decode(text)
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply.") from None
    except json.JSONDecodeError as error:
        told = "Invalid value." if error.msg == "Expecting value" else f"{error.msg}."
        raise invalid(f"JSON Parse error: {told} at offset: {error.pos}") from None
    except ValueError:  # Python refuses integers of more than 4300 digits
        raise invalid("JSON Parse error: Number too big to be stored.") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {show(document)} Is not object")
    return document


def read_signature_name(document: Mapping[str, Json]) -> str:
    """Returns the name of the signature that a request asks for; empty for the default signature."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string "
            "value."
        )
    return name


def read_string(value: Json) -> bytes:
    """Returns the bytes of a string element: a JSON string, or an object `{"b64": "..."}`.

    Raises:
        ServingError: If the value is neither, or if its base64 text is malformed.
    """
    if isinstance(value, dict):
        text = value.get("b64")
        if len(value) == 1 and isinstance(text, str):
            return _unescape(text)
        raise invalid(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    if not isinstance(value, str):
        raise type_error(value, "string")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def _unescape(text: str) -> bytes:
    """Decodes base64 by the rules of TensorFlow Serving's decoder.

    White space may stand anywhere. The padding is complete or absent, and may consist of dots. The alphabet
    for URLs, with `-` and `_`, is refused.
    """
    match = _BASE64.fullmatch(text.translate(_BREAKS))
    if match is None:
        raise invalid("Unable to base64 decode")
    digits, padding = match.groups()
    missing = -len(digits) % 4  # 3 missing: a single digit holds 6 bits, which is less than a byte
    if missing == 3 or len(padding) not in (0, missing):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(digits + "=" * missing)


def is_base64(value: Json) -> bool:
    """Returns whether a value is an object of the form `{"b64": "..."}`, which stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def show(value: object) -> str:
    """Returns a value as JSON for an error message, cut after 256 characters."""
    try:
        # Piece by piece: a body of megabytes must not be written out for 256 characters of a message.
        pieces = itertools.accumulate(json.JSONEncoder().iterencode(value))
        text = next((piece for piece in pieces if len(piece) > _SHOWN), None)
        return json.dumps(value) if text is None else text[:_SHOWN] + "...(truncated)"
    except RecursionError:
        return "...(nested too deeply)"


def type_name(value: object) -> str:
    """Returns the name that error messages give to the type of a JSON value.

    >>> type_name([1.0]), type_name("a"), type_name(True)
    ('Array', 'String', 'True')
    """
    names = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return str(value) if isinstance(value, bool) else names.get(type(value), "Number")


def type_error(value: object, type_: str) -> ServingError:
    """Returns the error for a value that does not fit the tensor's type."""
    return invalid(f"JSON Value: {show(value)} Type: {type_name(value)} is not of expected type: {type_}")
