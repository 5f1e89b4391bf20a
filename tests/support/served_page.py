"""Folders for the tests of the page and of the description, and a server of them on a port of its own."""

import contextlib
import socket
import subprocess
import time
import urllib.request

from support import forked
from support.served_graphs import every_type, half_plus_two, several, write

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MODELS = (HOSTILE, "broken", "colors", "digits", "half", "several", "types")


def digits(folder):
    """Scores for drawn digits, by the distance to the nearest image of each class; no training.

    The signature classify names the classes, as `export` writes it.
    """
    import sklearn.datasets

    known = sklearn.datasets.load_digits()

    def build(tf, signature):
        v1 = tf.compat.v1
        image = v1.placeholder(tf.float32, [None, 8, 8, 1], name="image")
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.io.parse_example(examples, {"image": v1.FixedLenFeature([64], tf.float32)})["image"]
        images = tf.constant(known.images.reshape(-1, 1, 64), tf.float32)

        def scores(rows):
            distances = tf.reduce_sum((images - tf.reshape(rows, [1, -1, 64])) ** 2, -1)
            nearest = tf.math.unsorted_segment_min(distances, tf.constant(known.target), 10)
            return tf.nn.softmax(-tf.transpose(nearest) / 50)

        classes = tf.tile([NAMES], [tf.shape(parsed)[0], 1])
        return {
            "serving_default": signature({"image": image}, {"probabilities": scores(image)}),
            "classify": signature(
                {"inputs": examples}, {"classes": classes, "scores": scores(parsed)}, "classify"
            ),
        }

    write(folder, build)


def colors(folder):
    """The mean of each colour of an image of 6 by 4 pixels."""

    def build(tf, signature):
        image = tf.compat.v1.placeholder(tf.float32, [None, 6, 4, 3], name="image")
        return {"serving_default": signature({"image": image}, {"means": tf.reduce_mean(image, [1, 2])})}

    write(folder, build)


def write_models(root):
    """Writes the folders, and a config that serves every version."""
    half_plus_two(root / "half" / "1")
    half_plus_two(root / "half" / "123", add=3.0)
    several(root / "several" / "1")
    every_type(root / "types" / "1")
    several(root / HOSTILE / "1")
    colors(root / "colors" / "1")
    digits(root / "digits" / "1")
    (root / "broken" / "7").mkdir(parents=True)
    (root / "broken" / "7" / "saved_model.pb").write_bytes(b"no model")
    labels = 'version_labels { key: "old" value: 1 }'
    configs = [
        f'config {{ name: "{name}" base_path: "{root / name}" model_platform: "tensorflow" '
        f"model_version_policy {{ all {{}} }} {labels if name == 'half' else ''} }}"
        for name in MODELS
    ]
    (root / "models.config").write_text("model_config_list {\n" + "\n".join(configs) + "\n}\n")


@contextlib.contextmanager
def serving(root, *options):
    """Runs `initx serve` on free ports; yields its address once models answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "keras_initx", "serve", "--config", str(root / "models.config")]
    command += ["--rest-port", str(port), "--grpc-port", "0", *options]
    server = forked.Forked(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while not is_ready(address):
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not get ready"
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def is_ready(address):
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
