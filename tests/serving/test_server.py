"""The server as users start it, `initx serve`, and clients: requests, curl, TensorFlow Serving's stubs."""

import concurrent.futures
import gzip
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests

from support import forked
from support.served_graphs import half_plus_two
from support.served_process import Server, free_ports, predict_request, prediction_stub, stubs, wait_until

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    half_plus_two(folder / "models" / "half" / "00000001")
    return folder / "models"


@pytest.fixture(scope="module")
def server(root):
    server = Server(root.parent, root, "--access-log")
    seen = server.wait()
    assert seen <= {200, 503}
    yield server
    assert server.stop() == 0, server.log.read_text()
    log = server.log.read_text()
    assert "Traceback" not in log
    assert f"INFO REST and a page to try it on http://127.0.0.1:{server.rest}/, gRPC on 127.0.0.1:" in log
    assert "INFO Model half version 1 is available" in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    assert {"client", "method", "path", "status", "bytes", "milliseconds"} <= set(lines[0])


def test_requests_get_answers(server):
    answer = server.predict([1.0, 2.0, 5.0])
    assert answer.json() == {"predictions": [2.5, 3.0, 4.5]}
    assert answer.headers["Content-Type"] == "application/json"
    assert server.predict([1.0], "half/versions/1:predict").json() == {"predictions": [2.5]}
    for answer, status in (
        (server.predict(["a"]), 400),
        (server.predict([1.0], "no:predict"), 404),
        (server.predict([1.0], "half/versions/7:predict"), 404),
        (server.predict([1.0], "..%2f..%2fetc:predict"), 404),
        (requests.put(f"{server.url}/v1/models/half"), 400),
        (requests.get(f"{server.url}/nowhere"), 404),
        (requests.post(f"{server.url}/readyz"), 405),
        (requests.options(f"{server.url}/v1/models/half:predict"), 400),
    ):
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
        assert answer.headers["Content-Type"] == "application/json"
    origin = {"Origin": "https://example.com"}
    answer = requests.options(f"{server.url}/v1/models/half:predict", headers=origin)
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_zipped_body_is_read_within_the_limit(server):
    url, headers = f"{server.url}/v1/models/half:predict", {"Content-Encoding": "gzip"}
    body = gzip.compress(b'{"instances": [1.0]}')
    assert requests.post(url, data=body, headers=headers).json() == {"predictions": [2.5]}
    for broken in (b"no zip", body[:-5], body[:-9]):  # the latter two without their checksum, or part of it
        assert requests.post(url, data=broken, headers=headers).status_code == 400
    bomb = gzip.compress(b" " * (33 * 2**20))
    assert requests.post(url, data=bomb, headers=headers).status_code == 413


def test_a_large_body_lets_others_through(server):
    """10 MB in and 40 MB out: what others wait for is its parsing alone."""
    waits = []

    def ask():
        while not done.is_set():
            started = time.monotonic()
            requests.get(f"{server.url}/healthz")
            waits.append(time.monotonic() - started)

    done = threading.Event()
    other = threading.Thread(target=ask)
    other.start()
    answer = server.predict([[float(number % 7) for number in range(1000)]] * 2000)
    done.set()
    other.join()
    assert answer.status_code == 200
    assert len(waits) > 20  # one or two, if all of it were done at once


def test_what_stands_beside_the_protocol(server):
    assert requests.get(f"{server.url}/healthz").status_code == 200
    models = requests.get(f"{server.url}/v1/models").json()["models"]
    assert [(m["name"], m["model_version_status"][0]["state"]) for m in models] == [("half", "AVAILABLE")]
    server.predict([1.0])
    server.predict([1.0], f"{'x' * 50}:predict")
    metrics = requests.get(f"{server.url}/monitoring/prometheus/metrics").text
    assert re.search(r':tensorflow:serving:request_count\{model_name="half",status="OK"\} \d+', metrics)
    assert ':tensorflow:serving:request_latency_bucket{API="predict",entrypoint="REST"' in metrics
    assert "xxxx" not in metrics  # names that clients make up are no labels


