"""The promised names, and what importing the package costs and needs."""

import importlib.util
import inspect
import os
import subprocess
import sys

import pytest

import keras_initx as initx


def python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_promised_names():
    assert callable(initx.calibrate)
    assert callable(initx.diagnose)
    assert callable(initx.export)
    assert callable(initx.serve)
    assert callable(initx.initializers.names)
    assert callable(initx.fans.compute_fans)
    assert initx.callbacks.WeightHistograms
    assert initx.__version__.count(".") == 2
    assert all(hasattr(initx, name) for name in initx.__all__)


@pytest.mark.parametrize(
    "room",
    [
        "initializers",
        "fans",
        "gains",
        "gradients",
        "callbacks",
        "calibration",
        "cli",
        "data",
        "diagnostics",
        "experiments",
        "plots",
        "probe",
        "recurrence",
        "saved_model",
        "serving",
        "state",
        "summaries",
        "walk",
    ],
)
def test_every_public_object_is_documented_and_annotated(room):
    module = importlib.import_module(f"keras_initx.{room}")
    assert module.__doc__
    for name in module.__all__:
        thing = getattr(module, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert inspect.signature(thing).return_annotation is not inspect.Signature.empty, name


def test_errors_and_docstrings_give_the_reference_of_each_scheme():
    for name in initx.initializers.names():
        cls = getattr(initx.initializers, name.removeprefix("initx>"))
        parts = ["Law:", ">>>", "Raises:", "Reference:", *(["Args:"] if cls().get_config() else [])]
        assert [part for part in parts if part not in cls.__doc__] == [], name


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
def test_import_loads_nothing_heavy():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_initx\n"
        "heavy = {'ray', 'matplotlib', 'tensorflow_serving', 'grpc', 'sklearn', 'tensorflow_datasets'}\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & heavy, new & heavy"
    )
    python(code)


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_import_and_calibrate_under_jax_where_tensorflow_cannot_be_imported():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import keras, keras_initx as initx\n"
        "model = keras.Sequential([keras.layers.Input((4,))])\n"
        "model.add(keras.layers.Dense(3, kernel_initializer='initx>LSUV'))\n"
        "assert abs(initx.calibrate(model, None).rows[0].std_after - 1) < 1e-3\n"
        "assert not any(name.startswith('tensorflow.') for name in sys.modules)"
    )
    python(code, KERAS_BACKEND="jax")
