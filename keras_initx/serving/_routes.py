"""The paths of TensorFlow Serving's REST interface, parsed.

The patterns and the error texts are TensorFlow Serving's, with their oddities.
"""

import dataclasses
import re
import urllib.parse

from keras_initx.serving._errors import ServingError

__all__ = ["Route", "parse_route"]

# Optionally a version or a label, never both.
_CHOICE = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PATTERNS = {
    "POST": re.compile(
        rf"/v1/models/(?P<model>[^/:]+){_CHOICE}:(?P<verb>classify|regress|predict)", re.I | re.A
    ),
    "GET": re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_CHOICE}(?:/(?P<verb>metadata))?", re.I | re.A),
}
_VERBS = {"POST": ("classify", "regress", "predict"), "GET": ("metadata", None)}
_MOST = 2**63 - 1  # a version is an int64 in TensorFlow Serving's messages


@dataclasses.dataclass(frozen=True)
class Route:
    """A parsed path.

    Attributes:
        verb: `predict`, `classify`, `regress`, `metadata`, `status`, or `list` for all models.
        model: The model's name, percent-decoded; empty for `list`. The name is only looked up among the
            served models. It is never joined to a path on disk, so `../` in it is harmless.
        version: The version's number; None if the path does not name a version.
        label: The label, percent-decoded; None if the path does not name a label.
    """

    verb: str
    model: str = ""
    version: int | None = None
    label: str | None = None


def parse_route(method: str, path: str) -> Route:
    """Parses the path of a request.

    >>> parse_route("POST", "/v1/models/digits/labels/stable:predict")
    Route(verb='predict', model='digits', version=None, label='stable')

    Args:
        method: The HTTP method, in capitals.
        path: The path as the client sent it, percent-encoded and without the query.

    Returns:
        The route.

    Raises:
        ServingError: INVALID_ARGUMENT if there is no such path, or if the version exceeds 64 bits.
    """
    match = _PATTERNS[method].fullmatch(path) if method in _PATTERNS else None
    # As in TensorFlow Serving: the pattern ignores case, so `:PREDICT` matches, but the verb must be lower
    # case.
    if match is None or match["verb"] not in _VERBS[method]:
        raise ServingError("INVALID_ARGUMENT", f"Malformed request: {method} {path}")
    model, version, label = match["model"], match["version"], match["label"]
    # The length first: Python refuses to convert thousands of digits, with an error of its own.
    if version is not None and (len(version) > 32 or int(version) > _MOST):
        raise ServingError("INVALID_ARGUMENT", f"Failed to convert version: {version[:64]} to numeric.")
    if model is None:
        if version or label or match["verb"]:
            raise ServingError("INVALID_ARGUMENT", "Missing model name in request.")
        return Route("list")
    return Route(
        match["verb"] or "status",
        urllib.parse.unquote(model),
        None if version is None else int(version),
        None if label is None else urllib.parse.unquote(label),
    )
