"""The model of a user: attention and gated layers by hand, without one registration."""

import keras
import pytest
from keras import layers, ops
from sklearn.datasets import load_digits

import keras_initx as initx
from keras_initx.walk import iter_kernels
from support.zoo import FusedAttention, SwiGLU

BLOCKS = 3


def build():
    inputs = layers.Input((8, 8))
    x = layers.Dense(32, name="embed")(inputs)
    for block in range(BLOCKS):
        x = FusedAttention(name=f"attention{block}")(x)
        x = SwiGLU(name=f"gated{block}")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling1D()(x)))


def test_each_kernel_has_its_place():
    sites = {site.path: site for site in iter_kernels(build())}
    assert len(sites) == 2 + 5 * BLOCKS
    assert not any(site.note for site in sites.values())
    ends = {path for path, site in sites.items() if site.ends_branch}
    assert ends == {
        f"{name}{block}/{kernel}"
        for block in range(BLOCKS)
        for name, kernel in (("attention", "out"), ("gated", "down"))
    }
    assert [sites[f"gated{block}/down"].activation for block in range(BLOCKS)] == ["swiglu"] * BLOCKS
    depths = [sites[f"attention{block}/fused"].depth for block in range(BLOCKS)]
    assert depths == [1, 5, 9]


@pytest.mark.parametrize("strategy", ["Fixup", "ZeroResidual", "GPT2Residual"])
def test_strategies_draw_all_and_end_each_branch_with_its_last_kernel(strategy):
    model = build()
    report = initx.initialize(model, strategy, seed=1)
    assert all(row.initializer for row in report.rows)
    assert not report.kept
    zero = {site.path for site in iter_kernels(model) if not ops.convert_to_numpy(site.kernel.value).any()}
    ends = {site.path for site in iter_kernels(model) if site.ends_branch}
    head = {"head"} if strategy == "Fixup" else set()
    assert zero == (set() if strategy == "GPT2Residual" else ends | head)


@pytest.mark.integration
def test_it_trains_from_zero_branches():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    model = build()
    initx.initialize(model, "ZeroResidual", seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    history = model.fit((x / 8 - 1).astype("float32").reshape(-1, 8, 8), y, epochs=3, verbose=0)
    assert history.history["accuracy"][-1] > 0.6  # 0.1 by chance
