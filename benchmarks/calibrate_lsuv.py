"""`calibrate` and the `lsuv` of torch, on the same two architectures and batch, each after its own draw."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time

import keras
import lsuv
import numpy as np
import report
import torch
from torch import nn

import keras_initx as initx
from keras_initx import probe

# The aims of the project, in times faster: in units of each framework's forward pass, and in seconds.
TARGETS = {"ResNet50": (60, 20), "VGG16": (20, 20)}
RUNS = 3


class Bottleneck(nn.Module):
    """A block of ResNet50, with the stride in the first convolution, as in keras.applications."""

    def __init__(self, before: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        sizes = [(before, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1)]
        parts = [part for a, b, k, s in sizes for part in (*conv(a, b, k, s), nn.ReLU())]
        self.branch = nn.Sequential(*parts[:-1])
        self.skip = nn.Sequential(*conv(before, 4 * width, 1, stride)) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.skip(x))


def conv(before: int, after: int, size: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, size, stride, padding=size // 2), nn.BatchNorm2d(after)]


def resnet50() -> nn.Module:
    parts: list[nn.Module] = [*conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            parts.append(Bottleneck(before, width, stride if number == 0 else 1, number == 0))
            before = 4 * width
    return nn.Sequential(
        *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000), nn.Softmax(1)
    )


def vgg16() -> nn.Module:
    parts: list[nn.Module] = []
    before = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            parts += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        parts.append(nn.MaxPool2d(2))
    parts += [nn.Flatten(), nn.Linear(2048, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(4096, 1000), nn.Softmax(1))


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def time_lsuv(name: str, images: np.ndarray) -> tuple[float, float, int, int]:
    """Returns the median seconds of a pass and of `lsuv` after its draw, its passes, and the parameters."""
    model = {"ResNet50": resnet50, "VGG16": vgg16}[name]().eval()
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    options = {"do_orthonorm": False, "verbose": False}

    def forward() -> None:
        with torch.inference_mode():
            model(batch)

    found = []
    for _ in range(RUNS):
        with torch.no_grad():
            model.apply(lsuv.lsuvinit.orthogonal_weights_init)
        forward()
        one = statistics.median(timed(forward) for _ in range(5))
        passes.clear()
        found.append((one, timed(lambda: lsuv.lsuv_with_singlebatch(model, batch, **options))))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return *(statistics.median(column) for column in zip(*found, strict=True)), len(passes), parameters


def time_calibrate(name: str, images: np.ndarray) -> tuple[float, float, int]:
    """Returns the median seconds of a plain pass and of `calibrate` after its draw, and the parameters."""
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(weights=None, input_shape=images.shape[1:])
    batch = keras.ops.convert_to_tensor(images)

    def forward() -> None:
        keras.ops.convert_to_numpy(probe.run(model, batch, [], lambda _, output: output))

    def calibrate() -> None:
        initx.calibrate(model, images, "initx>LSUV")
        keras.ops.convert_to_numpy(model.weights[-1].value)

    initx.calibrate(model, images, "initx>LSUV", redraw=True, seed=1)
    pairs = [(timed(forward), timed(calibrate)) for _ in range(7)]
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    return *(statistics.median(column) for column in zip(*pairs, strict=True)), parameters


def measure(name: str) -> list[str]:
    images = np.random.default_rng(1).standard_normal((16, 64, 64, 3)).astype("float32")
    theirs, their_seconds, passes, their_count = time_lsuv(name, images)
    ours, our_seconds, our_count = time_calibrate(name, images)
    assert their_count == our_count, (their_count, our_count)
    in_passes = (their_seconds / theirs) / (our_seconds / ours)
    in_seconds = their_seconds / our_seconds
    aims = TARGETS[name]
    return [
        name,
        f"{theirs * 1e3:.0f} ms",
        f"{their_seconds:.1f} s",
        str(passes),
        f"{ours * 1e3:.0f} ms",
        f"{our_seconds:.2f} s",
        f"{in_passes:.1f} (aim {aims[0]}: {'met' if in_passes >= aims[0] else 'missed'})",
        f"{in_seconds:.1f} (aim {aims[1]}: {'met' if in_seconds >= aims[1] else 'missed'})",
    ]


if __name__ == "__main__":
    backend = keras.backend.backend()
    report.write(
        f"calibrate_lsuv_{backend}",
        f"`calibrate` on {backend} beside `lsuv` 0.3.0 on torch {torch.__version__}, 64x64x3, batch 16",
        f"KERAS_BACKEND={backend} python benchmarks/calibrate_lsuv.py",
        [
            "model",
            "torch pass",
            "lsuv",
            "its passes",
            "plain pass",
            "calibrate",
            "faster, in passes",
            "in seconds",
        ],
        [measure(name) for name in TARGETS],
        "Both start from weights of their own orthonormal draw, which is not timed. `lsuv` has "
        f"medians of {RUNS} runs, and a hook counts its passes. `calibrate` has medians of 7 pairs "
        "with a plain pass. `In passes` is the ratio of the two times, each in units of a forward "
        "pass in its own framework. The torch models have as many parameters as the models of "
        "keras.applications.",
    )
