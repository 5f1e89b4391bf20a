"""TensorFlow Serving's REST interface without a server: from a method, a path and a body to an answer.

The error texts are TensorFlow Serving's, word for word: clients may parse them.
"""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

import keras_initx.serving._inference as inference
import keras_initx.serving._messages as messages
from keras_initx.serving._documents import parse, read_signature_name
from keras_initx.serving._errors import ServingError
from keras_initx.serving._examples import decode_examples
from keras_initx.serving._json_read import decode_inputs
from keras_initx.serving._json_write import encode_columns, encode_error, encode_results, encode_rows
from keras_initx.serving._routes import Route, parse_route

__all__ = ["Answer", "answer"]

# Bodies and outputs above this size (bytes) are converted in a thread. Below it, the thread costs more than
# it saves.
_LARGE = 2**18
_Found = TypeVar("_Found")
_Arguments = TypeVarTuple("_Arguments")


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer. Its body is JSON unless the caller says otherwise.

    Attributes:
        status: The HTTP status.
        body: The body.
        code: The name of the gRPC status, for the counters.
        route: The parsed path; None if the path is not one of the protocol's.
    """

    status: int
    body: bytes
    code: str = "OK"
    route: Route | None = None


async def answer(method: str, path: str, body: bytes, models: inference.Versions) -> Answer:
    """Answers a request under `/v1/`.

    A bad request does not raise: its answer has an error status and the body `{"error": "..."}`.

    Args:
        method: The HTTP method, in capitals.
        path: The path as the client sent it, percent-encoded and without the query.
        body: The request's body.
        models: The served models.

    Returns:
        The answer.
    """
    route = None
    try:
        route = parse_route(method, path)
        return Answer(200, await _VERBS[route.verb](route, body, models), route=route)
    except ServingError as error:
        return Answer(error.http_status, encode_error(error.message), error.code, route)


async def _call(aside: bool, function: Callable[[*_Arguments], _Found], *arguments: *_Arguments) -> _Found:
    """Calls a function; in a thread if `aside`, so that other requests go on while it runs."""
    return await asyncio.to_thread(function, *arguments) if aside else function(*arguments)


async def _predict(route: Route, body: bytes, models: inference.Versions) -> bytes:
    document = await _call(len(body) > _LARGE, parse, body)
    key = read_signature_name(document) or inference.DEFAULT
    version = models.find(route.model, route.version, route.label)
    signature = version.signatures.get(key)
    if signature is None:
        raise ServingError("INVALID_ARGUMENT", f'Serving signature name: "{key}" not found in signature def')
    if not signature.inputs:
        raise ServingError("INVALID_ARGUMENT", f"Failed to get input map for signature: {key}")
    # NumPy would take `true` for 1 among numbers. Only a body without both words needs no search for it.
    may_hold_bools = b"true" in body or b"false" in body
    aside = len(body) > _LARGE
    inputs, by_row = await _call(aside, decode_inputs, document, signature.inputs, may_hold_bools)
    outputs = await inference.run(version, signature, inputs)
    aside = sum(output.nbytes for output in outputs.values()) > _LARGE
    return await _call(aside, encode_rows if by_row else encode_columns, outputs)


async def _classify(route: Route, body: bytes, models: inference.Versions) -> bytes:
    document = parse(body)
    key, examples = read_signature_name(document), decode_examples(document)
    version = models.find(route.model, route.version, route.label)
    signature = inference.choose(version, key, "classify")
    return encode_results(*await inference.classify(version, signature, examples))


async def _regress(route: Route, body: bytes, models: inference.Versions) -> bytes:
    document = parse(body)
    key, examples = read_signature_name(document), decode_examples(document)
    version = models.find(route.model, route.version, route.label)
    signature = inference.choose(version, key, "regress")
    return encode_results(None, await inference.regress(version, signature, examples))


async def _status(route: Route, _: bytes, models: inference.Versions) -> bytes:
    return _dump(messages.to_dict(messages.status(models, route.model, route.version)))


async def _metadata(route: Route, _: bytes, models: inference.Versions) -> bytes:
    version = models.find(route.model, route.version, route.label)
    definitions = messages.signature_def_map(version)
    return _dump(
        {
            "model_spec": {"name": version.name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": messages.to_dict(definitions)},
        }
    )


async def _list(_: Route, __: bytes, models: inference.Versions) -> bytes:
    """Answers with the names of all models and their states, which TensorFlow Serving cannot do."""
    return _dump({"models": [{"name": name} | _states(models, name) for name in models.names()]})


def _states(models: inference.Versions, name: str) -> dict[str, Any]:
    if models.statuses(name):
        return messages.to_dict(messages.status(models, name))
    reason = models.reason(name)
    return {"model_version_status": []} | ({"error": reason} if reason else {})


_VERBS: dict[str, Callable[[Route, bytes, inference.Versions], Awaitable[bytes]]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
    "status": _status,
    "metadata": _metadata,
    "list": _list,
}


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
