"""The clients that measure serving tell right answers from wrong, short, doubled and missing ones."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
RIGHT = {0: [0.25, 0.75], 1: [0.5, 0.5]}


def http(status, body, length=None):
    return f"HTTP/1.1 {status} X\r\ncontent-length: {length or len(body)}\r\n\r\n{body}".encode()


def predictions(values):
    return http(200, json.dumps({"predictions": [values]}))


def requested(body):
    return json.loads(body)["instances"][0]


def serve(listener, respond):
    """Answers each request with what `respond` makes of its row; None hangs up."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(ConnectionError):
            while request := connection.recv(65536):
                answer = respond(requested(request.partition(b"\r\n\r\n")[2]))
                if answer is None:
                    break
                connection.sendall(answer[:-3])
                connection.sendall(answer[-3:])


def load(tmp_path, respond, **job):
    cases = {
        "model": "m",
        "rest": [json.dumps({"instances": [row]}) for row in RIGHT],
        "grpc": [],
        "expected": [list(RIGHT.values())],
    }
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener, respond), daemon=True).start()
        port = listener.getsockname()[1]
        job = {
            "cases": str(tmp_path / "cases.json"),
            "port": port,
            "clients": 1,
            "seconds": 0.3,
            "warmup": 0,
        } | job
        command = [sys.executable, str(BENCHMARKS / "serve_load.py"), json.dumps(job)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    started, result = output.splitlines()
    assert started == "started"
    return json.loads(result)


def test_right_answers_count_with_their_latencies(tmp_path):
    result = load(tmp_path, lambda row: predictions(RIGHT[row]))
    assert result["answers"] > 10
    assert (result["wrong"], result["failures"], result["refused"]) == (0, {}, 0)
    assert 0 < result["p50"] <= result["p99"] <= result["worst"]
    assert 0 < result["rate"] * 0.3 <= result["answers"]


@pytest.mark.parametrize(
    "respond",
    [
        lambda row: predictions(RIGHT[1 - row]),
        lambda row: predictions(RIGHT[row][:1]),
        lambda row: predictions([value + 1e-3 for value in RIGHT[row]]),
        lambda _: predictions([float("nan")] * 2),
        lambda _: http(200, "{}"),
        lambda _: http(200, "no JSON"),
    ],
)
def test_wrong_predictions_are_told(tmp_path, respond):
    result = load(tmp_path, respond)
    assert result["wrong"] > 0
    assert result["answers"] == 0


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (lambda _: None, "lost on a new connection"),
        (lambda row: predictions(RIGHT[row]) * 2, "not one answer of its Content-Length"),
        (lambda _: b"HTTP/1.1 200 OK\r\n\r\n{}", "not one answer of its Content-Length"),
        (lambda _: http(500, "oh"), "status 500"),
        (lambda _: http(429, "oh"), "status 429 without an error"),
    ],
)
def test_failures_are_told(tmp_path, respond, reason):
    result = load(tmp_path, respond, allowed=[429])
    assert result["answers"] == 0
    assert all(told.startswith(reason) for told in result["failures"])
    assert result["failures"]


def test_an_allowed_status_is_timed_apart(tmp_path):
    result = load(tmp_path, lambda _: http(429, '{"error": "full"}'), allowed=[429], pause=0.02)
    assert result["failures"] == {}
    assert 2 < result["others"]["429"]["count"] < 50


def test_a_prediction_is_read_from_its_message(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import serve_wire
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse()
    response.model_spec.name = "digits"
    response.model_spec.version.value = 300
    response.outputs["y"].CopyFrom(tf.make_tensor_proto([[0.25, 0.5, 7.0]]))
    assert serve_wire.prediction(response.SerializeToString()) == [0.25, 0.5, 7.0]
    tensor = response.outputs["y"]
    tensor.ClearField("tensor_content")
    tensor.float_val.extend([0.25, 0.5, 7.0])
    assert serve_wire.prediction(response.SerializeToString()) == [0.25, 0.5, 7.0]
