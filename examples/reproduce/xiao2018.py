"""Deep plain tanh convnets train from delta-orthogonal kernels, not from Glorot: Xiao et al. 2018."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any, NamedTuple

import keras
from keras import layers

import claim
import keras_initx as initx

CLAIM = claim.Claim(
    "Xiao et al. 2018",
    "https://arxiv.org/abs/1806.05393",
    "Plain tanh convnets train however deep they are from delta-orthogonal kernels, not from Gaussian ones.",
    number="10,000 layers, without normalization or skip connections (abstract)",
    checked=False,
)
GAIN = (
    1.05**0.5
)  # a little above 1, so that tanh does not shrink the signal to nothing over hundreds of layers
STARTS = {
    "delta-orthogonal": initx.initializers.DeltaOrthogonal(gain=GAIN),
    "Glorot": initx.initializers.GlorotScaled(distribution="truncated_normal"),
}
RATE = 0.6  # divided by the depth: in a deeper net, each layer must take smaller steps
TRAINS, STALLS = 0.5, 0.2  # training accuracy; chance is 0.1


class Size(NamedTuple):
    """The depths, and the passes over the training images at each depth."""

    seeds: int = 3
    depths: tuple[int, ...] = (60, 125, 250, 500)
    channels: int = 24
    epochs: int = 4
    images: int | None = None


def net(depth: int, channels: int) -> Any:
    """Returns a net of 3x3 convolutions on maps of 4x4, between a strided convolution and a dense layer."""
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(channels, 3, 2, "same", activation="tanh", name="stem")(x)
    for number in range(depth - 2):
        x = layers.Conv2D(channels, 3, padding="same", activation="tanh", name=f"conv{number}")(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(layers.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(RATE / depth, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return model


def accuracies(model: Any, start: str, size: Size) -> list[float]:
    """Returns the training accuracy in the last epoch, by seed. Both starts have the same head."""
    x, y = (part[: size.images] for part in claim.digits()[:2])
    found = []
    for seed in range(size.seeds):
        initx.initialize(model, STARTS[start], seed=seed, overrides={"logits": "initx>GlorotScaled"})
        keras.utils.set_random_seed(seed)
        history = model.fit(x, y, batch_size=128, epochs=size.epochs, verbose=0).history
        found.append(history["accuracy"][-1])
    print(f"{model.count_params()} weights, {start}:", *(f"{value:.3f}" for value in found), flush=True)
    return found


def measure(size: Size) -> tuple[str, list[claim.Criterion]]:
    found = {}
    for depth in size.depths:
        model = net(depth, size.channels)  # compiled once: `initialize` resets it
        for start in STARTS:
            found[depth, start] = accuracies(model, start, size)
    said = [
        f"{depth} layers: "
        + ", ".join(f"{claim.interval(found[depth, start])} from {start}" for start in STARTS)
        for depth in size.depths
    ]
    trained = [d for d in size.depths if min(found[d, "delta-orthogonal"]) > TRAINS]
    deepest, shallowest = size.depths[-1], size.depths[0]
    lead = claim.difference(found[deepest, "delta-orthogonal"], found[deepest, "Glorot"])
    worse = [d for d in size.depths if max(found[d, "Glorot"]) >= STALLS]
    sentence = (
        f"Training accuracy after {size.epochs} passes: {'; '.join(said)}. The deepest that trains in all "
        f"seeds from delta-orthogonal kernels: {max(trained, default='none')} layers."
    )
    return sentence, [
        claim.Criterion(
            f"delta-orthogonal trains at all depths in all seeds (at {trained} of {list(size.depths)})",
            len(trained) == len(size.depths),
        ),
        claim.Criterion(
            f"at {deepest} layers it is ahead of Glorot by {lead}, an interval above 0.3", lead.low > 0.3
        ),
        claim.Criterion(
            f"Glorot stalls at all depths from {shallowest} on (learns at {worse or 'none'})", not worse
        ),
    ]


def main() -> None:
    claim.reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, depths=(10,), channels=8, epochs=1, images=256),
        default=Size(),
        full=Size(depths=(1250, 2500, 5000, 10000), channels=256, epochs=100),
    )


if __name__ == "__main__":
    main()
