"""Files of adapters that keras_hub writes and reads."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_initx as initx
from keras_initx.strategies import LoRA

keras_hub = pytest.importorskip("keras_hub")
SIZES = {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
TOKENS = {
    "token_ids": np.random.default_rng(0).integers(0, 50, (3, 7)),
    "padding_mask": np.ones((3, 7), "int32"),
}


def _backbone():
    keras.utils.set_random_seed(5)
    return keras_hub.models.GPT2Backbone(**SIZES, max_sequence_length=8)


@pytest.mark.parametrize("start", ["PiSSA", "OLoRA", LoRA(rank_stable=True)], ids=["PiSSA", "OLoRA", "LoRA"])
def test_stock_keras_hub_loads_what_a_trained_adapter_became(start, tmp_path):
    backbone = _backbone()
    backbone.enable_lora(4)
    report = initx.initialize(backbone, start, seed=1)
    for weight in [w for w in backbone.trainable_variables if w.name.startswith("lora_")]:
        noise = np.random.default_rng(1).normal(size=tuple(weight.shape))
        weight.assign(ops.convert_to_numpy(weight) + 0.1 * noise)
    original = _backbone()
    report.as_lora(backbone).apply(original)
    original.save_lora_weights(str(tmp_path / "adapter.lora.h5"))
    stock = _backbone()
    stock.load_lora_weights(str(tmp_path / "adapter.lora.h5"))
    trained = ops.convert_to_numpy(backbone(TOKENS))
    np.testing.assert_allclose(ops.convert_to_numpy(stock(TOKENS)), trained, atol=1e-4)
    assert not np.allclose(ops.convert_to_numpy(_backbone()(TOKENS)), trained, atol=1e-2)


def test_eva_starts_the_adapters_of_a_backbone_and_its_own_file_fits():
    backbone = _backbone()
    before = ops.convert_to_numpy(backbone(TOKENS))
    backbone.enable_lora(4)
    report = initx.calibrate(backbone, TOKENS, "initx>EVA")
    assert report.calibrated == 4
    np.testing.assert_allclose(ops.convert_to_numpy(backbone(TOKENS)), before, atol=1e-5)
