"""`initx serve` as a process of its own, and its clients."""

import contextlib
import socket
import subprocess
import time

import numpy as np
import requests

from support import forked


def free_ports():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


class Server:
    """`initx serve` in a process of its own."""

    def __init__(self, folder, *arguments, scheme="http"):
        self.rest, self.grpc = free_ports()
        self.url = f"{scheme}://127.0.0.1:{self.rest}"
        self.log = folder / f"serve-{self.rest}.log"
        ports = ["--rest-port", str(self.rest), "--grpc-port", str(self.grpc)]
        command = ["-m", "keras_initx", "serve", *map(str, arguments), *ports]
        with self.log.open("w") as log:
            self.process = forked.Forked(command, stderr=log, stdout=subprocess.DEVNULL)

    def wait(self, **options):
        seen = set()
        for _ in range(1200):
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(requests.ConnectionError):
                seen.add(status := requests.get(f"{self.url}/readyz", **options).status_code)
                if status == 200:
                    return seen
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def predict(self, values, path="half:predict", **options):
        return requests.post(f"{self.url}/v1/models/{path}", json={"instances": values}, **options)

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


def stubs(server, credentials=None):
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    target = f"localhost:{server.grpc}" if credentials else f"127.0.0.1:{server.grpc}"
    channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    return (
        prediction_service_pb2_grpc.PredictionServiceStub(channel),
        model_service_pb2_grpc.ModelServiceStub(channel),
    )


def prediction_stub(channel):
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(values, model="half"):
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32(values)))
    return request


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
