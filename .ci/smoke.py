"""What an installed wheel must do; run by `make smoke` where nothing else is installed."""

import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import keras_initx as initx

assert "site-packages" in initx.__file__, initx.__file__
assert (pathlib.Path(initx.__file__).parent / "py.typed").exists()

model = keras.Sequential(
    [
        keras.layers.Input((8,), name="features"),
        keras.layers.Dense(16, "relu", kernel_initializer="initx>HeScaled"),
        keras.layers.Dense(3, kernel_initializer="initx>LSUV"),
    ]
)
model.compile(keras.optimizers.SGD(0.01), "mse")
inputs = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
with tempfile.TemporaryDirectory() as folder:
    report = initx.calibrate(model, inputs, "initx>LSUV")
    assert max(abs(std - 1) for std in initx.probe.preactivation_std(model, inputs).values()) < 1e-3
    model.fit(inputs, inputs[:, :3], verbose=0, callbacks=[initx.callbacks.WeightHistograms(f"{folder}/run")])
    exported = initx.export(model, f"{folder}/model")
    model.save(f"{folder}/model.keras")
    assert keras.models.load_model(f"{folder}/model.keras").layers[1].kernel_initializer.target_std == 1
    command = str(pathlib.Path(sys.executable).with_name("initx"))
    told = {
        words: subprocess.run([command, *words], check=True, capture_output=True, text=True).stdout
        for words in (
            ("--help",),
            ("--print-completion", "bash"),
            ("list", "--json"),
            ("inspect", f"{folder}/model", "--json"),
        )
    }
    assert len(json.loads(told["list", "--json"])) > len(initx.initializers.names())
    inspected = json.loads(told["inspect", f"{folder}/model", "--json"])["versions"]
    assert [version["version"] for version in inspected] == [exported.version]
    print(report)
    print(f"keras_initx {initx.__version__} works: {exported.version}, {exported.signatures}")
