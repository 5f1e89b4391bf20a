"""Time of `calibrate`, and of its parts, over one plain forward pass, on models that others wrote.

`calibrate_depth.py` measures time and memory by depth, and `calibrate_lsuv.py` measures the `lsuv` of torch.
With `--gpu`, under JAX or torch, the model is ResNet50 at 224x224, batch 256, on the GPU that the backend
finds.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import report

import keras_initx as initx
from keras_initx import probe, walk

# The aims of the project, in units of one plain eager forward pass.
TARGETS = {"ResNet50": 1.15, "VGG16": 1.15, "MobileNetV2": 1.35, "GPT2, 12 layers": 1.35}
GPT2 = {"vocabulary_size": 1000, "num_layers": 12, "num_heads": 4, "hidden_dim": 64, "intermediate_dim": 256}
GPU = "--gpu" in sys.argv
SIZE, ROWS = (224, 256) if GPU else (64, 16)
PAIRS = 7
RUNS = 5


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def finished(model: Any, result: Any) -> Any:
    """Waits until JAX has finished, because its operations return before they are done."""
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready([variable.value for variable in model.weights])
    return result


def with_moments(_: walk.KernelSite, output: Any) -> Any:
    probe.mean_and_variance(output)
    return output


def with_rescaled_output(_: walk.KernelSite, output: Any) -> Any:
    probe.mean_and_variance(output)
    return output * 1.0001


def device() -> str:
    """Returns the name of the GPU. Raises an error if the backend finds none."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices("gpu")[0].device_kind
    import torch

    return torch.cuda.get_device_name()


def build(name: str) -> tuple[Any, Any]:
    """Returns a model with random weights and one batch of NumPy arrays."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    if name.startswith("GPT2"):
        import keras_hub

        tokens = rng.integers(0, GPT2["vocabulary_size"], (16, 64)).astype("int32")
        model = keras_hub.models.GPT2Backbone(**GPT2, max_sequence_length=64)
        return model, {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIZE, SIZE, 3))
    return model, rng.standard_normal((ROWS, SIZE, SIZE, 3)).astype("float32")


def measure(name: str) -> list[str]:
    model, images = build(name)
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, images)
    sites = [site for site in walk.iter_kernels(model) if not site.obstacle]

    def forward(observed: list[walk.KernelSite], observe: Any) -> Any:
        return keras.ops.convert_to_numpy(probe.run(model, batch, observed, observe))

    calls: dict[str, Callable[[], Any]] = {
        "plain": lambda: forward([], None),
        "moments": lambda: forward(sites, with_moments),
        "outputs": lambda: forward(sites, with_rescaled_output),
        "calibrate": lambda: finished(model, initx.calibrate(model, images, "initx>LSUV", samples=ROWS)),
    }
    rows = calls["calibrate"]().rows
    stds = probe.preactivation_std(model, batch)
    worst = max(abs(stds[row.path] - 1) for row in rows if row.iterations)

    for call in calls.values():
        call()
    ratios: dict[str, list[float]] = {key: [] for key in calls}
    plain = []
    for _ in range(RUNS):
        groups = [{key: seconds(call) for key, call in calls.items()} for _ in range(PAIRS)]
        plain.append(statistics.median(group["plain"] for group in groups))
        for key in calls:
            ratios[key].append(statistics.median(group[key] / group["plain"] for group in groups))
    parts = [f"{statistics.median(ratios[key]):.2f}" for key in ("moments", "outputs")]
    ratio = statistics.median(ratios["calibrate"])
    return [
        name,
        f"{statistics.median(plain) * 1e3:.0f} ms",
        *parts,
        f"{ratio:.2f} ({min(ratios['calibrate']):.2f} to {max(ratios['calibrate']):.2f})",
        f"{TARGETS[name]:.2f}",
        "met" if ratio <= TARGETS[name] else "missed",
        f"{worst:.0e}",
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    backend = keras.backend.backend()
    report.write(
        f"calibrate_{backend}{'_gpu' * GPU}",
        f"`calibrate` over one plain forward pass, {backend}, eager, {SIZE}x{SIZE}x3, batch {ROWS}",
        f"KERAS_BACKEND={backend} python benchmarks/calibrate.py{' --gpu' * GPU}",
        ["model", "plain pass", "+ moments", "+ outputs", "calibrate", "aim", "", "worst abs(std - 1)"],
        [measure(name) for name in (["ResNet50"] if GPU else TARGETS)],
        f"All ratios are to a plain pass of the same group: medians over {PAIRS} interleaved groups, "
        f"taken {RUNS} times. The table has the median of the {RUNS} medians, and for `calibrate` "
        "also their range. The columns add up. `moments` is a pass that also takes the mean and "
        "variance of each layer. `outputs` also rescales each output. `calibrate` also rescales "
        "kernels and biases. The last column is a second, independent probe of the same batch. A "
        "plain pass builds no gradients on any backend. GPT2 is keras_hub's backbone with 12 layers "
        "of width 64, on 16 sequences of 64 tokens.",
        device() if GPU else "no GPU used",
    )
