"""Requests that a server must refuse while its other clients notice nothing."""

import concurrent.futures
import dataclasses
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator

import requests
from serve_faults import CLIENTS, LONG, Cell, told, unharmed
from serve_setup import Answer, Bench, Server

BIG = 55_000_000
DEEP = 100_000
# TensorFlow Serving's limit on a request's time is 30 s.
PATIENCE = 40


@dataclasses.dataclass(frozen=True)
class Case:
    """A wrong request, and the statuses that may refuse it. Without statuses, any of 400 to 499 may."""

    name: str
    body: str | bytes
    statuses: tuple[int, ...] = (400,)
    path: str = ":predict"
    method: str = "POST"
    chunked: bool = False


def instances(value: object, **others: object) -> str:
    return json.dumps({"instances": value, **others})


def cases(name: str) -> list[Case]:
    row = [0.5] * 64
    right = instances([row])
    numbers = "0.25, " * (BIG // 6) + "0.25"
    return [
        Case("malformed", '{"instances": [[1.0, 2'),
        Case("empty body", ""),
        Case("no object", json.dumps([row])),
        Case("not UTF-8", b'{"instances": [[\xff\xfe]]}'),
        Case("neither instances nor inputs", "{}"),
        Case("both instances and inputs", instances([row], inputs=[row])),
        Case("deep nesting", f'{{"instances": {"[" * DEEP}{"]" * DEEP}}}'),
        Case("deep nesting, malformed", f'{{"instances": {"[" * DEEP}'),
        Case("deep nesting, unknown key", f'{{"x": {"[" * DEEP}{"]" * DEEP}, "instances": [[1.0]]}}'),
        Case("63 values", instances([row[1:]])),
        Case("a rank too many", instances([[row]])),
        Case("ragged rows", instances([row, row[1:]])),
        Case("no rows", instances([])),
        Case("strings", instances([["a"] * 64])),
        Case("booleans", instances([[True] * 64])),
        Case("nulls", instances([[None] * 64])),
        Case("another input's name, row", instances([{f"{name}2": row}])),
        Case("another input's name, column", json.dumps({"inputs": {f"{name}2": [row]}})),
        Case("unknown signature", instances([row], signature_name="nope")),
        Case("signature no string", instances([row], signature_name=1)),
        Case("unknown version", right, (404,), "/versions/77:predict"),
        Case("version beyond int64", right, (400,), f"/versions/{2**70}:predict"),
        Case("unknown label", right, (400,), "/labels/nope:predict"),
        Case("unknown model", right, (404,), "nope:predict"),
        Case("model above the root", right, (400, 404), "/../..%2F..%2Fetc:predict"),
        Case("unknown verb", right, (400,), ":explain"),
        Case("GET of a verb", "", (400, 404, 405), ":predict", "GET"),
        Case("55 MB", f'{{"instances": [[{numbers}]]}}', (413,)),
        Case("55 MB in chunks", f'{{"instances": [[{numbers}]]}}', (413,), chunked=True),
    ]


def pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


def send(server: Server, path: str, case: Case) -> Answer:
    """Sends a request as users do. A client that cannot read the answer raises an error."""
    body = case.body.encode() if isinstance(case.body, str) else case.body
    url = f"http://{server.host}:{server.rest}{path}{case.path}"
    begun = time.monotonic()
    data = pieces(body) if case.chunked else body
    response = requests.request(case.method, url, data=data, timeout=PATIENCE)
    return Answer(response.status_code, response.content, time.monotonic() - begun)


def send_slowly(server: Server, path: str, body: str) -> Answer:
    """Sends a body, one byte each second, until there is an answer."""
    begun = time.monotonic()
    head = f"POST {path}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((server.host, server.rest), 10) as client:
        client.sendall(head.encode())
        for byte in body[:PATIENCE].encode():
            client.sendall(bytes([byte]))
            if select.select([client], [], [], 1)[0]:
                break
        else:
            raise TimeoutError(f"no answer to a slow body within {PATIENCE} s")
        response = http.client.HTTPResponse(client)
        response.begin()
        return Answer(response.status, response.read(), time.monotonic() - begun)


def verdict(case: Case, answer: Answer) -> str:
    """Returns the fault of an answer, or an empty text."""
    if answer.status not in (case.statuses or range(400, 500)):
        return f"{case.name}: {answer.status}"
    return "" if answer.error else f"{case.name}: {answer.status} without error JSON"


def bad_inputs(bench: Bench) -> list[Cell]:
    server = bench.default()
    load = bench.load(server, clients=CLIENTS, seconds=2 * LONG)
    load.started()
    faults, slow, tried = [], Case("slow body", "", (408,)), cases(bench.cases["input"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slowly = pool.submit(send_slowly, server, bench.path, bench.cases["rest"][0])
        attempts = [(case, pool.submit(send, server, bench.path, case).result) for case in tried]
        for case, attempt in [*attempts, (slow, slowly.result)]:
            try:
                faults.append(verdict(case, attempt()))
            except Exception as error:
                faults.append(f"{case.name}: {type(error).__name__}")
    result = load.stop()
    bench.good(server)
    faults = [fault for fault in faults if fault]
    refused = f"{len(tried) + 1 - len(faults)} of {len(tried) + 1} refused as they should"
    wrong = f" ({'; '.join(faults)})" if faults else ""
    text = f"{refused}{wrong}; neighbours: {told(result)}, worst {result['worst']:.0f} ms"
    return [(text, not faults and unharmed(result))]


MEASURES = {
    bad_inputs: [
        (
            "bad input, 8 clients beside",
            "4xx with error JSON that the client can read; 0 failed beside",
        )
    ]
}
