"""The REST interface as an OpenAPI description."""

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
    400: "The path, the JSON, the signature, a label or a tensor is not what is served.",
    401: "A bearer token is asked for, and this is none or another one.",
    404: "There is no such model, or no such version of it.",
    408: "The request did not arrive in time.",
    413: "The body is larger than the server takes.",
    429: "More requests wait than the server queues; try again later.",
    500: "The model failed.",
    501: "JSON cannot carry a type of the signature (half, bfloat16, complex); gRPC can.",
    503: "Models are being loaded or unloaded, or the server stops.",
    504: "The model took longer than the server waits.",
}
_ANY = (401, 408, 413, 429, 500, 503, 504)
_READING = (400, 404, *_ANY)
_ASKING = (*_READING, 501)
_INFO = """\
TensorFlow Serving's REST interface; beyond it, the list of models, health, readiness and this description.

Floating-point values may be `NaN`, `Infinity` and `-Infinity`, bare tokens that are no JSON but TensorFlow
Serving's own: in requests they are taken, in answers given. Integers are exact up to 64 bits, which readers
that know only doubles do not keep. Strings are answered with the bytes that the model gave, be they UTF-8
or not, those of outputs whose name ends in `_bytes` as `{"b64": ...}`. What is not listed here is answered
400, 404 or 405."""


def openapi() -> dict[str, Any]:
    """Returns the description of every route, by OpenAPI 3.1.

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
        "security": [{}, {"token": []}],
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
                    "description": "Where the server runs with a token.",
                }
            },
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v1/models": {
            "get": _operation(
                "list", "The models that are served, with the states of their versions", "Models"
            )
        }
    }
    for choice, parameters in _CHOICES.items():
        names, suffix = ("model", *parameters), "".join(f"_by_{name}" for name in parameters)
        told = f" of one {parameters[0]}" if parameters else ""
        status = _operation(f"status{suffix}", "The states of a model's versions", "Status")
        if parameters == ("label",):
            status["description"] = "As in TensorFlow Serving, the label is not looked at."
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
            "description": "Read as JSON whatever the Content-Type says; what follows the object is ignored.",
            "content": {"application/json": {"schema": reference(asked)}},
        },
        "responses": {"200": _answer("What the signature returned", answered)} | _failures(_ASKING),
    }


_ASKED = {
    "predict": ("PredictRequest", "Predictions", "Runs a signature"),
    "classify": ("ExamplesRequest", "Classes", "Classifies examples by a classify signature"),
    "regress": ("ExamplesRequest", "Numbers", "A number per example, by a regress signature"),
}


def _server_paths() -> dict[str, Any]:
    metrics = {"text/plain": {"schema": {"type": "string"}}}
    health = _server("healthz", "Whether the process lives", _answer("It lives", "Health"))
    ready = _server(
        "readyz", "Whether the models were loaded, and one answers", _answer("They are", "Health")
    )
    ready["responses"] |= _failures((503,))
    found = _server(
        "metrics", "Counters and timings for Prometheus", {"description": "Metrics", "content": metrics}
    )
    found["responses"] |= _failures((401,))
    page = _server(
        "page",
        "A page over the models",
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
