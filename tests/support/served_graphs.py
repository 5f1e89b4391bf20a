"""Models for the tests of the protocol, written by TensorFlow 1's builder, which may name what it likes."""

import asyncio
import functools
import pathlib
import sys

import numpy as np

import keras_initx.serving._loaded as loaded
from keras_initx.serving._errors import ServingError
from support.served_models import save

TYPES = {
    "float": [1.5, -2.0],
    "double": [1.5, -2.0],
    "int8": [-128, 127],
    "int16": [-3, 4],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint8": [0, 255],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "bool": [True, False],
    "string": ["a", "é"],
}


def write(folder, build):
    """Writes what `build(tf, signature)` returns, {key: signature}, as a SavedModel."""
    import tensorflow as tf

    def signature(inputs, outputs, method="predict"):
        return inputs, outputs, method

    save(folder.parent, folder.name, lambda: build(tf, signature))


def half_plus_two(folder, add=2.0):
    """y = x / 2 + add, as `serving_default`, and from `tf.train.Example`s as classify and regress."""

    def build(tf, signature):
        v1 = tf.compat.v1
        half, two = v1.get_variable("a", initializer=0.5), v1.get_variable("b", initializer=add)
        x = v1.placeholder(tf.float32, name="x")
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.io.parse_example(examples, {"x": v1.FixedLenFeature([1], tf.float32)})["x"]
        y, parsed_y = half * x + two, half * parsed + two
        labels = tf.fill(tf.shape(parsed_y), "half")
        return {
            "serving_default": signature({"x": x}, {"y": y}),
            "classify_x_to_y": signature({"inputs": examples}, {"scores": parsed_y}, "classify"),
            "classify_names": signature(
                {"inputs": examples}, {"classes": labels, "scores": parsed_y}, "classify"
            ),
            "regress_x_to_y": signature({"inputs": examples}, {"outputs": parsed_y}, "regress"),
            "bad_regress": signature({"inputs": examples}, {"outputs": labels}, "regress"),
            "no_outputs": signature({"inputs": examples}, {"y": parsed_y}, "regress"),
        }

    write(folder, build)


def every_type(folder):
    """A signature per type that returns its input; `all` takes them together."""

    def build(tf, signature):
        names = {"float": "float32", "double": "float64"}
        more = ("half", "bfloat16", "complex64", "complex128", "uint16")
        found, ins, outs = {}, {}, {}
        for name in (*TYPES, *more):
            dtype = tf.as_dtype(names.get(name, name))
            x = tf.compat.v1.placeholder(dtype, [None], name=f"in_{name}")
            found[name] = signature({"x": x}, {"y": tf.identity(x)})
            if name in TYPES:
                ins[name], outs[name] = x, tf.identity(x)
        return found | {"all": signature(ins, outs)}

    write(folder, build)


def several(folder):
    """Two inputs, outputs of one number of rows or another, strings and bytes, shapes that are checked."""

    def build(tf, signature):
        a = tf.compat.v1.placeholder(tf.float32, [None, 2], name="a")
        n = tf.compat.v1.placeholder(tf.int64, [None], name="n")
        s = tf.compat.v1.placeholder(tf.string, [None], name="s")
        total = tf.reduce_sum(a, 1)
        return {
            "serving_default": signature({"a": a, "n": n}, {"sum": total, "next": n + 1}),
            "scalar": signature({"a": a}, {"total": tf.reduce_sum(a)}),
            "uneven": signature({"a": a}, {"rows": total, "first": total[:1]}),
            "strings": signature({"s": s}, {"copy": tf.identity(s), "raw_bytes": tf.identity(s)}),
        }

    write(folder, build)


CONFIG = """model_config_list {
  config {
    name: "half" base_path: "/models/half" model_platform: "tensorflow"
    model_version_policy { all {} } version_labels { key: "old" value: 1 }
  }
  config { name: "types" base_path: "/models/types" model_platform: "tensorflow" }
  config { name: "several" base_path: "/models/several" model_platform: "tensorflow" }
}
"""


def write_all(folder):
    """Writes all models, and TensorFlow Serving's configuration of them: {(name, version): folder}."""
    folder = pathlib.Path(folder)
    found = {}
    for name, number, build in (
        ("half", 1, half_plus_two),
        ("half", 123, functools.partial(half_plus_two, add=3.0)),
        ("types", 1, every_type),
        ("several", 1, several),
    ):
        found[name, number] = folder / name / str(number)
        build(found[name, number])
    (folder / "models.config").write_text(CONFIG)
    return found


class Alone:
    """A loaded version that runs each request by itself."""

    def __init__(self, name, number, folder):
        self.name, self.number = name, number
        self.model = loaded.LoadedModel(folder)
        self.signatures, self.signature_defs = self.model.signatures, self.model.signature_defs

    async def run(self, signature, inputs, outputs):
        return self.model.run(signature, inputs, outputs)


class State:
    def __init__(self, number):
        self.number, self.state, self.error_code, self.error_message = number, "AVAILABLE", "OK", ""


class Fixed:
    """Versions that stay: {(name, number): folder}."""

    def __init__(self, folders, labels=()):
        self.versions = {key: Alone(*key, folder) for key, folder in folders.items()}
        self.labels = dict(labels)

    def names(self):
        return sorted({name for name, _ in self.versions})

    def statuses(self, name):
        return [State(number) for model, number in sorted(self.versions) if model == name]

    def reason(self, name):
        return ""

    def find(self, name, version=None, label=None):
        if label is not None:
            if label not in self.labels:
                raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        numbers = [number for model, number in self.versions if model == name]
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        if not numbers or version not in (None, *numbers):
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return self.versions[name, max(numbers) if version is None else version]


def wait(coroutine):
    return asyncio.run(coroutine)


def strings(*values):
    tensor = np.empty(len(values), object)
    tensor[:] = values
    return tensor


if __name__ == "__main__":
    write_all(sys.argv[1])
