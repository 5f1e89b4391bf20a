"""Deep ReLU nets train from He's start and stall from Glorot's: He et al. 2015, figure 3.

The paper trains a net of 30 layers on ImageNet. Here a convnet of 20 layers and a dense net of 50 layers
learn digits. Each initializer has the best of the same learning rates.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, difference, digits, interval, reproduce

CLAIM = Claim(
    paper="He et al. 2015",
    link="https://arxiv.org/abs/1502.01852",
    statement="He's start trains ReLU nets so deep that Glorot's stalls.",
    number="30 layers: He converges, Glorot stalls completely (figure 3)",
    checked=False,
)
INITIALIZERS = ("initx>HeScaled", "initx>GlorotScaled")
MOMENTUM, BATCH = 0.9, 64
TRAINS, STALLS = 0.5, 0.2  # test accuracies; chance is 0.1


class Size(NamedTuple):
    """The layers with weights, their width or channels, and the passes of each net over `images` images."""

    seeds: int = 3
    convolutional: int = 20
    channels: int = 16
    dense: int = 50
    width: int = 64
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    epochs: tuple[int, int] = (15, 40)
    images: int | None = None


def convnet(size: Size) -> Any:
    """Returns a net of 3x3 convolutions on maps of 8x8, then 4x4, then 2x2, and a dense layer."""
    x = inputs = layers.Input((8, 8, 1))
    for number in range(size.convolutional - 1):
        strides = 2 if number in (5, 11) else 1
        x = layers.Conv2D(size.channels, 3, strides, "same", activation="relu", name=f"conv{number}")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten()(x)), name="convnet")


def dense_net(size: Size) -> Any:
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Flatten()(x)
    for number in range(size.dense - 1):
        x = layers.Dense(size.width, "relu", name=f"dense{number}")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="dense_net")


def compiled(model: Any, images: int) -> Any:
    """Compiles a model once for many starts: `initialize` resets the weights and the optimizer."""
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.SGD(momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=1 if backend == "torch" else -(-images // BATCH),
        jit_compile=backend == "jax",  # on TensorFlow compiling takes longer than it saves
    )
    return model


class Run(NamedTuple):
    """Loss and accuracy on the training images in the last epoch; accuracy on the test images after it."""

    loss: float
    training: float
    test: float


def train(model: Any, data: Any, initializer: str, seed: int, rate: float, epochs: int) -> Run:
    x, y, test_x, test_y = data
    initx.initialize(model, initializer, seed=seed)
    model.optimizer.learning_rate = rate
    keras.utils.set_random_seed(seed)  # the order of the images
    stop = keras.callbacks.TerminateOnNaN()
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[stop]).history
    test = model.evaluate(test_x, test_y, batch_size=len(test_x), verbose=0)[1]
    return Run(history["loss"][-1], history["accuracy"][-1], test)


def over_rates(model: Any, data: Any, initializer: str, size: Any, epochs: int) -> dict[float, list[Run]]:
    """Trains at each rate from each seed. The rate that fits the training images best comes first."""
    runs = {}
    for rate in size.rates:
        runs[rate] = [train(model, data, initializer, seed, rate, epochs) for seed in range(size.seeds)]
        tests = " ".join(f"{run.test:.3f}" for run in runs[rate])
        print(f"{model.name} | {initializer} | learning rate {rate:g} | test accuracy {tests}", flush=True)
    order = sorted(runs, key=lambda rate: -np.mean([run.training for run in runs[rate]]))
    return {rate: runs[rate] for rate in order}


def measure(size: Size) -> tuple[str, list[Criterion]]:
    x, y, *test = digits()
    data = (x[: size.images], y[: size.images], *test)
    found, criteria = [], []
    for build, epochs in zip((convnet, dense_net), size.epochs, strict=True):
        model = compiled(build(size), len(data[0]))
        rates, accuracies = [], []
        for initializer in INITIALIZERS:
            rate, runs = next(iter(over_rates(model, data, initializer, size, epochs).items()))
            rates.append(rate)
            accuracies.append([run.test for run in runs])
        he, glorot = map(interval, accuracies)
        ahead = difference(*accuracies)
        name = model.name.replace("_", " ")
        found.append(
            f"{name}: test accuracy {he} from He (learning rate {rates[0]:g}), "
            f"{glorot} from Glorot ({rates[1]:g})."
        )
        criteria += [
            Criterion(f"{name}: from He the accuracy's interval is above {TRAINS}", he.low > TRAINS),
            Criterion(f"{name}: from Glorot it is below {STALLS}", glorot.high < STALLS),
            Criterion(f"{name}: He's accuracy is higher by {ahead}", ahead.low > 0),
        ]
    return " ".join(found), criteria


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(
            1, convolutional=6, channels=4, dense=6, width=8, rates=(0.01,), epochs=(1, 1), images=128
        ),
        default=Size(),
        # 30 layers as in figure 3; wider nets, longer training and more rates.
        full=Size(5, 30, 64, 50, 256, (0.001, 0.003, 0.01, 0.03), epochs=(150, 400)),
    )


if __name__ == "__main__":
    main()
