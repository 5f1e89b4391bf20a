import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.util import tensor_util

from keras_initx.summaries import EventWriter, buckets

FLOATS = st.floats(-1e30, 1e30, allow_nan=False)


def events(path):
    return list(EventFileLoader(str(path)).Load())


def values(path):
    """What was written: {(tag, step): array}."""
    return {
        (value.tag, event.step): tensor_util.make_ndarray(value.tensor)
        for event in events(path)
        for value in event.summary.value
    }


@settings(max_examples=200, deadline=None)
@given(hnp.arrays("float64", hnp.array_shapes(max_dims=3, max_side=20), elements=FLOATS))
def test_buckets_are_those_of_tensorboards_own_summary(array):
    # Where a thirtieth of the range underflows, theirs divides by zero.
    assume(array.size == 0 or np.ptp(array) == 0 or np.ptp(array) > 1e-300)
    theirs = tensor_util.make_ndarray(histogram_pb("tag", array).value[0].tensor)
    table, nonfinite = buckets(array)
    assert nonfinite == 0
    np.testing.assert_array_equal(table, theirs)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays("float32", st.integers(0, 60), elements=st.floats(width=32)), st.integers(1, 40))
def test_buckets_count_every_finite_value_once(array, bins):
    table, nonfinite = buckets(array, bins)
    finite = np.isfinite(array)
    assert table.shape == (bins, 3)
    assert table[:, 2].sum() == finite.sum()
    assert nonfinite == pytest.approx(1 - finite.mean() if array.size else 0)
    assert np.isfinite(table).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_dtypes(dtype):
    table, _ = buckets(np.array([0, 1, 1, 1], dtype), bins=2)
    np.testing.assert_array_equal(table, [[0, 0.5, 1], [0.5, 1, 3]])


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
    plugins = {
        value.tag: value.metadata.plugin_data.plugin_name
        for event in events(writer.path)
        for value in event.summary.value
    }
    assert plugins == {"h": "histograms", "s": "scalars"}


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


def test_the_writer_imports_no_tensorflow(tmp_path):
    code = (
        "import sys; from keras_initx.summaries import EventWriter\n"
        f"with EventWriter({str(tmp_path)!r}) as w: w.histogram('h', [1.0, 2.0], 0); w.scalar('s', 1.0, 0)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    environment = {"KERAS_BACKEND": "jax"} if _has_jax() else {}
    if not environment:
        pytest.skip("JAX is not installed, and Keras itself imports TensorFlow under its own backend")
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment() | environment)


def _has_jax():
    import importlib.util

    return importlib.util.find_spec("jax") is not None


def _environment():
    import os

    return dict(os.environ)
