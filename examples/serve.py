"""Serves an exported model, asks for predictions over REST, and stops the server.

python examples/serve.py saved_models
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import sklearn.datasets


def main(root: pathlib.Path) -> None:
    if not (root / "digits").is_dir():
        sys.exit(f"{root / 'digits'} holds no model; run examples/image_classification.py first.")
    rest, grpc = free_ports()
    command = [sys.executable, "-m", "keras_initx", "serve", str(root)]
    server = subprocess.Popen(
        [*command, "--rest-port", str(rest), "--grpc-port", str(grpc)], stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(server, f"http://127.0.0.1:{rest}/readyz")
        ask(f"http://127.0.0.1:{rest}/v1/models/digits:predict")
    finally:
        server.terminate()
        server.wait()
    initx = pathlib.Path(os.path.relpath(sys.executable)).with_name("initx")
    print(f"To serve it yourself: {initx} serve {root}, and open http://127.0.0.1:8501/ in a browser.")


def ask(url: str) -> None:
    digits = sklearn.datasets.load_digits()
    held_out = np.random.default_rng(0).permutation(1797)[1437:][:8]  # the split of keras_initx.datasets
    body = json.dumps({"instances": digits.images[held_out, :, :, None].tolist()}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        predictions = np.array(json.load(answer)["predictions"])
    print(f"{url} answers for eight held-out digits:")
    for row, label in zip(predictions, digits.target[held_out], strict=True):
        print(f"  predicted {row.argmax()} with probability {row.max():.2f}, labelled {label}")


def wait_until_ready(server: subprocess.Popen, url: str) -> None:
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(f"initx serve ended with status {server.returncode}; is the extra `serve` installed?")
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    sys.exit("initx serve was not ready within a minute.")


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for opened in (one, other):
            opened.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
