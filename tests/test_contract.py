"""One table with a row per registered class, and every check applied to every row."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx import initializers

TABLE = {
    "initx>ConstantFill": {"value": 0.25},
    "initx>GlorotScaled": {"gain": 2.0, "distribution": "normal"},
    "initx>HeScaled": {"gain": 1.5, "mode": "fan_out"},
    "initx>LSUV": {"target_std": 0.5},
    "initx>LecunScaled": {"distribution": "uniform"},
    "initx>OrthogonalScaled": {"gain": 2.0},
    "initx>RandomScaled": {"gain": 3.0, "mode": "fan_avg", "distribution": "truncated_normal"},
}
RANDOM = sorted(set(TABLE) - {"initx>ConstantFill"})
SHAPES = [(6, 4), (4, 6), (3, 5, 7), (3, 3, 4, 8), (2, 2, 2, 4, 3)]
DTYPES = ["float16", "bfloat16", "float32", "float64"]

every_class = pytest.mark.parametrize("name", sorted(TABLE))
random_class = pytest.mark.parametrize("name", RANDOM)


def class_of(name):
    return getattr(initializers, name.removeprefix("initx>"))


def configured(name, **extra):
    return class_of(name)(**TABLE[name] | extra)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def kernel_of(initializer, units=6):
    layer = layers.Dense(units, kernel_initializer=initializer)
    layer.build((None, 4))
    return array(layer.kernel)


def test_table_has_a_row_for_each_class():
    assert sorted(TABLE) == initializers.names()


@every_class
def test_name_builds_the_class_with_total_defaults(name):
    assert type(keras.initializers.get(name)) is class_of(name)
    assert kernel_of(name).shape == (4, 6)


@every_class
def test_config_dict_builds_the_same_initializer(name):
    config = keras.initializers.serialize(configured(name))
    assert config["registered_name"] == name
    restored = keras.initializers.get(json.loads(json.dumps(config)))
    assert type(restored) is class_of(name)
    assert restored.get_config() == configured(name).get_config()
    assert restored.get_config().items() >= TABLE[name].items()


@every_class
def test_config_holds_only_constructor_arguments(name):
    config = configured(name).get_config()
    assert class_of(name)(**config).get_config() == config


@every_class
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_draw_has_shape_and_dtype_and_is_finite(name, dtype, shape):
    kernel = configured(name)(shape, dtype=dtype)
    # JAX without 64 bits gives float32 for float64; what it gives for zeros is what it has.
    assert keras.backend.standardize_dtype(kernel.dtype) == keras.backend.standardize_dtype(
        ops.zeros(shape, dtype).dtype
    )
    assert tuple(kernel.shape) == shape
    assert np.isfinite(array(kernel)).all()
    assert array(kernel).any()


@every_class
def test_default_dtype_is_floatx(name):
    assert keras.backend.standardize_dtype(configured(name)((4, 3)).dtype) == keras.config.floatx()


@every_class
def test_zero_sized_kernel_is_drawn(name):
    assert tuple(configured(name)((0, 3)).shape) == (0, 3)


@every_class
def test_saved_model_file_keeps_config_and_weights(name, tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, kernel_initializer=configured(name))])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0].kernel_initializer) is class_of(name)
    assert loaded.layers[0].kernel_initializer.get_config() == configured(name).get_config()
    np.testing.assert_array_equal(array(loaded.layers[0].kernel), array(model.layers[0].kernel))


@every_class
def test_a_users_subclass_loads_by_custom_objects_and_by_scope(name, tmp_path):
    mine = type("Mine", (class_of(name),), {})
    with keras.saving.custom_object_scope({"Mine": mine}):
        assert type(keras.initializers.get("Mine")) is mine
        model = keras.Sequential([layers.Input((4,)), layers.Dense(3, kernel_initializer="Mine")])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Mine": mine})
    assert type(loaded.layers[0].kernel_initializer) is mine
    with keras.saving.custom_object_scope({"Mine": mine}):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0].kernel_initializer) is mine


@every_class
def test_explicit_custom_objects_do_no_harm(name, tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, kernel_initializer=name)])
    model.save(tmp_path / "model.keras")
    own = {class_of(name).__name__: class_of(name), name: class_of(name)}
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects=own)
    assert type(loaded.layers[0].kernel_initializer) is class_of(name)


@every_class
def test_clone_model_keeps_the_config(name):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, kernel_initializer=configured(name))])
    clone = keras.models.clone_model(model)
    assert clone.layers[0].kernel_initializer.get_config() == configured(name).get_config()


@every_class
def test_attention_and_einsum_take_the_name_and_the_instance(name):
    for initializer in (name, configured(name)):
        attention = layers.MultiHeadAttention(2, 4, kernel_initializer=initializer)
        attention.build((None, 5, 8), (None, 5, 8))
        einsum = layers.EinsumDense("abc,cde->abde", (None, 2, 4), kernel_initializer=initializer)
        einsum.build((None, 5, 8))
        assert all(np.isfinite(array(v)).all() for v in attention.weights + einsum.weights)


@random_class
def test_axes_reach_the_initializer_inside_einsum_and_attention(name, monkeypatch):
    seen = []
    original = class_of(name).__call__

    def spy(self, shape, dtype=None):
        seen.append((tuple(shape), tuple(self.input_axes), tuple(self.output_axes)))
        return original(self, shape, dtype)

    monkeypatch.setattr(class_of(name), "__call__", spy)
    attention = layers.MultiHeadAttention(2, 4, kernel_initializer=name)
    attention.build((None, 5, 16), (None, 5, 16))
    layers.EinsumDense("abc,dc->abd", (None, 6), kernel_initializer=name).build((None, 5, 16))
    projection = ((16, 2, 4), (0,), (1, 2))
    # Both layers count back from the end where they can; compare modulo the rank.
    found = [(s, *(tuple(a % len(s) for a in axes) for axes in (i, o))) for s, i, o in seen]
    assert found == [projection] * 3 + [((2, 4, 16), (0, 1), (2,)), ((6, 16), (1,), (0,))]


@random_class
def test_without_seed_each_call_draws_afresh_and_follows_set_random_seed(name):
    initializer = configured(name)
    keras.utils.set_random_seed(5)
    first, second = array(initializer((4, 6))), array(initializer((4, 6)))
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, array(initializer((4, 6))))
    assert abs(first - second).max() > 0
    keras.utils.set_random_seed(5)
    layer = kernel_of(name)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(layer, kernel_of(name))


@random_class
def test_int_seed_repeats(name):
    initializer = configured(name, seed=3)
    np.testing.assert_array_equal(array(initializer((4, 6))), array(initializer((4, 6))))
    np.testing.assert_array_equal(array(initializer((4, 6))), array(configured(name, seed=3)((4, 6))))
    assert abs(array(initializer((4, 6))) - array(configured(name, seed=4)((4, 6)))).max() > 0


@random_class
def test_seed_generator_advances_and_is_serialized(name):
    initializer = configured(name, seed=keras.random.SeedGenerator(3))
    first, second = array(initializer((4, 6))), array(initializer((4, 6)))
    assert abs(first - second).max() > 0
    restored = keras.initializers.get(keras.initializers.serialize(initializer))
    np.testing.assert_array_equal(first, array(restored((4, 6))))


@random_class
def test_one_unseeded_instance_gives_two_layers_different_kernels(name):
    initializer = configured(name)
    assert abs(kernel_of(initializer) - kernel_of(initializer)).max() > 0


@random_class
@pytest.mark.parametrize("gain", [0, -1.0, float("nan"), float("inf"), "2", True, None])
def test_bad_gain_is_refused(name, gain):
    with pytest.raises(ValueError, match=r"`gain` must be a positive, finite number\. Received: gain="):
        class_of(name)(gain=gain)


@random_class
def test_integer_dtype_is_refused(name):
    with pytest.raises(ValueError, match=r"`dtype` must be one of .*Received: dtype='int32'"):
        configured(name)((4, 3), dtype="int32")


@random_class
def test_subclassed_model_built_while_traced_gets_finite_weights(name):
    """JAX builds such a model inside a trace, where Keras' global seed generator may not be used."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, kernel_initializer=name)

        def call(self, inputs):
            return self.dense(inputs)

    model = Model()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((4, 5), "float32"), np.ones((4, 3), "float32"), verbose=0)
    assert np.isfinite(array(model.dense.kernel)).all()
