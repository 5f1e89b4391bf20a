"""Folders for the tests of the page and of the description, and a server of them on a port of its own."""

import contextlib
import json
import pathlib
import socket
import threading
import time
import urllib.parse

import numpy as np
from served_graphs import Fixed, State, half_plus_two, several, write

import keras_initx.serving._page as serving_page
from keras_initx.serving._openapi import openapi
from keras_initx.serving._rest import answer

HOSTILE = "<img src=x onerror=alert(1)>"


def digits(folder):
    """Scores for drawn digits, by the distance to the nearest image of each class; no training."""
    import sklearn.datasets

    known = sklearn.datasets.load_digits()

    def build(tf, signature):
        image = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 1], name="image")
        images = tf.constant(known.images.reshape(-1, 1, 64), tf.float32)
        distances = tf.reduce_sum((images - tf.reshape(image, [1, -1, 64])) ** 2, -1)
        nearest = tf.math.unsorted_segment_min(distances, tf.constant(known.target), 10)
        return {
            "serving_default": signature(
                {"image": image}, {"probabilities": tf.nn.softmax(-tf.transpose(nearest) / 50)}
            )
        }

    write(folder, build)


def write_models(root):
    half_plus_two(root / "half" / "1")
    half_plus_two(root / "half" / "123", add=3.0)
    several(root / "several" / "1")
    several(root / HOSTILE / "1")
    digits(root / "digits" / "1")
    (root / "broken" / "7").mkdir(parents=True)
    (root / "broken" / "7" / "saved_model.pb").write_bytes(b"no model")


class Folders(Fixed):
    """Every version of a root; those that cannot be loaded are END with their error."""

    def __init__(self, root):
        found = {(path.parent.name, int(path.name)): path for path in root.glob("*/*")}
        self.broken = {key for key in found if key[0] == "broken"}
        super().__init__({key: path for key, path in found.items() if key not in self.broken}, {"old": 1})

    def names(self):
        return sorted({*super().names(), "broken"})

    def statuses(self, name):
        if name != "broken":
            return super().statuses(name)
        state = State(7)
        state.state, state.error_code, state.error_message = "END", "DATA_LOSS", "Cannot parse <b>file</b>"
        return [state]


def application(models, token):
    """The least of a server that the page and the description need."""
    page, page_headers = serving_page.page()
    found = {
        "/": (page, page_headers),
        "/openapi.json": (json.dumps(openapi()).encode(), {"Content-Type": "application/json"}),
        "/healthz": (b'{"status": "ok"}', {"Content-Type": "application/json"}),
        "/readyz": (b'{"status": "ready"}', {"Content-Type": "application/json"}),
        "/monitoring/prometheus/metrics": (b"", {"Content-Type": "text/plain; version=0.0.4"}),
    }

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["raw_path"].decode()
        headers, status = {"Content-Type": "application/json"}, 200
        if path in found and scope["method"] == "GET":
            body, headers = found[path]
        elif token and dict(scope["headers"]).get(b"authorization") != f"Bearer {token}".encode():
            status, body = 401, b'{"error": "A bearer token is needed"}'
            headers["WWW-Authenticate"] = "Bearer"
        else:
            made = await answer(scope["method"], path, body, models)
            status, body = made.status, made.body
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    return app


@contextlib.contextmanager
def serving(root: pathlib.Path, token: str = ""):
    """Serves a root; yields its address."""
    import uvicorn

    app = application(Folders(root), token)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def is_local(url):
    return urllib.parse.urlsplit(url).hostname == "127.0.0.1"


def nested_zeros(*shape):
    return np.zeros(shape).tolist()
