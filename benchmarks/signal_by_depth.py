"""Second moment of the pre-activations by depth, of plain nets under by_role, and after calibrate."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
from typing import Any

import keras
import numpy as np
import report
from keras import layers, ops

import keras_initx as initx

WIDTH, DEPTHS, SEEDS = 512, (10, 25, 50), 10
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "elu", "selu", "gelu", "silu", "mish")
INITIALIZERS: dict[str, Any] = {"by_role": "by_role", "Keras' default": "glorot_uniform"}


def net(activation: str) -> Any:
    """A stack of dense layers whose outputs are the pre-activations at each of DEPTHS."""
    x = inputs = layers.Input((WIDTH,))
    outputs = []
    for depth in range(1, DEPTHS[-1] + 1):
        z = layers.Dense(WIDTH)(x)
        if depth in DEPTHS:
            outputs.append(z)
        x = layers.Activation(activation)(z)
    return keras.Model(inputs, outputs)


def moments(model: Any, data: Any) -> list[float]:
    return [float(ops.mean(ops.square(z))) for z in model(data)]


def measure(activation: str) -> list[list[str]]:
    model = net(activation)
    data = [np.random.default_rng(s).standard_normal((64, WIDTH)).astype("float32") for s in range(SEEDS)]
    found: dict[str, list[list[float]]] = {name: [] for name in [*INITIALIZERS, "by_role, then calibrate"]}
    for seed in range(SEEDS):
        for name, initializer in INITIALIZERS.items():
            initx.initialize(model, initializer, seed=seed)
            found[name].append(moments(model, data[seed]))
        initx.initialize(model, "by_role", seed=seed)
        initx.calibrate(model, data[seed - 1], "initx>LSUV")
        found["by_role, then calibrate"].append(moments(model, data[seed]))
    return [
        [activation, name, *(f"{statistics.mean(column):.3g}" for column in zip(*values, strict=True))]
        for name, values in found.items()
    ]


if __name__ == "__main__":
    report.write(
        f"signal_by_depth_{keras.backend.backend()}",
        "Second moment of pre-activations by depth",
        f"KERAS_BACKEND={keras.backend.backend()} python benchmarks/signal_by_depth.py",
        ["activation", "initializer", *(f"layer {depth}" for depth in DEPTHS)],
        [row for activation in ACTIVATIONS for row in measure(activation)],
        f"Mean over {SEEDS} seeds; dense layers of width {WIDTH}, biases 0, Gaussian input. "
        "Calibrated on another batch than the one measured.",
    )
