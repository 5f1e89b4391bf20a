"""The time of `diagnose` over one forward and backward pass, on models that others wrote."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import report
from calibrate import PAIRS, RUNS, build, seconds

import keras_initx as initx
from keras_initx.gradients import value_and_gradients
from keras_initx.losses import choose_loss

TARGET = 1.6  # the aim of the project, on ResNet50, without the Jacobian
MODELS = ("ResNet50", "VGG16", "MobileNetV2", "GPT2, 12 layers")


def passes(model: Any, batch: Any, objective: Any) -> Callable[[], Any]:
    """Returns a function that runs a model forward and backward as in training, and waits for gradients."""
    variables = list(model.trainable_variables)
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)

    def loss(values: Any) -> Any:
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return objective(tensors, None, model(tensors, training=True))

    def run() -> Any:
        values = [keras.ops.convert_to_tensor(variable.value) for variable in variables]
        _, gradients = value_and_gradients(loss, values, nested=False)
        return [keras.ops.convert_to_numpy(gradient) for gradient in gradients[:1]]

    return run


def measure(name: str) -> list[str]:
    model, batch = build(name)
    rows = len(keras.tree.flatten(batch)[0])
    floats = all(np.issubdtype(leaf.dtype, np.floating) for leaf in keras.tree.flatten(batch))
    objective = choose_loss(model, None, None, "diagnose", needed=False, seed=0)
    calls: dict[str, Callable[[], Any]] = {
        "plain": passes(model, batch, objective),
        "diagnose": lambda: initx.diagnose(model, batch, samples=rows, seed=0),
    }
    if floats:
        calls["jacobian"] = lambda: initx.diagnose(model, batch, samples=rows, seed=0, jacobian=True)
    for call in calls.values():
        call()
    ratios: dict[str, list[float]] = {key: [] for key in calls}
    plain = []
    for _ in range(RUNS):
        # An estimated Jacobian takes minutes, so it is taken once in a run.
        groups = [{key: seconds(calls[key]) for key in ("plain", "diagnose")} for _ in range(PAIRS)]
        plain.append(statistics.median(group["plain"] for group in groups))
        ratios["diagnose"].append(statistics.median(group["diagnose"] / group["plain"] for group in groups))
    if floats:
        ratios["jacobian"].append(seconds(calls["jacobian"]) / statistics.median(plain))
    ratio = statistics.median(ratios["diagnose"])
    return [
        name,
        f"{statistics.median(plain) * 1e3:.0f} ms",
        f"{ratio:.2f} ({min(ratios['diagnose']):.2f} to {max(ratios['diagnose']):.2f})",
        *((f"{TARGET:.1f}", "met" if ratio <= TARGET else "missed") if name == "ResNet50" else ("-", "")),
        f"{ratios['jacobian'][0]:.1f}" if floats else "integers only",
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    backend = keras.backend.backend()
    report.write(
        f"signal_diagnose_{backend}",
        f"`diagnose` over one forward and backward pass, {backend}, eager, 64x64x3, batch 16",
        f"KERAS_BACKEND={backend} python benchmarks/signal_diagnose.py",
        ["model", "forward and backward", "diagnose", "aim", "", "with the Jacobian"],
        [measure(name) for name in MODELS],
        "Both run as in training and take the gradients of all weights. All ratios are to the plain "
        f"passes of the same group: medians over {PAIRS} interleaved groups, taken {RUNS} times. The "
        f"table has the median of the {RUNS} medians, and their range. The Jacobian of 1000 outputs "
        "by 12288 inputs was taken once.",
    )
