"""Many clients at once over a real server: each gets the answer that its request gets alone."""

import concurrent.futures
import json
import re
import threading

import numpy as np
import pytest
import requests

from support.served_models import save
from support.served_process import Server, stubs

pytestmark = pytest.mark.tensorflow
LETTERS = "abcdefgh"


def hold(tf):
    """A signature that takes 20 ms and so lets a queue form behind it."""
    n = tf.compat.v1.placeholder(tf.float32, [], name="n")
    slow = tf.while_loop(lambda k, v: k < 20_000, lambda k, v: (k + 1, v + 1.0), [0, n])[1]
    return {"n": n}, {"slow": slow}


def rows(tf):
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    return x, tf.matmul(x, [[1.0, 2.0], [3.0, 4.0]])


def centered(tf):
    """Each row minus the mean of all rows: one row per row, and yet not a function of the row."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    return x, x - tf.reduce_mean(x, 0) + 1.0


def padded(tf):
    """The share of padding in a text that is padded to its longest neighbour."""
    x = tf.compat.v1.placeholder(tf.string, [None], name="x")
    words = tf.strings.split(x).to_tensor(default_value="")
    return x, tf.reduce_mean(tf.cast(tf.equal(words, ""), tf.float32), 1)


def words(tf):
    """The words of all texts in one list."""
    x = tf.compat.v1.placeholder(tf.string, [None], name="x")
    return x, tf.strings.split(x).values


def lengths(tf):
    x = tf.compat.v1.placeholder(tf.string, [None], name="x")
    return x, tf.strings.length(x)


MODELS = {
    "proven": (rows, lambda k: [[float(k), 1.0]], lambda k: [[k + 3.0, 2.0 * k + 4.0]]),
    "centered": (centered, lambda k: [[float(k), 1.0]], lambda k: [[1.0, 1.0]]),
    "padded": (padded, lambda k: [" ".join(LETTERS[: k % 8 + 1])], lambda k: [0.0]),
    "words": (words, lambda k: [f"secret{k} of{k}"], lambda k: [f"secret{k}", f"of{k}"]),
    "asked": (lengths, lambda k: ["a" * k], lambda k: [k]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("alone")
    for name, (build, _, _) in MODELS.items():

        def signatures(build=build):
            x, y = build(tf)
            return {"serving_default": ({"x": x}, {"y": y}), "hold": hold(tf)}

        save(folder / "models" / name, 1, signatures)
    extra = folder / "models" / "proven" / "1" / "assets.extra"
    extra.mkdir()
    facts = {"batch_sizes": [1, 2, 3, 8], "max_difference": 0.0, "tolerance": 1e-4}
    (extra / "initx_row_wise.json").write_text(
        json.dumps({"format": 1, "signatures": {"serving_default": facts}})
    )
    (folder / "models" / "asked" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 8 }")
    sizes = folder / "sizes.config"
    sizes.write_text("max_batch_size { value: 32 }")  # which turns no batching on
    server = Server(folder, folder / "models", "--batching", sizes)
    server.wait()
    yield server
    assert server.stop() == 0, server.log.read_text()


def over_rest(server, name):
    session = requests.Session()

    def ask(values):
        answer = session.post(f"{server.url}/v1/models/{name}:predict", json={"inputs": values}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"]

    return ask


def over_grpc(server, name):
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    prediction, _ = stubs(server)

    def ask(values):
        request = PredictRequest()
        request.model_spec.name = name
        kind = object if isinstance(values[0], str) else np.float32
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(values, kind)))
        found = tf.make_ndarray(prediction.Predict(request, 30).outputs["y"]).tolist()
        return [value.decode() if isinstance(value, bytes) else value for value in found]

    return ask


def batches(server, name):
    """How many runs there were, and how many of them were of one row."""
    text = requests.get(f"{server.url}/monitoring/prometheus/metrics").text
    base = (
        rf':tensorflow:serving:batching_session:processed_batch_size_{{}}{{{{.*model_name="{name}".*}}}} (.*)'
    )
    total = re.search(base.format("count"), text)[1]
    one = re.search(rf'processed_batch_size_bucket{{le="1.0",model_name="{name}"}} (.*)', text)[1]
    return float(total), float(one)


@pytest.mark.parametrize("name", MODELS)
def test_each_client_gets_the_answer_that_it_gets_alone(server, name):
    _, values, want = MODELS[name]
    done = threading.Event()

    def holds():
        ask = requests.Session()
        while not done.is_set():
            body = {"signature_name": "hold", "inputs": 0.0}
            assert ask.post(f"{server.url}/v1/models/{name}:predict", json=body).status_code == 200

    def client(number):
        ask = (over_rest, over_grpc)[number % 2](server, name)
        keys = [number * 10 + at for at in range(10)]
        return [(key, ask(values(key))) for key in keys]

    holder = threading.Thread(target=holds)
    holder.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pair for pairs in pool.map(client, range(8)) for pair in pairs]
    finally:
        done.set()
        holder.join()
    assert [got for _, got in answers] == [want(key) for key, _ in answers]
    total, of_one = batches(server, name)
    assert (of_one < total) == (name in ("proven", "asked"))  # or nothing was tried


def test_the_log_says_what_is_batched(server):
    log = server.log.read_text()
    assert "Model proven version 1 is available; batched: ['serving_default']" in log
    assert "Model padded version 1 is available; batched: nothing" in log
    assert "batching_params.pbtxt asks for batches of ['serving_default']. Nobody proved" in log