def test_curl_in_the_words_of_the_readme(server):
    command = ["curl", "-s", "-d", '{"instances": [1.0, 2.0]}', f"{server.url}/v1/models/half:predict"]
    assert json.loads(subprocess.check_output(command)) == {"predictions": [2.5, 3.0]}


def test_tensorflow_servings_own_clients(server):
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

    prediction, model = stubs(server)
    response = prediction.Predict(predict_request([1, 2]), 10)
    assert list(response.outputs["y"].float_val) == [2.5, 3.0]
    assert response.model_spec.version.value == 1
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    assert model.GetModelStatus(request, 10).model_version_status[0].version == 1
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half"
    assert prediction.GetModelMetadata(request, 10).model_spec.version.value == 1
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(predict_request([1], "other"), 10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Servable not found for request: Latest(other)"
    with pytest.raises(grpc.RpcError) as caught:
        model.HandleReloadConfigRequest(reload_request("half", "/"), 10)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def reload_request(name, path):
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

    request = ReloadConfigRequest()
    request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
    return request


def test_a_body_that_is_too_large_is_refused_and_the_client_reads_why(server):
    body = b'{"instances": [' + b"1.0," * (14 * 2**20) + b"1.0]}"
    for headers in ({}, {"Expect": "100-continue"}):
        answer = requests.post(f"{server.url}/v1/models/half:predict", data=body, headers=headers)
        assert answer.status_code == 413
        assert "at most 33554432 bytes" in answer.json()["error"]
    chunks = (body[at : at + 2**20] for at in range(0, len(body), 2**20))
    assert requests.post(f"{server.url}/v1/models/half:predict", data=chunks).status_code == 413
    command = ["curl", "-s", "--data-binary", "@-", f"{server.url}/v1/models/half:predict"]
    found = subprocess.run(command, input=body, capture_output=True)
    assert b"at most 33554432 bytes" in found.stdout


def test_clients_that_leave_leave_nothing(server):
    payload = b'{"instances": [1.0]}'
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    for at in range(300):
        with socket.create_connection(("127.0.0.1", server.rest)) as client:
            client.sendall(head % (len(payload) * (1 + at % 2)) + payload)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    started = time.monotonic()
    assert server.predict([1.0]).status_code == 200
    assert time.monotonic() - started < 2


def test_two_sockets_listen_and_both_on_the_loopback(server):
    owned = {os.readlink(path) for path in pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()}  # noqa: PTH115
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in owned:
                address, port = fields[1].split(":")
                found.append((address[-8:], int(port, 16)))
    # 127.0.0.1 as the kernel prints it; gRPC binds it as an address mapped into IPv6.
    assert sorted(found) == sorted([("0100007F", server.rest), ("0100007F", server.grpc)])


def test_a_port_that_is_taken_is_said_at_once(server, root):
    command = ["-m", "keras_initx", "serve", str(root), "--rest-port"]
    found = forked.run([*command, str(server.rest)])
    assert found.returncode == 2
    assert f"rest_port={server.rest}: Address already in use" in found.stderr
    found = forked.run([*command, str(free_ports()[0]), "--grpc-port", str(server.grpc)])
    assert found.returncode == 2
    assert "`--grpc-port` must be free" in found.stderr


def test_a_new_version_answers_and_a_corrupt_one_does_not(server, root):
    half_plus_two(root.parent / "next", add=3.0)
    (root.parent / "next").rename(root / "half" / "2")
    wait_until(lambda: server.predict([1.0]).json() == {"predictions": [3.5]})
    (root / "half" / "3").mkdir()
    (root / "half" / "3" / "saved_model.pb").write_bytes(b"no model")

    def states():
        found = requests.get(f"{server.url}/v1/models/half").json()["model_version_status"]
        return {state["version"]: (state["state"], state["status"]["error_code"]) for state in found}

    wait_until(lambda: states().get("3", ("",))[0] == "END")
    assert states()["3"][1] != "OK"
    assert states()["2"] == ("AVAILABLE", "OK")
    assert server.predict([1.0]).json() == {"predictions": [3.5]}
    shutil.rmtree(root / "half" / "3")


@pytest.fixture(scope="module")
def secured(root):
    folder = root.parent
    (folder / "token").write_text("correct-horse-battery-staple\n")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    options = ["--host", "0.0.0.0", "--token-file", folder / "token", "--tls-cert", cert, "--tls-key", key]
    server = Server(folder, root, *options, "--timeout-seconds", "2", "--cors", scheme="https")
    server.wait(verify=str(cert))
    yield server, cert
    assert server.stop() == 0, server.log.read_text()


def test_a_token_is_asked_for_on_both_ports(secured):
    import grpc

    server, cert = secured
    bearer = {"Authorization": "Bearer correct-horse-battery-staple"}
    for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), (bearer, 200)):
        answer = server.predict([1.0], verify=str(cert), headers=headers)
        assert answer.status_code == status, answer.text
        path = f"{server.url}/monitoring/prometheus/metrics"
        assert requests.get(path, verify=str(cert), headers=headers).status_code == status
        assert requests.get(f"{server.url}/healthz", verify=str(cert), headers=headers).status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    prediction, _ = stubs(server, grpc.ssl_channel_credentials(cert.read_bytes()))
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        with pytest.raises(grpc.RpcError) as caught:
            prediction.Predict(predict_request([1]), 10, metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    metadata = (("authorization", bearer["Authorization"]),)
    assert prediction.Predict(predict_request([1]), 10, metadata=metadata).outputs["y"].float_val


def test_a_body_that_does_not_arrive_is_refused(secured):
    import ssl

    server, cert = secured
    context = ssl.create_default_context(cafile=str(cert))
    with socket.create_connection(("127.0.0.1", server.rest)) as plain:
        client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(
            b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer correct-horse-battery-staple\r\n\r\n{"
        )
        started = time.monotonic()
        client.settimeout(10)
        answer = client.recv(4096)
        while b"}" not in answer:
            answer += client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error"' in answer
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "`--token-file` must be given to listen beyond this machine"),
        (["--host", "10.0.0.1"], "`--token-file` must be given"),
        (
            ["--replicas", "3", "--ray-address", "auto"],
            "`--replicas`, `--ray-address` must come with `--ray`",
        ),
        (["--tls-cert", "x"], "must be given together"),
        (["--token-file", "nowhere"], "must be a readable file"),
        (["--rest-port", "70000"], "must be from 0 to 65535"),
        (["--workers", "0"], "must be positive"),
        (["--keep-alive-seconds", "0"], "`--keep-alive-seconds` must be positive"),
        (["--max-queue", "-1"], "`--max-queue` must be positive"),
        (["--config", "models.config"], "Exactly one of"),
    ],
)
def test_options_that_are_wrong_or_unsafe_are_refused(root, options, message, capsys):
    from keras_initx.cli import main

    assert main(["serve", str(root), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_and_tokens_that_are_none(tmp_path, root, capsys):
    from keras_initx.cli import main

    assert main(["serve", str(tmp_path / "no")]) == 2
    assert "`root` must be a folder" in capsys.readouterr().err
    assert main(["serve", str(root / "half" / "00000001")]) == 2
    assert "is a version: name its folder" in capsys.readouterr().err
    assert main(["serve"]) == 2
    assert "must be given" in capsys.readouterr().err
    for secret in ("short", "two words of text", ""):
        (tmp_path / "token").write_text(secret)
        assert main(["serve", str(root), "--token-file", str(tmp_path / "token")]) == 2
        assert "must hold one word of 16" in capsys.readouterr().err


def test_options_of_another_name_or_type(root, tmp_path):
    import keras_initx as initx

    with pytest.raises(TypeError, match="unexpected keyword argument 'port'"):
        initx.serve(root, port=1)
    for options, message in (
        ({"rest_port": "8501"}, "`rest_port` must be of type int. Received: '8501'"),
        ({"workers": True}, "`workers` must be of type int"),
        ({"max_queue": 1.5}, "`max_queue` must be of type int"),
        ({"insecure": "yes"}, "`insecure` must be of type bool"),
        ({"token_file": 3}, "`token_file` must be of type str"),
    ):
        with pytest.raises(ValueError, match=message):
            initx.serve(root, **options)
    for name in ("key", "cert"):
        (tmp_path / name).write_text("no PEM")
    with pytest.raises(ValueError, match="must be a PEM certificate and its key"):
        initx.serve(root, tls_cert=str(tmp_path / "cert"), tls_key=str(tmp_path / "key"))


@pytest.fixture(scope="module")
def workers(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    half_plus_two(folder / "half" / "1")
    half_plus_two(folder / "half" / "2", add=3.0)
    config = folder / "models.config"
    where = f'name: "half" base_path: "{folder}/half" model_platform: "tensorflow"'
    which = 'model_version_policy { all {} } version_labels { key: "stable" value: 1 }'
    config.write_text(f"model_config_list {{ config {{ {where} {which} }} }}")
    server = Server(folder, "--config", config, "--workers", "2")
    server.wait()
    yield server
    assert server.stop() == 0, server.log.read_text()


def children(server):
    tree = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    return [int(pid) for pid in pathlib.Path(tree).read_text().split()]


class Load:
    """Clients in closed loops over connections that they keep."""

    def __init__(self, server, clients, want):
        self.server, self.want, self.answers, self.failures, self.refused = server, want, 0, [], 0
        self.on, self.lock = True, threading.Lock()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.tasks = [self.pool.submit(self.run) for _ in range(clients)]

    def run(self):
        session = requests.Session()
        while self.on:
            try:
                answer = session.post(f"{self.server.url}/v1/models/half:predict", json={"instances": [2.0]})
                good = answer.status_code == 200 and answer.json() == {"predictions": [self.want]}
                with self.lock:
                    self.answers += good
                    self.failures += [] if good else [answer.text]
            except requests.ConnectionError as error:
                refused = "Connection refused" in str(error)
                with self.lock:
                    self.refused += refused
                    self.failures += [] if refused else [str(error)]
                if refused:
                    return

    def stop(self):
        self.on = False
        for task in self.tasks:
            task.result(60)
        self.pool.shutdown()


@pytest.mark.integration
def test_labels_of_a_config_file(workers):
    for path, want in (
        ("half:predict", 3.5),
        ("half/labels/stable:predict", 2.5),
        ("half/versions/1:predict", 2.5),
    ):
        assert workers.predict([1.0], path).json() == {"predictions": [want]}
    assert workers.predict([1.0], "half/labels/no:predict").status_code == 400


@pytest.mark.integration
def test_a_killed_worker_fails_what_it_held_and_comes_back(workers):
    wait_until(lambda: len(children(workers)) == 2)
    load = Load(workers, 4, 4.0)
    wait_until(lambda: load.answers > 50)
    killed = children(workers)[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in children(workers) and len(children(workers)) == 2)
    wait_until(lambda: load.answers > 300)
    load.stop()
    assert len(load.failures) <= 4, load.failures  # what each client had in flight
    assert not load.refused
    metrics = requests.get(f"{workers.url}/monitoring/prometheus/metrics").text
    assert re.search(r':tensorflow:serving:request_count\{model_name="half",status="OK"\}', metrics)


def test_sigterm_under_load_loses_nothing(root):
    server = Server(root.parent, root)
    server.wait()
    load = Load(server, 8, server.predict([2.0]).json()["predictions"][0])
    wait_until(lambda: load.answers > 100)
    assert server.stop() == 0, server.log.read_text()
    load.stop()
    assert load.refused == 8
    assert load.failures == []


def test_what_lacks_a_version_folder_is_told_wherever_one_looks(tmp_path):
    half_plus_two(tmp_path / "models" / "half" / "1")
    (tmp_path / "models" / "half" / "1").rename(tmp_path / "bare")
    (tmp_path / "models" / "half").rmdir()
    (tmp_path / "bare").rename(tmp_path / "models" / "half")
    server = Server(tmp_path, tmp_path / "models", "--keep-alive-seconds", "1")
    wait_until(lambda: "No model of" in server.log.read_text(), 60)
    unready, status = (requests.get(f"{server.url}{path}") for path in ("/readyz", "/v1/models/half"))
    assert (unready.status_code, status.status_code) == (503, 404)
    (listed,) = requests.get(f"{server.url}/v1/models").json()["models"]
    cure = re.search("`(mv .*)`", listed.pop("error"))[1]
    assert listed == {"name": "half", "model_version_status": []}
    assert cure in unready.json()["error"]
    assert cure in status.json()["error"]
    assert cure in server.log.read_text()
    subprocess.run(cure, shell=True, check=True)
    wait_until(lambda: server.predict([1.0]).status_code == 200)
    idle_connections_end(server)
    assert server.stop() == 0


def idle_connections_end(server):
    """By the option: after one second, by REST and by gRPC, which connects again by itself."""
    import grpc

    with socket.create_connection(("127.0.0.1", server.rest)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        asked = time.monotonic()
        client.settimeout(10)
        while client.recv(4096):
            pass
        assert 0.9 < time.monotonic() - asked < 4
    states = []
    channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc}")
    channel.subscribe(states.append)
    prediction = prediction_stub(channel)
    assert prediction.Predict(predict_request([1]), 10).outputs["y"].float_val
    wait_until(lambda: states[-1] == grpc.ChannelConnectivity.IDLE, 10)
    assert prediction.Predict(predict_request([1]), 10).outputs["y"].float_val
    channel.close()


def test_idle_connections_outlive_those_of_proxies_by_default():
    """Envoy, nginx and the load balancers of clouds close theirs after 60 seconds."""
    from keras_initx.serving._options import Options

    assert Options(root="x").keep_alive_seconds == 75


def test_the_configuration_is_replaced_over_grpc(root, tmp_path):
    import grpc

    half_plus_two(tmp_path / "other" / "5", add=10.0)
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "half" base_path: "{root}/half" }} }}')
    server = Server(tmp_path, "--config", config)
    server.wait()
    _, model = stubs(server)
    model.HandleReloadConfigRequest(reload_request("other", tmp_path / "other"), 30)
    assert server.predict([1.0], "other:predict").json() == {"predictions": [10.5]}
    assert server.predict([1.0]).status_code == 404
    with pytest.raises(grpc.RpcError) as caught:
        model.HandleReloadConfigRequest(reload_request("gone", tmp_path / "gone"), 30)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert server.predict([1.0], "other:predict").status_code == 200
    assert server.stop() == 0


def test_sigterm_answers_every_call_over_grpc(root):
    import grpc

    server = Server(root.parent, root)
    server.wait()
    prediction, _ = stubs(server)
    answers, codes, lock = [], [], threading.Lock()

    def call():
        while True:
            try:
                found = prediction.Predict(predict_request([2]), 10)
                with lock:
                    answers.append(found)
            except grpc.RpcError as error:
                with lock:
                    codes.append(error.code().name)
                return

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) > 100)
    assert server.stop() == 0, server.log.read_text()
    for thread in threads:
        thread.join(30)
    assert codes == ["UNAVAILABLE"] * 8  # the word to ask another server, and never CANCELLED
