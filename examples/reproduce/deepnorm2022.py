"""DeepNorm trains a post-norm Transformer of 50 layers that plain post-norm does not: Wang et al. 2022.

The paper trains encoder-decoders to translate. Here an encoder alone reads an image of scikit-learn's digits
as eight rows and names the digit. The optimizer is Adam at a constant learning rate, without warm-up or
clipping.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, difference, digits, interval, reproduce
from keras_initx.layers import ResidualScale

CLAIM = Claim(
    paper="Wang et al. 2022",
    link="https://arxiv.org/abs/2203.00555",
    statement="DeepNorm trains post-norm Transformers at depths at which plain post-norm diverges or stalls.",
    number="up to 1,000 layers without difficulty (abstract)",
    checked=True,
)
WIDTH, HEADS, BATCH = 32, 2, 32
CHANCE = math.log(10)
PLAIN, DEEPNORM = "post-norm", "DeepNorm"


class Size(NamedTuple):
    """The layers of the deep and the shallow encoder, the learning rates and the training steps."""

    seeds: int = 3
    layers: int = 50
    shallow: int = 6
    rates: tuple[float, ...] = (1e-3, 3e-4)
    steps: int = 200


def encoder(count: int) -> Any:
    """Returns a post-norm encoder of `count` layers. Its skips share one scale, the frozen weight alpha."""
    alpha = ResidualScale(1.0, trainable=False, name="alpha")

    def joined(x: Any, f: Any) -> Any:
        return layers.LayerNormalization(epsilon=1e-5)(alpha(x) + f)

    rows = layers.Input((8, 16))
    x = layers.Dense(WIDTH, name="embed")(rows)
    for number in range(count):
        x = joined(x, layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention{number}")(x, x))
        hidden = layers.Dense(2 * WIDTH, "relu", name=f"up{number}")(x)
        x = joined(x, layers.Dense(WIDTH, name=f"down{number}")(hidden))
    logits = layers.Dense(10, name="logits")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(rows, logits)
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=backend == "jax",
        steps_per_execution=1 if backend == "torch" else 10,
    )
    return model


def rows_of_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns each image as eight rows, each followed by its place as a one-hot vector; and the labels."""
    x, y, *_ = digits()
    places = np.broadcast_to(np.eye(8, dtype="float32"), (len(x), 8, 8))
    return np.concatenate([x[..., 0], places], axis=-1), y


def train(model: Any, initializer: str, count: int, rate: float, seed: int, steps: int) -> float:
    """Returns the mean loss of the last fifth of the steps, or the loss of chance if it is not finite."""
    x, y = rows_of_digits()
    deep = initializer == DEEPNORM
    start = initx.strategies.DeepNorm() if deep else initx.initializers.GlorotScaled(distribution="normal")
    initx.initialize(model, start, seed=seed)
    model.get_layer("alpha").scale.assign((2 * count) ** 0.25 if deep else 1.0)
    model.optimizer.learning_rate = rate
    rng = np.random.default_rng(seed)
    passes = -(-steps * BATCH // len(x))
    order = np.concatenate([rng.permutation(len(x)) for _ in range(passes)])[: steps * BATCH]
    first, last = np.split(order, [(steps - steps // 5) * BATCH])
    for part in (first, last):
        history = model.fit(x[part], y[part], batch_size=BATCH, shuffle=False, verbose=0).history
    loss = history["loss"][0]
    return loss if math.isfinite(loss) else CHANCE


def best(model: Any, initializer: str, count: int, size: Size) -> tuple[float, list[float]]:
    """Returns the learning rate with the smallest mean loss, and its losses."""
    runs = []
    for rate in size.rates:
        losses = [train(model, initializer, count, rate, seed, size.steps) for seed in range(size.seeds)]
        runs.append((rate, losses))
        print(
            f"{count} layers, {initializer}, learning rate {rate:g}: losses {np.round(losses, 3)}", flush=True
        )
    return min(runs, key=lambda run: float(np.mean(run[1])))


def measure(size: Size) -> tuple[str, list[Criterion]]:
    model = encoder(size.layers)
    deep_rate, deep = best(model, DEEPNORM, size.layers, size)
    plain_rate, plain = best(model, PLAIN, size.layers, size)
    shallow_rate, shallow = best(encoder(size.shallow), PLAIN, size.shallow, size)
    trains, stalls = CHANCE / 2, 0.9 * CHANCE
    ours, theirs, control = map(interval, (deep, plain, shallow))
    ahead = difference(plain, deep)
    found = (
        f"Loss after {size.steps} steps without warm-up (chance {CHANCE:.2f}), each at the best of "
        f"{len(size.rates)} learning rates: {size.layers} layers DeepNorm {ours} (at {deep_rate:g}), plain "
        f"{theirs} (at {plain_rate:g}), difference {ahead}; {size.shallow} plain layers {control} "
        f"(at {shallow_rate:g})."
    )
    return found, [
        Criterion(
            f"{size.layers} layers of DeepNorm train: the interval is below {trains:.2f}", ours.high < trains
        ),
        Criterion(f"{size.layers} plain ones do not: it is above {stalls:.2f}", theirs.low > stalls),
        Criterion(f"{size.shallow} plain ones do: it is below {trains:.2f}", control.high < trains),
    ]


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, layers=1, shallow=1, rates=(1e-3,), steps=10),
        default=Size(),
        # The paper goes up to 1,000 layers. At 200, Keras' functional model nests deeper than Python allows.
        full=Size(seeds=5, layers=100, rates=(1e-3, 3e-4, 1e-4, 3e-5), steps=5000),
    )


if __name__ == "__main__":
    main()
