import importlib.util
import io
import pathlib
import signal

import fsspec
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from keras_initx.summaries import EventWriter, buckets, check_log_dir, last_step
from keras_initx.summaries import _writer as writer_module
from support import forked

TAG = "custom_scalars__config__"


def events(path):
    return list(EventFileLoader(str(path)).Load())


def values(path):
    """What was written: {(tag, step): array}."""
    return {
        (value.tag, event.step): tensor_util.make_ndarray(value.tensor)
        for event in events(path)
        for value in event.summary.value
    }


def test_what_is_written_is_read_back(tmp_path):
    with EventWriter(tmp_path / "new" / "folder") as writer:
        writer.histogram("weights/kernel", np.arange(60.0), 0)
        writer.histogram("weights/kernel", np.arange(60.0) * 2, 1)
        writer.scalar("loss", 0.25, 3)
    read = values(writer.path)
    np.testing.assert_array_equal(read["weights/kernel", 0], buckets(np.arange(60.0))[0])
    assert read["weights/kernel", 1][-1, 1] == 118
    assert read["loss", 3].shape == ()
    assert read["loss", 3] == 0.25


def test_plugins_are_named_so_that_the_dashboards_find_the_series(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.histogram("h", [1.0, 2.0], 0)
        writer.scalar("s", 1.0, 0)
        writer.image("i", np.zeros((2, 2), "uint8"), 0)
        writer.layout({})
    plugins = {
        value.tag: value.metadata.plugin_data.plugin_name
        for event in events(writer.path)
        for value in event.summary.value
    }
    assert plugins == {"h": "histograms", "s": "scalars", "i": "images", TAG: "custom_scalars"}


def test_nonfinite_values_are_left_out_and_counted(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.histogram("w", [0.0, 1.0, np.nan, np.inf], 2)
    read = values(writer.path)
    assert read["w", 2][:, 2].sum() == 2
    assert read["nonfinite_fraction/w", 2] == 0.5


def test_each_write_reaches_the_file_at_once(tmp_path):
    writer = EventWriter(tmp_path)
    for step in range(3):
        writer.scalar("s", step, step)
        assert len(values(writer.path)) == step + 1
    writer.close()


def test_files_of_one_folder_never_collide(tmp_path):
    writers = [EventWriter(tmp_path) for _ in range(5)]
    for writer in writers:
        writer.close()
    assert len({writer.path for writer in writers}) == 5


def test_a_restart_drops_what_the_interrupted_run_wrote_from_that_step_on(tmp_path):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    with EventWriter(tmp_path) as writer:
        for step in range(5):
            writer.scalar("s", step, step)
    with EventWriter(tmp_path, first_step=2) as writer:
        for step in (2, 3):
            writer.scalar("s", 10 + step, step)
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    read = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors("s")}
    assert read == {0: 0, 1: 1, 2: 12, 3: 13}


@pytest.mark.tensorflow  # not for its backend, but to start these processes in one suite of the three
def test_a_killed_run_keeps_what_it_wrote(tmp_path):
    code = (
        "import os, signal; from keras_initx.summaries import EventWriter\n"
        "writer = EventWriter(__import__('sys').argv[1])\n"
        "for step in range(5): writer.histogram('h', [1.0, 2.0], step)\n"
        "writer.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for number, folder in enumerate((str(tmp_path / "local"), f"file://{tmp_path}/remote")):
        killed = forked.run(["-c", code, folder])
        assert killed.returncode == -signal.SIGKILL
        (path,) = (tmp_path / ("local", "remote")[number]).iterdir()
        assert [step for _, step in values(path)] == [0, 1, 2, 3, 4]
        assert last_step(folder) == 4


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 2), (3, 5, 3), (3, 5, 4)])
def test_an_image_is_a_png_with_its_size_before_it(tmp_path, rng, shape):
    pixels = rng.integers(0, 256, shape).astype("uint8")
    with EventWriter(tmp_path) as writer:
        writer.image("i", pixels, 0)
        png = bytes(values(writer.path)["i", 0][2])
        writer.image("again", png, 1)
    width, height, stored = values(writer.path)["again", 1]
    assert (width, height, stored) == (b"5", b"3", png)
    read = np.asarray(PIL.Image.open(io.BytesIO(png)))
    np.testing.assert_array_equal(read.reshape(shape), pixels)


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (b"GIF89a", "Received: bytes that begin with b'GIF89a'"),
        (np.zeros((2, 2)), "Received: float64 of shape"),
        (np.zeros((2, 2, 5), "uint8"), r"Received: uint8 of shape \(2, 2, 5\)"),
        (np.zeros((0, 2), "uint8"), "with 1 to 4 channels"),
        ("signal.png", "Received: str of shape None"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, image, received):
    with EventWriter(tmp_path) as writer, pytest.raises(ValueError, match=f"`image` must be .*{received}"):
        writer.image("i", image, 0)
    assert values(writer.path) == {}


