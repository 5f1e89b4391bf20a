"""Ray Serve: the same answers from replicas, and what a client notices when one of them or a node is killed.

Only the refusals run without Ray, which the `ray` extra brings.
"""

import collections
import contextlib
import http.client
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from keras_initx.serving import _ray, _ray_cluster, serve_on_ray
from keras_initx.serving._options import Options
from support.served_models import half_plus_two

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'ray[serve,tune]')"
)
SECRET = "0123456789abcdef"
SERVE = """
import sys
from keras_initx.serving import serve_on_ray

root, rest, grpc, token = sys.argv[1:]
ports = {"rest_port": int(rest), "grpc_port": int(grpc)}
serve_on_ray(root, replicas=1, token_file=token or None, on_start=lambda: print("up", flush=True), **ports)
"""


def export(folder, version, add):
    """A version of y = x / 2 + add, whole at once."""
    half_plus_two(folder / ".writing", version, add).rename(folder / str(version))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(port, instances, path="/v1/models/half:predict", token=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("POST", path, json.dumps({"instances": instances}), headers)
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, json.loads(response.read())


class Load:
    """Clients that ask, wait for the answer, and ask again, until they are told to stop."""

    def __init__(self, port, clients=8):
        self.port, self.good, self.bad, self.answers = port, [], [], collections.Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        time.sleep(2)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self):
        connection = None
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("POST", "/v1/models/half:predict", b'{"instances": [1.0]}')
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise http.client.HTTPException(f"{response.status} {body!r}")
                self.good.append((begun, time.monotonic()))
                self.answers[json.loads(body)["predictions"][0]] += 1
                if response.headers.get("connection") == "close":
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.bad.append((begun, time.monotonic(), repr(error)))
                connection = None
                time.sleep(0.02)

    def stall(self):
        """The longest time in which nobody was answered."""
        ends = sorted(end for _, end in self.good)
        return max(later - earlier for earlier, later in itertools.pairwise(ends))

    def __str__(self):
        slowest = max(end - begun for begun, end in self.good)
        counts = f"{len(self.good)} answered, {len(self.bad)} failed"
        return f"{counts}, stall {self.stall():.2f} s, slowest {slowest:.2f} s"


def replicas(of=None):
    """Process ids of the replicas, of one raylet or of all."""
    found = set()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(b"ray::ServeReplica:initx"):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if of is None or int(parent) == of:
                    found.add(int(entry.name))
    return found


def seconds_until(condition, most=60):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < most
        time.sleep(0.1)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "half").mkdir()
    export(folder / "half", 1, 2.0)
    return folder


@pytest.mark.parametrize("found", ["2.59.3", "2.9.0", "1.13.0"])
def test_a_ray_without_its_security_measures_is_refused_with_the_cure(monkeypatch, models, found):
    monkeypatch.setattr("importlib.metadata.version", lambda _: found)
    monkeypatch.setattr("keras_initx.extras.is_installed", lambda _: True)
    with pytest.raises(ImportError, match=rf"2\.60 or newer.*Received: ray {found}.*'keras-initx\[ray\]'"):
        serve_on_ray(models)


@pytest.mark.parametrize("found", ["2.60.0", "2.61rc1", "3.0.0.dev0"])
def test_newer_rays_are_taken(monkeypatch, models, found):
    monkeypatch.setattr("importlib.metadata.version", lambda _: found)
    monkeypatch.setattr("keras_initx.extras.is_installed", lambda _: True)
    _ray._check(Options(root=str(models)), 1, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"workers": 2}, "`workers` and `tls_cert` are not for Ray"),
        ({"replicas": 0}, "`replicas` must be at least 1"),
        ({"replicas": 3, "max_replicas": 2}, "`max_replicas` at least that"),
        ({"host": "0.0.0.0"}, "`token_file` must be given to listen beyond this machine"),
        ({"root": "nowhere"}, "`root` must be a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(monkeypatch, models, given, told):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.60.0")
    monkeypatch.setattr("keras_initx.extras.is_installed", lambda _: True)
    with pytest.raises(ValueError, match=told):
        serve_on_ray(**{"root": models} | given)


