"""The REST interface as an OpenAPI description, which the server answers at `/openapi.json`.

tests/serving/test_openapi.py sends random requests to a server and compares its answers with this
description.
"""

import importlib.metadata
from typing import Any

from keras_initx.serving._schemas import reference, schemas

__all__ = ["openapi"]

_MODEL = "/v1/models/{model}"
_CHOICES = {"": (), "/versions/{version}": ("version",), "/labels/{label}": ("label",)}
_NAME = {"type": "string", "minLength": 1, "pattern": "^[^/:]+$"}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "model": {"description": "The model's name, percent-encoded.", "schema": _NAME, "example": "digits"},
    "version": {
        "description": "The version; leading zeros do not count.",
        "schema": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1},
        "example": 1,
    },
    "label": {
        "description": "A label that the server's configuration gives to a version.",
        "schema": {"type": "string", "pattern": "^[a-zA-Z0-9_]+$"},
        "example": "stable",
    },
}
_ERRORS = {
    400: "The path, the JSON, the signature, the label or a tensor is wrong.",
    401: "The request needs a bearer token, and has no token or a wrong one.",
    404: "The model or the version does not exist.",
    408: "The request did not arrive in time.",
    413: "The body is larger than the server allows.",
    429: "Too many requests wait already; try again later.",
    500: "The model failed.",
    501: "JSON cannot carry a type of the signature (half, bfloat16, complex); gRPC can.",
    503: "Models are being loaded or unloaded, or the server is stopping.",
    504: "The model did not answer in time.",
}
# Statuses that any route may answer, a route that names a model, and a route that also reads a body.
_ANY = (401, 408, 413, 429, 500, 503, 504)
_READING = (400, 404, *_ANY)
_ASKING = (*_READING, 501)
_INFO = """\
TensorFlow Serving's REST interface, and five routes that it does not have: the list of models, health,
readiness, this description and a page to try the models.

Floating-point values may be `NaN`, `Infinity` and `-Infinity`, in requests and in answers. As in TensorFlow
Serving, they are written without quotes, which standard JSON does not allow. Integers are exact up to 64
bits: a client that reads numbers as doubles loses digits. Strings are answered with exactly the bytes that
the model returned, UTF-8 or not. Strings of an output whose name ends in `_bytes` are answered as `{"b64":
...}`. Every other route is answered with 400, 404 or 405."""


def openapi() -> dict[str, Any]:
    """Returns the description of all routes, in OpenAPI 3.1.

    >>> sorted(openapi()["paths"])[:2]
    ['/', '/healthz']
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Served models",
            "version": importlib.metadata.version("keras-initx"),
            "description": _INFO,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],  # {}: no token, because only some servers have one
        "tags": [{"name": "predict"}, {"name": "models"}, {"name": "server"}],
        "paths": _paths(),
        "components": {
            "schemas": schemas(),
            "parameters": {
                name: {"name": name, "in": "path", "required": True} | content
                for name, content in _PARAMETERS.items()
            },
            "responses": {str(code): _error(code, text) for code, text in _ERRORS.items()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only if the server runs with a token.",
                }
            },
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v1/models": {
            "get": _operation("list", "All served models, with the states of their versions", "Models")
        }
    }
    for choice, parameters in _CHOICES.items():
        names, suffix = ("model", *parameters), "".join(f"_by_{name}" for name in parameters)
        told = f" of one {parameters[0]}" if parameters else ""
        status = _operation(f"status{suffix}", "The states of a model's versions", "Status")
        if parameters == ("label",):
            status["description"] = "As in TensorFlow Serving, the label is ignored."
        metadata = _operation(f"metadata{suffix}", f"The signatures{told}", "Metadata")
        for path, operation in ((choice, status), (f"{choice}/metadata", metadata)):
            paths[_MODEL + path] = {"parameters": _references(names), "get": operation}
        for verb in ("predict", "classify", "regress"):
            operation = _ask(verb, suffix, told)
            paths[f"{_MODEL}{choice}:{verb}"] = {"parameters": _references(names), "post": operation}
    return paths | _server_paths()


def _operation(name: str, summary: str, schema: str) -> dict[str, Any]:
    errors = _ANY if name == "list" else _READING
    return {
        "operationId": name,
        "tags": ["models"],
        "summary": summary,
        "responses": {"200": _answer(summary, schema)} | _failures(errors),
    }


def _ask(verb: str, suffix: str, told: str) -> dict[str, Any]:
    asked, answered, text = _ASKED[verb]
    return {
        "operationId": f"{verb}{suffix}",
        "tags": ["predict"],
        "summary": f"{text}{told}",
        "requestBody": {
            "required": True,
            "description": "JSON, whatever the Content-Type says. Text after the object is ignored.",
            "content": {"application/json": {"schema": reference(asked)}},
        },
        "responses": {"200": _answer("The outputs of the signature", answered)} | _failures(_ASKING),
    }


_ASKED = {
    "predict": ("PredictRequest", "Predictions", "Runs a signature"),
    "classify": ("ExamplesRequest", "Classes", "Classifies examples, by a signature for classification"),
    "regress": (
        "ExamplesRequest",
        "Numbers",
        "Returns a number for each example, by a signature for regression",
    ),
}


def _server_paths() -> dict[str, Any]:
    metrics = {"text/plain": {"schema": {"type": "string"}}}
    health = _server("healthz", "Whether the process is alive", _answer("It is alive", "Health"))
    ready = _server(
        "readyz", "Whether the models were loaded and at least one answers", _answer("Ready", "Health")
    )
    ready["responses"] |= _failures((503,))
    found = _server(
        "metrics", "Counters and timings for Prometheus", {"description": "Metrics", "content": metrics}
    )
    found["responses"] |= _failures((401,))
    page = _server(
        "page",
        "A web page to try the models",
        {"description": "The page", "content": {"text/html": {"schema": {"type": "string"}}}},
    )
    itself = _server("description", "This description", _answer("OpenAPI 3.1", "Description"))
    return {
        "/healthz": {"get": health},
        "/readyz": {"get": ready},
        "/monitoring/prometheus/metrics": {"get": found},
        "/": {"get": page},
        "/openapi.json": {"get": itself},
    }


def _server(name: str, summary: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "tags": ["server"], "summary": summary, "responses": {"200": response}}


def _answer(text: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": reference(schema)}}}


def _error(code: int, text: str) -> dict[str, Any]:
    header = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return _answer(text, "Error") | ({"headers": header} if code == 401 else {})


def _failures(codes: tuple[int, ...]) -> dict[str, Any]:
    return {str(code): {"$ref": f"#/components/responses/{code}"} for code in codes}


def _references(names: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]
