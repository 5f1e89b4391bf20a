"""What tests of serving share: small SavedModels, written by TensorFlow 1's builder, and their `Models`."""

import asyncio
import pathlib
import threading

import numpy as np

from keras_initx.serving import Models


def save(folder, version, build):
    """Writes `folder/version` and returns it.

    `build`, called in a graph, returns `{signature: (inputs, outputs)}` or `{signature: (inputs, outputs,
    method)}`, where inputs and outputs are `{name: tensor}` and the method is `"predict"`, `"classify"` or
    `"regress"`.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    path = pathlib.Path(folder) / str(version)
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = {}
        for key, (inputs, outputs, *method) in build().items():
            signatures[key] = v1.saved_model.build_signature_def(
                {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in inputs.items()},
                {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in outputs.items()},
                f"tensorflow/serving/{method[0] if method else 'predict'}",
            )
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path


def half_plus_two(folder, version, add=2.0):
    """`y = x / 2 + add` over `x` of shape [None], and the same of the feature `x` of serialized examples.

    Signatures: `serving_default` (x to y), `regress` (inputs to outputs, [None, 1]) and `classify` (inputs to
    scores, [None, 1]).
    """
    import tensorflow as tf

    def build():
        v1 = tf.compat.v1
        half = v1.get_variable("half", initializer=np.float32(0.5), use_resource=False)
        offset = v1.get_variable("offset", initializer=np.float32(add), use_resource=False)
        x = v1.placeholder(tf.float32, [None], "x")
        examples = v1.placeholder(tf.string, [None], "examples")
        feature = tf.io.FixedLenFeature([1], tf.float32, [0.0])
        parsed = tf.io.parse_example(examples, {"x": feature})["x"] * half + offset
        return {
            "serving_default": ({"x": x}, {"y": tf.add(x * half, offset, "y")}),
            "regress": ({"inputs": examples}, {"outputs": parsed}, "regress"),
            "classify": ({"inputs": examples}, {"scores": parsed}, "classify"),
        }

    return save(folder, version, build)


def example(**features):
    """A serialized tf.train.Example of float features."""
    import tensorflow as tf

    message = tf.train.Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return message.SerializeToString()


def warm_up_file(path, *records):
    """Writes serialized records as the warm-up requests of the version folder `path`."""
    import tensorflow as tf

    extra = pathlib.Path(path) / "assets.extra"
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)


def serve(scenario, configs, **kwargs):
    """Runs `scenario(models)` in a loop between start and stop, without the clock: it polls itself."""

    async def main():
        models = Models(configs, **{"poll_seconds": 0, "quiet_seconds": 0, **kwargs})
        assert not models.ready
        await models.start()
        try:
            return await scenario(models)
        finally:
            await models.stop()
            assert not models.ready
            assert not [thread for thread in threading.enumerate() if thread.name == "initx-run"]

    return asyncio.run(main())


async def ask(models, value=0.0, name="half", **which):
    found = models.find(name, **which)
    answer = await found.run(found.signatures["serving_default"], {"x": np.float32([value])}, ["y"])
    return answer["y"].tolist()[0]


async def unloaded(models, name="half"):
    """Waits until nothing is being unloaded, then tells `{version: state}`."""
    model = models._models[name]
    while model._closing:
        await asyncio.gather(*model._closing)
    return states(models, name)


def states(models, name="half"):
    return {status.number: status.state for status in models.statuses(name)}


def corrupt(folder):
    (folder / "saved_model.pb").write_bytes(b"\x0aabc")
