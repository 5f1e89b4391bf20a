"""The folders and requests of `serve.py`: `python benchmarks/serve_models.py FOLDER`.

This is a separate process. If the measuring process mapped pages of TensorFlow too, a PSS would count these
pages by half.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import base64
import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

import keras_initx as initx

ROWS = 64
# Twice, because the end of the data sleeps too.
SLEEP = 0.1


def digits(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((64,), name="pixels")
    hidden = keras.layers.Dense(128, "relu")(pixels)
    return keras.Model(pixels, keras.layers.Dense(10, "softmax", name="probabilities")(hidden))


class Slow(tf.Module):
    """Returns its input after a fifth of a second, in which it uses no core."""

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "pixels")])
    def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.data.Dataset.from_tensors(pixels)
        variant = tf.raw_ops.SleepDataset(
            input_dataset=tf.data.experimental.to_variant(rows),
            sleep_microseconds=tf.constant(int(SLEEP * 1e6), tf.int64),
            output_types=[tf.float32],
            output_shapes=[[None, 64]],
        )
        slept = tf.data.experimental.from_variant(variant, rows.element_spec)
        return {"pixels": slept.reduce(pixels, lambda _, row: row)}


def predict_request(model: str, name: str, row: np.ndarray) -> str:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs[name].CopyFrom(tf.make_tensor_proto(row[None]))
    return base64.b64encode(request.SerializeToString()).decode()


def cases(model: str, name: str, rows: np.ndarray, expected: list[np.ndarray]) -> dict[str, object]:
    """Returns requests for single rows by both protocols, with the answer of each version."""
    return {
        "model": model,
        "input": name,
        "rest": [json.dumps({"instances": [row.tolist()]}) for row in rows],
        "grpc": [predict_request(model, name, row) for row in rows],
        "expected": [values.tolist() for values in expected],
    }


def main(folder: pathlib.Path) -> None:
    first, second = digits(1), digits(2)
    initx.export(first, folder / "models" / "digits")
    initx.export(second, folder / "next")
    (folder / "corrupt").mkdir()
    (folder / "corrupt" / "saved_model.pb").write_bytes(b"\xff" * 1000)
    slow = Slow()
    version = folder / "slow" / "digits" / "1"
    tf.saved_model.save(slow, str(version), {"serving_default": slow.__call__})
    (version / "batching_params.pbtxt").touch()  # it is row-wise, but not proven to be
    signature = tf.saved_model.load(str(folder / "models" / "digits" / "1")).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    # Sixteenths, like the pixels of scikit-learn's digits.
    rows = np.random.default_rng(1).integers(0, 17, (ROWS, 64)).astype("float32") / 16
    expected = [model.predict_on_batch(rows) for model in (first, second)]
    (folder / "digits.json").write_text(json.dumps(cases("digits", name, rows, expected)))
    (folder / "slow.json").write_text(json.dumps(cases("digits", "pixels", rows, [rows])))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
