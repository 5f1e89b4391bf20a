"""A hundred residual blocks without normalization train from Fixup, ReZero and SkipInit, not from He's start.

Each strategy has a net as in its paper: Fixup and SkipInit have convolutional blocks of two layers, ReZero
has dense blocks of one layer. ReZero and SkipInit are the same law; here only their nets differ.
"""

import math
from typing import Any, NamedTuple

import keras
from keras import layers

from claim import Claim, Criterion, digits, interval, reproduce
from he2015 import TRAINS, compiled, over_rates
from keras_initx.layers import ResidualScale

CLAIM = Claim(
    paper="Zhang et al. 2019",
    link="https://arxiv.org/abs/1901.09321",
    statement="Very deep residual nets train without normalization from Fixup, "
    "[ReZero](https://arxiv.org/abs/2003.04887) and [SkipInit](https://arxiv.org/abs/2002.10444), where He's "
    "start alone diverges.",
    number="Fixup: 10,000 layers; ReZero: thousands (abstracts); SkipInit: 1,000 (introduction)",
    checked=True,
)


class Size(NamedTuple):
    """The residual blocks, and the passes over `images` images for each learning rate."""

    seeds: int = 3
    blocks: int = 100
    channels: int = 8
    width: int = 64
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    epochs: int = 2
    images: int | None = None


def convnet(size: Size) -> Any:
    """Returns a net of blocks x + a conv(relu(conv(relu(x)))) on maps of 4x4."""
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(size.channels, 3, 2, "same", name="stem")(x)
    for number in range(size.blocks):
        f = layers.ReLU()(x)
        f = layers.Conv2D(size.channels, 3, padding="same", activation="relu", name=f"block{number}_first")(f)
        f = layers.Conv2D(size.channels, 3, padding="same", name=f"block{number}_last")(f)
        x = layers.Add()([x, ResidualScale(1.0, name=f"block{number}_scale")(f)])
    x = layers.Flatten()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="convolutional")


def dense_net(size: Size) -> Any:
    """Returns a net of blocks x + a relu(W x + b)."""
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Dense(size.width, name="stem")(layers.Flatten()(x))
    for number in range(size.blocks):
        f = layers.Dense(size.width, "relu", name=f"block{number}")(x)
        x = layers.Add()([x, ResidualScale(1.0, name=f"block{number}_scale")(f)])
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="dense")


HE = "initx>HeScaled"  # leaves the scales at 1
INITIALIZERS = {convnet: (HE, "Fixup", "SkipInit"), dense_net: (HE, "ReZero")}


def measure(size: Size) -> tuple[str, list[Criterion]]:
    x, y, *test = digits()
    data = (x[: size.images], y[: size.images], *test)
    found, criteria = [], []
    for build, initializers in INITIALIZERS.items():
        model = compiled(build(size), len(data[0]))
        for initializer in initializers:
            runs = over_rates(model, data, initializer, size, size.epochs)
            if initializer == HE:
                diverged = [not math.isfinite(run.loss) for at_rate in runs.values() for run in at_rate]
                text = f"He diverges in {sum(diverged)} of {len(diverged)} runs on the {model.name} net"
                criteria.append(Criterion(f"{text}, all of them", all(diverged)))
            else:
                rate, at_rate = next(iter(runs.items()))
                accuracy = interval([run.test for run in at_rate])
                text = f"{initializer} has a test accuracy of {accuracy} at learning rate {rate:g}"
                criteria.append(Criterion(f"{text}, the interval is above {TRAINS}", accuracy.low > TRAINS))
            found.append(text)
    return f"{size.blocks} blocks: {'; '.join(found)}.", criteria


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, blocks=4, channels=4, width=8, rates=(0.01,), epochs=1, images=128),
        default=Size(),
        # The depth of SkipInit's paper. Keras takes too long to build the 10,000 layers of Fixup and ReZero.
        full=Size(seeds=5, blocks=500, channels=16, rates=(0.001, 0.003, 0.01, 0.03, 0.1), epochs=20),
    )


if __name__ == "__main__":
    main()
