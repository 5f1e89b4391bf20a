"""Paths of TensorFlow Serving's REST interface."""

import dataclasses
import re
import urllib.parse

from keras_initx.serving._errors import ServingError

__all__ = ["Route", "parse_route"]

# A version or a label, never both.
_CHOICE = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PATTERNS = {
    "POST": re.compile(
        rf"/v1/models/(?P<model>[^/:]+){_CHOICE}:(?P<verb>classify|regress|predict)", re.I | re.A
    ),
    "GET": re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_CHOICE}(?:/(?P<verb>metadata))?", re.I | re.A),
}
_VERBS = {"POST": ("classify", "regress", "predict"), "GET": ("metadata", None)}
_MOST = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Route:
    """What a path asks for.

    Attributes:
        verb: `predict`, `classify`, `regress`, `metadata`, `status`, or `list` for all models.
        model: The model's name, percent-decoded; empty for `list`. Names are looked up among those that are
            served, and never joined to a path.
        version: The version that was named.
        label: The label that was named, percent-decoded.
    """

    verb: str
    model: str = ""
    version: int | None = None
    label: str | None = None


def parse_route(method: str, path: str) -> Route:
    """Returns what a request asks for.

    >>> parse_route("POST", "/v1/models/digits/labels/stable:predict")
    Route(verb='predict', model='digits', version=None, label='stable')

    Args:
        method: The HTTP method, in capitals.
        path: The path as it was sent, percent-encoded and without the query.

    Raises:
        ServingError: If there is no such route, or the version is beyond 64 bits.
    """
    match = _PATTERNS[method].fullmatch(path) if method in _PATTERNS else None
    # The pattern knows no case, the verb does: TensorFlow Serving matches `:PREDICT` and then refuses it.
    if match is None or match["verb"] not in _VERBS[method]:
        raise ServingError("INVALID_ARGUMENT", f"Malformed request: {method} {path}")
    model, version, label = match["model"], match["version"], match["label"]
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
