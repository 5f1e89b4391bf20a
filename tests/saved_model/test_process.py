"""What is exported runs in a process that knows nothing of the one that exports."""

import os
import signal
import subprocess

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _export, _foreign, _process
from support import forked
from support.row_wise_models import Function, of

pytestmark = pytest.mark.tensorflow


def doubled(kind):
    import tensorflow as tf

    def double(x):
        if kind == "keras.ops":
            return keras.ops.multiply(x, 2)
        result = getattr(tf, kind)(lambda a: a * 2, [x], tf.float32)
        result.set_shape(x.shape)
        return result

    return double


@pytest.mark.parametrize(
    ("kind", "op"),
    [("numpy_function", "PyFunc"), ("py_function", "EagerPyFunc"), ("keras.ops", None)],
)
def test_python_in_a_layer_is_refused_by_name_and_its_cure_works(tmp_path, kind, op):
    model = of(Function(doubled(kind), name="twice"))
    if op is None:
        assert initx.export(model, tmp_path).difference == 0
        return
    with pytest.raises(
        ValueError,
        match=rf"the layer `twice` \(Function\), .*the operation {op}, .* Write it with keras.ops",
    ):
        initx.export(model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_found_wherever_the_process_was_started(tmp_path, monkeypatch):
    model = of(layers.Dense(2))
    initx.export(model, tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    assert initx.export(model, "second").version == 1


def test_python_in_a_signature_or_a_loop_is_refused(tmp_path):
    import tensorflow as tf

    def loop(x):
        step = doubled("numpy_function")
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (step(y),), (x,))[0]

    for function in (doubled("numpy_function"), loop):
        with pytest.raises(ValueError, match="the signature `other`, which runs Python code"):
            initx.export(of(layers.Dense(2)), tmp_path / "new", signatures={"other": function})
    assert list(tmp_path.iterdir()) == []


def test_what_only_this_process_can_run_fails_the_check(tmp_path, monkeypatch):
    """The check itself finds it, too, by running it."""
    monkeypatch.setattr(_export, "refuse_python", lambda *_: None)
    with pytest.raises(
        ValueError,
        match="in another process. .*: InvalidArgumentError: .* Could not find callback with key=pyf",
    ):
        initx.export(of(doubled("numpy_function")), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_tensorflow_does_not_have_is_named_with_its_layer(tmp_path, monkeypatch):
    from tensorflow.core.protobuf import saved_model_pb2

    # As if a library had added the operation to this process.
    original, operations = _export.write, _foreign._operations
    renamed = {"Selu": "Selu6"}

    def write(model, endpoints, folder):
        names = original(model, endpoints, folder)
        file = folder / "saved_model.pb"
        message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        for function in message.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                node.op = renamed.get(node.op, node.op)
        file.write_bytes(message.SerializeToString())
        return names

    monkeypatch.setattr(_export, "write", write)
    monkeypatch.setattr(
        _foreign, "_operations", lambda one: [(renamed.get(op, op), name) for op, name in operations(one)]
    )
    with pytest.raises(
        ValueError, match=r"the layer `act` \(Activation\) needs the operation Selu6, .* keras.ops"
    ):
        initx.export(of(layers.Activation("selu", name="act")), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_one_process_serves_many_exports_and_is_replaced_when_it_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(_process, "subprocess", subprocess)  # as users have it
    model = of(layers.Dense(2))
    initx.export(model, tmp_path)
    first = _process._running[os.getpid()]
    initx.export(model, tmp_path)
    assert _process._running[os.getpid()] is first
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert initx.export(model, tmp_path).version == 3


def test_a_process_that_dies_at_work_is_told(tmp_path, monkeypatch):
    def dies(model, endpoints, folder):
        names = original(model, endpoints, folder)
        os.kill(_process._running[os.getpid()].pid, signal.SIGSTOP)
        os.kill(_process._running[os.getpid()].pid, signal.SIGKILL)
        monkeypatch.setattr(_process.subprocess.Popen, "poll", lambda self: None)  # it goes as it is asked
        return names

    original = _export.write
    initx.export(of(layers.Dense(2)), tmp_path)
    monkeypatch.setattr(_export, "write", dies)
    with pytest.raises(ValueError, match="in another process. .* ended with code -9"):
        initx.export(of(layers.Dense(2)), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_it_has_neither_keras_nor_this_package(tmp_path):
    """Its modules are those of TensorFlow; what it prints is no answer."""
    code = "import sys, tensorflow; print(sorted({m.split('.')[0] for m in sys.modules if sys.modules[m]}))"
    script = f"""
import sys
sys.path[:0] = [{str(_process._worker.__file__).rpartition("/")[0]!r}]
import _worker
_worker._Worker.answer = lambda self, job: exec({code!r}) or {{"keras": str(sys.modules["keras"])}}
_worker.main()
"""
    found = forked.run(["-c", script], input='{"folder": ""}\n', preload="tensorflow", check=True)
    assert found.stdout == '{"keras": "None"}\n'
    assert "'keras'" not in found.stderr
    assert "'keras_initx'" not in found.stderr
    assert np.all([name in found.stderr for name in ("'tensorflow'", "'numpy'")])
