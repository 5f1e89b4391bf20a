"""The time of a training step with learning rates by variable, over the step of the plain optimizer."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import report

from keras_initx.optimizers import Multiplier, Multipliers, scale_rates

STEPS, PAIRS, LIMIT = 2, 11, 1.03


def resnet() -> tuple[Any, Any]:
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    return model, np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")


def gpt2() -> tuple[Any, Any]:
    import keras_hub

    sizes = {"vocabulary_size": 5000, "num_layers": 12, "num_heads": 4, "max_sequence_length": 64}
    model = keras_hub.models.GPT2Backbone(**sizes, hidden_dim=64, intermediate_dim=256)
    tokens = np.random.default_rng(0).integers(0, 5000, (8, 64)).astype("int32")
    return model, {"token_ids": tokens, "padding_mask": np.ones((8, 64), "int32")}


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {"ResNet-50": resnet, "GPT-2, 12 layers of width 64": gpt2}


def factors(model: Any) -> Multipliers:
    """Factors as muP has them: one for kernels, another for the rest, and one of epsilon."""
    rates = {id(v): 0.25 if len(v.shape) > 1 else 1.0 for v in model.weights}
    rows = {key: Multiplier(learning_rate=rate, epsilon=0.25) for key, rate in rates.items()}
    return Multipliers.of(model.weights, rows)


def trainer(build: Callable[[], tuple[Any, Any]], scaled: bool) -> Callable[[], tuple[float, float]]:
    """Returns a function that takes some training steps, and returns their CPU seconds and seconds."""
    model, batch = build()
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer = scale_rates(optimizer, factors(model)) if scaled else optimizer
    compiled = keras.backend.backend() != "torch"  # there Keras trains eagerly unless asked
    model.compile(optimizer, "mse", jit_compile=compiled)
    target = np.zeros(model.compute_output_shape(keras.tree.map_structure(np.shape, batch)), "float32")

    def run() -> tuple[float, float]:
        started = time.process_time(), time.perf_counter()
        for _ in range(STEPS):
            model.train_on_batch(batch, target)
        return time.process_time() - started[0], time.perf_counter() - started[1]

    run()
    return run


def measure(name: str) -> list[str]:
    plain, ours = (trainer(MODELS[name], scaled) for scaled in (False, True))
    # Each pair in the other order, so that what comes first costs neither.
    pairs = [(plain(), ours()) if n % 2 else (ours(), plain())[::-1] for n in range(PAIRS)]
    cpu, wall = ([other[kind] / one[kind] for one, other in pairs] for kind in (0, 1))
    quarters = statistics.quantiles(cpu)
    ratio = statistics.median(cpu)
    return [
        name,
        f"{1e3 * statistics.median(one[1] for one, _ in pairs) / STEPS:.0f} ms",
        f"{ratio:.3f} ({quarters[0]:.3f} to {quarters[2]:.3f})",
        f"{statistics.median(wall):.3f}",
        "met" if ratio <= LIMIT else "missed",
    ]


if __name__ == "__main__":
    backend = keras.backend.backend()
    report.write(
        f"rates_{backend}",
        f"A training step with rates by variable over the plain step, AdamW, {backend}, float32",
        f"KERAS_BACKEND={backend} python benchmarks/rates.py",
        ["model", "plain step", "ours over plain, CPU time", "wall time", f"limit {LIMIT}"],
        [measure(name) for name in sys.argv[1:] or MODELS],
        f"Medians of the ratios within {PAIRS} interleaved pairs of {STEPS} steps, and their quartiles. On "
        "TensorFlow and JAX with jit_compile=True, on PyTorch as Keras trains by default. Both models of a "
        "pair are built alike. CPU time, since other programs shared the machine.",
    )