def test_a_layout_names_charts_and_the_tags_that_they_draw(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.layout({"forward": {"gain": ["gain/.*", "mean"], "dead": ["dead/.*"]}, "backward": {}})
    layout = layout_pb2.Layout.FromString(values(writer.path)[TAG, 0].item())
    assert [category.title for category in layout.category] == ["forward", "backward"]
    assert [(c.title, list(c.multiline.tag)) for c in layout.category[0].chart] == [
        ("gain", ["gain/.*", "mean"]),
        ("dead", ["dead/.*"]),
    ]


def test_a_remote_folder_gets_the_file_at_each_flush(tmp_path):
    with EventWriter("memory://bucket/run") as writer:
        writer.scalar("s", 1.0, 0)
        writer.flush()
        for step in (1, 2):
            (tmp_path / "tfevents").write_bytes(fsspec.open(writer.path).fs.cat(writer.path))
            assert len(values(tmp_path / "tfevents")) == step
            writer.scalar("s", 1.0, step)
            writer.flush()
    assert last_step("memory://bucket/run") == 2


def test_a_long_remote_run_is_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PART", 1000)
    with EventWriter(f"file://{tmp_path}/run") as writer:
        for step in range(4):
            writer.histogram("h", np.arange(60.0), step)
            writer.flush()
    paths = sorted((tmp_path / "run").iterdir())
    steps = [step for path in paths for _, step in values(path)]
    assert steps == [0, 1, 2, 3]
    assert 1 < len(paths) <= 5
    assert last_step(f"file://{tmp_path}/run") == 3


def test_the_last_step_is_what_tensorboard_would_show(tmp_path):
    assert last_step(str(tmp_path)) is None
    for first, steps in ((0, range(5)), (2, (2, 3))):
        with EventWriter(tmp_path, first_step=first) as writer:
            for step in steps:
                writer.scalar("s", step, step)
    assert last_step(str(tmp_path)) == 3
    whole = pathlib.Path(writer.path).read_bytes()
    pathlib.Path(writer.path).write_bytes(whole[:-5])  # as a kill may leave it
    assert last_step(str(tmp_path)) == 2


@pytest.mark.parametrize("wrong", ["nosuch://bucket/run", "oci://bucket/run"])
def test_a_url_that_nothing_installed_can_write_to_is_refused(wrong):
    with pytest.raises(ValueError, match=f"`log_dir` must be .*Received: log_dir='{wrong}'.* Install fsspec"):
        check_log_dir(wrong)
    with pytest.raises(TypeError, match="`log_dir` must be a path. Received: log_dir=3"):
        EventWriter(3)


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_under_jax_writer_and_callback_import_no_tensorflow(tmp_path):
    """Keras itself imports TensorFlow under its own backend."""
    code = f"""
import sys
import keras, numpy as np
from keras_initx.callbacks import WeightHistograms
from keras_initx.summaries import EventWriter
with EventWriter({str(tmp_path)!r}) as writer:
    writer.histogram('h', [1.0, 2.0], 0)
    writer.scalar('s', 1.0, 0)
    writer.image('i', np.zeros((2, 2), 'uint8'), 0)
    writer.layout({{'a': {{'b': ['c']}}}})
assert 'tensorflow' not in sys.modules
# fit converts its data by a look for tf.data, which imports what is installed.
sys.modules['tensorflow'] = None
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
model.compile('sgd', 'mse')
x, y = np.ones((4, 2)), np.ones((4, 1))
every = dict(gradients=True, activations=True, update_ratio=True, data=(x, y))
model.fit(x, y, verbose=0, callbacks=[WeightHistograms({str(tmp_path)!r}, **every)])
assert not any(name.startswith('tensorflow.') for name in sys.modules)
"""
    forked.run(["-c", code], env=forked.backend("jax"), check=True)
