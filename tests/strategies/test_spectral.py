"""Spectral scaling: norms of weights and steps at any width, and the same growth as under muP."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import MuP, Spectral


def mlp(width, inputs=16, outputs=10):
    stack = [layers.Dense(width, "relu", name="in"), layers.LayerNormalization(name="norm")]
    stack += [layers.Dense(width, "relu", name="hidden"), layers.Dense(outputs, name="out")]
    return keras.Sequential([layers.Input((inputs,)), *stack], name="net")


def values(model):
    return {v.path: np.array(ops.convert_to_numpy(v), "float64") for v in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["adam", "lion", "sgd", "muon", "adafactor"])
def test_growth_agrees_with_mup(optimizer):
    """With a base, factors of rates and epsilon are those of muP; without, their quotients are."""
    found = initx.initialize(mlp(256), Spectral(base=mlp(64), optimizer=optimizer), seed=3)
    mup = initx.initialize(mlp(256), MuP(base=mlp(64), optimizer=optimizer), seed=3)
    rows = zip(found.multipliers.rows, mup.multipliers.rows, strict=True)
    for one, other in rows:
        assert one.learning_rate == pytest.approx(other.learning_rate), one.path
        if optimizer == "adam":
            assert one.epsilon == pytest.approx(other.epsilon), one.path
    wide, narrow = (
        initx.initialize(mlp(width), Spectral(optimizer=optimizer), seed=3).multipliers.rows
        for width in (256, 64)
    )
    for one, other, theirs in zip(wide, narrow, mup.multipliers.rows, strict=True):
        assert one.learning_rate / other.learning_rate == pytest.approx(theirs.learning_rate), one.path


def test_growth_of_variances_agrees_with_mup():
    def growth(scheme):
        drawn = {}
        for width in (64, 1024):
            model = mlp(width)
            initx.initialize(model, scheme, seed=3)
            drawn[width] = {
                path: np.mean(v**2) for path, v in values(model).items() if path.endswith("kernel")
            }
        return {path: drawn[1024][path] / drawn[64][path] for path in drawn[64]}

    found, theirs = growth(Spectral()), growth(MuP(base=mlp(64)))
    # The smallest kernel, 64 x 10: its variance scatters by sqrt(2 / 640), and so does the quotient.
    assert found == pytest.approx(theirs, rel=5 * math.sqrt(2 / 640))
    assert found["net/out/kernel"] == pytest.approx(1 / 16**2, rel=5 * math.sqrt(2 / 640))


@pytest.mark.parametrize("width", [32, 128, 512])
def test_kernels_have_the_spectral_norm_of_the_law(width):
    """A normal matrix has a norm of std (sqrt(n) + sqrt(m)), here g sqrt(n / m) times 1 to 2."""
    model = mlp(width)
    initx.initialize(model, Spectral(), seed=3)
    gains = {"in": 1.0, "hidden": math.sqrt(2), "out": math.sqrt(2)}
    for name, gain in gains.items():
        kernel = values(model)[f"net/{name}/kernel"]
        inputs, outputs = kernel.shape
        # A LayerNormalization feeds `hidden`.
        gain = 1.0 if name == "hidden" else gain
        norm = np.linalg.norm(kernel, 2) / math.sqrt(outputs / inputs) / gain
        small, large = sorted((math.sqrt(inputs), math.sqrt(outputs)))
        assert norm == pytest.approx((small + large) / large, rel=0.15)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.1), keras.optimizers.Muon(0.1)]
)
def test_steps_have_the_spectral_norm_of_the_law(optimizer):
    """Relative to sqrt(n / m), the step of each kernel has one size at any width."""
    sizes = {}
    for width in (32, 512):
        model = mlp(width)
        report = initx.initialize(model, Spectral(optimizer=optimizer), seed=3)
        plain = type(optimizer).from_config(optimizer.get_config() | {"weight_decay": None})
        before, slopes = values(model), []
        for variable in model.trainable_variables:
            # Of rank 1, as of one example: entries of size 1 in, errors of size 1 / outputs back.
            shape = tuple(variable.shape)
            errors = np.ones(shape[-1]) / shape[-1]
            slopes.append(
                ops.convert_to_tensor(
                    np.outer(np.ones(shape[0]), errors) if len(shape) == 2 else errors, "float32"
                )
            )
        report.optimizer(plain).apply(slopes, model.trainable_variables)
        sizes[width] = {
            path: np.linalg.norm(value - before[path], 2) / math.sqrt(value.shape[1] / value.shape[0])
            for path, value in values(model).items()
            if value.ndim == 2
        }
    for path, size in sizes[32].items():
        assert sizes[512][path] == pytest.approx(size, rel=0.02), path


def test_a_tied_embedding_is_told():
    inputs = layers.Input((4,), dtype="int32")
    tokens = layers.ReversibleEmbedding(50, 8, name="tokens")
    report = initx.initialize(keras.Model(inputs, tokens(tokens(inputs), reverse=True)), Spectral(), seed=3)
    (row,) = (row for row in report.rows if row.role == "embedding")
    assert "tied" in row.note


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`optimizer` must be one of"):
        Spectral(optimizer="ftrl")
    with pytest.raises(ValueError, match="`base` must be a built Keras model"):
        initx.initialize(mlp(64), Spectral(base=64), seed=3)