@needs_ray
def test_rest_and_grpc_with_a_token(models, tmp_path):
    """One replica on a cluster of its own, and nothing that is left behind."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    rest, port = free_port(), free_port()
    (tmp_path / "token").write_text(SECRET)
    command = [sys.executable, "-c", SERVE, str(models), str(rest), str(port), str(tmp_path / "token")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line == "up\n" for line in process.stdout)
        assert ask(rest, [1.0, 5.0])[0] == 401
        assert ask(rest, [1.0, 5.0], token="wrong")[0] == 401
        assert ask(rest, [1.0, 5.0], token=SECRET) == (200, {"predictions": [2.5, 4.5]})
        assert ask(rest, [1.0], "/v1/models/unknown:predict", SECRET)[0] == 404
        request = PredictRequest()
        request.model_spec.name = "half"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1, 5])))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = PredictionServiceStub(channel)
            answer = stub.Predict(request, timeout=10, metadata=[("authorization", f"Bearer {SECRET}")])
            np.testing.assert_allclose(tf.make_ndarray(answer.outputs["y"]), [2.5, 4.5])
            assert answer.model_spec.version.value == 1
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            request.model_spec.name = "unknown"
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=10, metadata=[("authorization", f"Bearer {SECRET}")])
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not replicas()
    with pytest.raises(ConnectionRefusedError):
        ask(rest, [1.0])


@needs_ray
@pytest.mark.slow
def test_nothing_accepted_is_lost_at_sigterm(models):
    rest = free_port()
    command = [sys.executable, "-c", SERVE, str(models), str(rest), str(free_port()), ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line == "up\n" for line in process.stdout)
        with Load(rest) as load:
            process.send_signal(signal.SIGTERM)
            seconds = seconds_until(lambda: process.poll() is not None)
    print(f"SIGTERM: {load}; gone after {seconds:.1f} s")
    assert all("ConnectionRefused" in what for _, _, what in load.bad)
    assert seconds <= 20


@pytest.fixture(scope="module")
def cluster(models):
    """A head and a worker node on this machine, with two replicas, and HAProxy on the head."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as home:
        for name, value in (_ray_cluster.environment(home) | {"RAY_AUTH_TOKEN": "0" * 64}).items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            worker = nodes.add_node(num_cpus=2)
            ray.init(nodes.address, log_to_driver=False)
            options = Options(root=str(models), rest_port=free_port(), grpc_port=free_port())
            _ray.deploy(options, replicas=2)
            yield options.rest_port, nodes, worker
        finally:
            ray.shutdown()
            nodes.shutdown()
            _ray_cluster.kill_haproxies(home, signal.SIGKILL)


@needs_ray
@pytest.mark.slow
def test_a_new_version_is_taken_without_a_failure(cluster, models):
    port, *_ = cluster
    with Load(port) as load:
        export(models / "half", 2, 3.0)
        seconds = seconds_until(lambda: all(ask(port, [1.0])[1] == {"predictions": [3.5]} for _ in range(16)))
        time.sleep(2)
    print(f"New version: {load}; taken by all after {seconds:.1f} s")
    assert not load.bad
    assert set(load.answers) == {2.5, 3.5}
    assert seconds <= 10


@needs_ray
@pytest.mark.slow
def test_a_killed_node_fails_nothing_but_what_it_held(cluster):
    """Before the replica's: after it, both may be on one node."""
    port, nodes, worker = cluster
    raylet = worker.all_processes["raylet"][0].process.pid
    lost = replicas(of=raylet)
    assert len(lost) == len(replicas()) - 1 == 1
    with Load(port) as load:
        for process in (raylet, *lost):  # replicas outlive their raylet, a machine's end they would not
            os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        seconds = seconds_until(lambda: _running() == 2 and len(replicas() - lost) == 2)
        time.sleep(2)
    print(f"Node killed: {load}; full strength after {seconds:.1f} s")
    assert all(begun <= killed + 0.1 for begun, _, _ in load.bad), load.bad
    assert load.stall() <= 3
    assert seconds <= 30
    nodes.remove_node(worker)


@needs_ray
@pytest.mark.slow
def test_a_killed_replica_fails_nothing_but_what_it_held(cluster):
    port, *_ = cluster
    before = replicas()
    assert len(before) == 2
    with Load(port) as load:
        os.kill(min(before), signal.SIGKILL)
        killed = time.monotonic()
        seconds = seconds_until(lambda: _running() == 2 and len(replicas() - {min(before)}) == 2)
        time.sleep(2)
    print(f"Replica killed: {load}; full strength after {seconds:.1f} s")
    assert all(begun <= killed + 0.1 for begun, _, _ in load.bad), load.bad
    assert len(load.bad) <= 8
    assert load.stall() <= 3
    assert seconds <= 30


def _running():
    from ray import serve

    (deployment,) = serve.status().applications["initx"].deployments.values()
    return deployment.replica_states.get("RUNNING", 0)
