"""The learned scale at the end of a residual branch."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx.layers import ResidualScale


@pytest.mark.parametrize("initial", [0.0, 0.1, 2])
@pytest.mark.parametrize("per_channel", [True, False])
def test_it_multiplies_by_its_scale(initial, per_channel, rng):
    layer, x = ResidualScale(initial, per_channel), rng.standard_normal((2, 5, 3)).astype("float32")
    y = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y, np.float32(initial) * x, rtol=1e-6)
    assert layer.scale.shape == ((3,) if per_channel else ())
    assert layer.compute_output_shape((2, 5, 3)) == (2, 5, 3)
    assert len(layer.trainable_variables) == 1


def test_each_channel_has_its_own_scale():
    layer = ResidualScale(per_channel=True)
    layer.build((None, 3))
    layer.scale.assign([1.0, 2.0, 3.0])
    assert ops.convert_to_numpy(layer(np.ones((1, 3), "float32"))).tolist() == [[1.0, 2.0, 3.0]]


def test_a_model_that_holds_it_is_saved_and_loaded(tmp_path):
    inputs = layers.Input((4,))
    model = keras.Model(inputs, layers.add([inputs, ResidualScale(0.3, True)(layers.Dense(4)(inputs))]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(loaded(x)))
    (layer,) = (layer for layer in loaded.layers if isinstance(layer, ResidualScale))
    assert (layer.initial, layer.per_channel) == (0.3, True)
    assert ResidualScale.from_config(layer.get_config()).get_config() == layer.get_config()


def test_mixed_precision_keeps_the_scale_in_float32():
    layer = ResidualScale(0.5, dtype="mixed_bfloat16")
    output = layer(np.ones((1, 3), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.scale.dtype) == "float32"


def test_masks_pass_through():
    embedded = layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 0]]))
    assert keras.src.backend.get_keras_mask(ResidualScale()(embedded)) is not None
