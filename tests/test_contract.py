"""One table with a row per registered class, and every check applied to every row."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx import initializers

pytestmark = pytest.mark.filterwarnings("ignore:`FromVectors` has no `path`")
TABLE = {
    "initx>ActNormData": {"gain": 2.0},
    "initx>BetweenLayer": {"steps": 3, "tolerance": 0.1},
    "initx>ChronoBias": {"max_timescale": 50.0},
    "initx>ClassMeans": {"center": True, "form": "binary"},
    "initx>ConstantFill": {"value": 0.25},
    "initx>ConvOrthogonal": {"gain": 2.0},
    "initx>DeltaOrthogonal": {"gain": 2.0},
    "initx>Dirac": {"gain": 2.0},
    "initx>EVA": {"whiten": True},
    "initx>EdgeOfChaos": {"activation": "elu", "bias_std": 0.2},
    "initx>FromVectors": {"missing": keras.initializers.serialize(initializers.HeScaled(gain=2.0))},
    "initx>GatewiseOrthogonal": {"gates": 2, "gain": 2.0},
    "initx>GlorotDepthwise": {"mode": "fan_geom"},
    "initx>GlorotGates": {"gates": 2},
    "initx>GlorotScaled": {"gain": 2.0, "distribution": "normal"},
    "initx>GlorotTransposed": {"strides": 2},
    "initx>GradInit": {"optimizer": "adam", "learning_rate": 0.01, "max_norm": 2.0, "scale_rate": 0.1},
    "initx>HeDepthwise": {"activation": "gelu"},
    "initx>HeScaled": {"gain": 1.5, "mode": "fan_out", "activation": "gelu"},
    "initx>HeTransposed": {"strides": 2, "mode": "fan_out"},
    "initx>HiPPO": {},
    "initx>HiPPOInput": {},
    "initx>Hyperfan": {"generates_bias": True, "mode": "fan_out"},
    "initx>ICNR": {"scale": 2},
    "initx>IDInit": {"gain": 2.0},
    "initx>IRNN": {"gain": 0.5},
    "initx>IdentityScaled": {"gain": 2.0},
    "initx>KMeansFilters": {"iterations": 3, "epsilon": 0.5},
    "initx>LRURing": {"r_min": 0.5},
    "initx>LabelPrior": {"form": "binary", "smoothing": 0.5},
    "initx>LSUV": {"target_std": 0.5, "remove_mean": True},
    "initx>LecunDepthwise": {"gain": 2.0},
    "initx>LecunScaled": {"distribution": "uniform"},
    "initx>LecunTransposed": {"distribution": "uniform"},
    "initx>LinearProbe": {"regularization": 0.5, "form": "categorical"},
    "initx>LoRAGA": {"gamma": 4.0},
    "initx>LooksLinear": {"gain": 2.0},
    "initx>MetaInit": {"learning_rate": 0.2, "momentum": 0.5, "epsilon": 1e-4},
    "initx>OrthogonalScaled": {"gain": 2.0, "preserve_norm": True},
    "initx>PCAFilters": {"gain": 2.0},
    "initx>PriorBias": {"prior": 0.2},
    "initx>RandomScaled": {"gain": 3.0, "mode": "fan_avg", "distribution": "truncated_normal"},
    "initx>RandomWalk": {"activation": "linear"},
    "initx>S4DLin": {},
    "initx>S4DReal": {},
    "initx>SIREN": {"omega": 10.0, "first": True},
    "initx>Sinusoidal": {"gain": 2.0},
    "initx>SmallInit": {"width": 64},
    "initx>SparseNormal": {"nonzeros": 3},
    "initx>SpectralScaled": {"gain": 2.0},
    "initx>TanhFixedPoint": {"gain": 2.0},
    "initx>TimeStepBias": {"dt_min": 0.01},
    "initx>UniformGateBias": {"gates": 4},
    "initx>WangInit": {"layers": 3},
    "initx>WeightNormData": {"gain": 2.0},
    "initx>WithinLayer": {"beta": 0.1},
    "initx>ZerO": {"gain": 2.0},
}
SHAPES = [(6, 4), (4, 6), (3, 5, 7), (3, 3, 4, 8), (2, 2, 2, 4, 3)]
# Classes that are not for every kernel: the shapes that they are for, and a layer that has one.
OWN_SHAPES = {
    "initx>ChronoBias": [(8,), (2, 9)],
    "initx>UniformGateBias": [(16,)],
    "initx>ConvOrthogonal": SHAPES[2:],
    "initx>DeltaOrthogonal": SHAPES[2:],
    "initx>Dirac": SHAPES[2:],
    "initx>GatewiseOrthogonal": [(6, 4), (3, 4, 12), (3, 3, 4, 8)],
    "initx>GlorotDepthwise": SHAPES[2:],
    "initx>GlorotGates": [(6, 4), (3, 5, 8), (3, 3, 4, 8)],
    "initx>GlorotTransposed": SHAPES[2:],
    "initx>HeDepthwise": SHAPES[2:],
    "initx>HeTransposed": SHAPES[2:],
    "initx>Hyperfan": SHAPES[2:],
    "initx>HiPPO": [(5, 5), (2, 4, 4)],
    "initx>ICNR": [(3, 5, 8), (3, 3, 4, 8)],
    "initx>IRNN": [(5, 5)],
    "initx>IdentityScaled": SHAPES[:2],
    "initx>LecunDepthwise": SHAPES[2:],
    "initx>LecunTransposed": SHAPES[2:],
    "initx>LooksLinear": [(6, 4), (4, 6), (3, 3, 4, 8), (2, 2, 2, 4, 6)],
}
# Zero until they have seen labels.
WITH_LABELS = ["initx>ClassMeans", "initx>LabelPrior", "initx>LinearProbe"]
# What a kernel with a receptive field takes: its shape is all that a contract is about.
WITH_FIELD = [
    "initx>ConvOrthogonal",
    "initx>DeltaOrthogonal",
    "initx>Dirac",
    "initx>GlorotDepthwise",
    "initx>GlorotTransposed",
    "initx>HeDepthwise",
    "initx>HeTransposed",
    "initx>Hyperfan",
    "initx>ICNR",
    "initx>LecunDepthwise",
    "initx>LecunTransposed",
]
OWN_LAYERS = {
    "initx>ChronoBias": lambda i: layers.Dense(8, bias_initializer=i),
    "initx>GatewiseOrthogonal": lambda i: layers.Dense(8, kernel_initializer=i),
    "initx>GlorotGates": lambda i: layers.Dense(8, kernel_initializer=i),
    "initx>HiPPO": lambda i: layers.Dense(4, kernel_initializer=i),
    "initx>IRNN": lambda i: layers.Dense(4, kernel_initializer=i),
    "initx>UniformGateBias": lambda i: layers.Dense(16, bias_initializer=i),
} | dict.fromkeys(WITH_FIELD, lambda i: layers.Conv1D(8, 3, kernel_initializer=i))
AXIS_AWARE = [
    n for n in sorted(TABLE) if issubclass(getattr(initializers, n[6:]), keras.initializers.VarianceScaling)
]
RANDOM = [n for n in sorted(TABLE) if "seed" in getattr(initializers, n[6:])().get_config()]

DTYPES = ["float16", "bfloat16", "float32", "float64"]
every_class = pytest.mark.parametrize("name", sorted(TABLE))
random_class = pytest.mark.parametrize("name", RANDOM)
axis_aware_class = pytest.mark.parametrize("name", AXIS_AWARE)


def class_of(name):
    return getattr(initializers, name.removeprefix("initx>"))


def configured(name, **extra):
    return class_of(name)(**TABLE[name] | extra)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def layer_of(name, initializer):
    build = OWN_LAYERS.get(name, lambda i: layers.Dense(6, kernel_initializer=i))
    return build(initializer)


def model_of(name, initializer):
    layer = layer_of(name, initializer)
    return keras.Sequential([layers.Input((5, 4) if isinstance(layer, layers.Conv1D) else (4,)), layer])


def initializer_of(model):
    layer = model.layers[-1]
    ours = [
        i
        for i in (layer.kernel_initializer, layer.bias_initializer)
        if hasattr(initializers, type(i).__name__)
    ]
    mine = [i for i in (layer.kernel_initializer, layer.bias_initializer) if type(i).__name__ == "Mine"]
    return (mine + ours)[0]


def weights_of(name, initializer):
    return np.concatenate([array(w).ravel() for w in model_of(name, initializer).weights])


def shapes_of(name):
    return OWN_SHAPES.get(name, SHAPES)


def test_table_has_a_row_for_each_class():
    assert sorted(TABLE) == initializers.names()


@every_class
def test_name_builds_the_class_with_total_defaults(name):
    assert type(keras.initializers.get(name)) is class_of(name)
    assert np.isfinite(weights_of(name, name)).all()


@pytest.mark.tensorflow
@every_class
def test_config_dict_builds_the_same_initializer(name):
    config = keras.initializers.serialize(configured(name))
    assert config["registered_name"] == name
    restored = keras.initializers.get(json.loads(json.dumps(config)))
    assert type(restored) is class_of(name)
    assert restored.get_config() == configured(name).get_config()
    assert restored.get_config().items() >= TABLE[name].items()


@pytest.mark.tensorflow
@every_class
def test_repr_is_the_call_that_makes_it(name):
    made = eval(repr(configured(name)), vars(initializers))
    assert made.get_config() == configured(name).get_config()


@pytest.mark.tensorflow
@every_class
def test_config_holds_only_constructor_arguments(name):
    config = configured(name).get_config()
    assert class_of(name)(**config).get_config() == config


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in TABLE for shape in shapes_of(name)])
def test_draw_has_shape_and_dtype_and_is_finite(name, shape):
    """Elsewhere than on TensorFlow, where each draw is slow, one shape has all dtypes."""
    every = keras.backend.backend() == "tensorflow" or shape == shapes_of(name)[0]
    for dtype in DTYPES if every else ["float32"]:
        kernel = configured(name)(shape, dtype=dtype)
        # JAX without 64 bits gives float32 for float64; what it gives for zeros is what it has.
        assert keras.backend.standardize_dtype(kernel.dtype) == keras.backend.standardize_dtype(
            ops.zeros(shape, dtype).dtype
        )
        assert tuple(kernel.shape) == shape, dtype
        assert np.isfinite(array(kernel)).all(), dtype
        assert array(kernel).any() or name in WITH_LABELS, dtype


@every_class
def test_default_dtype_is_floatx(name):
    assert (
        keras.backend.standardize_dtype(configured(name)(shapes_of(name)[0]).dtype) == keras.config.floatx()
    )


@every_class
def test_zero_sized_kernel_is_drawn(name):
    shape = (0, 0) if name == "initx>HiPPO" else (0,) * len(shapes_of(name)[0])
    assert tuple(configured(name)(shape).shape) == shape


# A file is the same on each backend: elsewhere one class shows it.
@pytest.mark.parametrize(
    "name", sorted(TABLE) if keras.backend.backend() == "tensorflow" else ["initx>HeScaled"]
)
def test_saved_model_file_keeps_config_and_weights(name, tmp_path):
    model = model_of(name, configured(name))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(initializer_of(loaded)) is class_of(name)
    assert initializer_of(loaded).get_config() == configured(name).get_config()
    for new, old in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(new), array(old))


@pytest.mark.tensorflow
@every_class
def test_a_users_subclass_loads_by_custom_objects_and_by_scope(name, tmp_path):
    mine = type("Mine", (class_of(name),), {})
    with keras.saving.custom_object_scope({"Mine": mine}):
        assert type(keras.initializers.get("Mine")) is mine
        model = model_of(name, "Mine")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Mine": mine})
    assert type(initializer_of(loaded)) is mine
    with keras.saving.custom_object_scope({"Mine": mine}):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(initializer_of(loaded)) is mine


@pytest.mark.tensorflow
@every_class
def test_explicit_custom_objects_do_no_harm(name, tmp_path):
    model = model_of(name, name)
    model.save(tmp_path / "model.keras")
    own = {class_of(name).__name__: class_of(name), name: class_of(name)}
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects=own)
    assert type(initializer_of(loaded)) is class_of(name)


@pytest.mark.tensorflow
@every_class
def test_clone_model_keeps_the_config(name):
    model = model_of(name, configured(name))
    clone = keras.models.clone_model(model)
    assert initializer_of(clone).get_config() == configured(name).get_config()


@pytest.mark.parametrize("name", sorted(set(TABLE) - set(OWN_LAYERS)))
def test_attention_and_einsum_take_the_name_and_the_instance(name):
    for initializer in (name, configured(name)):
        attention = layers.MultiHeadAttention(2, 4, kernel_initializer=initializer)
        attention.build((None, 5, 8), (None, 5, 8))
        einsum = layers.EinsumDense("abc,cde->abde", (None, 2, 4), kernel_initializer=initializer)
        einsum.build((None, 5, 8))
        assert all(np.isfinite(array(v)).all() for v in attention.weights + einsum.weights)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sorted(set(AXIS_AWARE) - set(OWN_LAYERS)))
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
    shape = shapes_of(name)[0]
    initializer = configured(name)
    keras.utils.set_random_seed(5)
    first, second = array(initializer(shape)), array(initializer(shape))
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, array(initializer(shape)))
    assert abs(first - second).max() > 0
    keras.utils.set_random_seed(5)
    layer = weights_of(name, name)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(layer, weights_of(name, name))


@random_class
def test_int_seed_repeats(name):
    shape = shapes_of(name)[0]
    initializer = configured(name, seed=3)
    np.testing.assert_array_equal(array(initializer(shape)), array(initializer(shape)))
    np.testing.assert_array_equal(array(initializer(shape)), array(configured(name, seed=3)(shape)))
    assert abs(array(initializer(shape)) - array(configured(name, seed=4)(shape))).max() > 0


@random_class
def test_seed_generator_advances_and_is_serialized(name):
    shape = shapes_of(name)[0]
    initializer = configured(name, seed=keras.random.SeedGenerator(3))
    first, second = array(initializer(shape)), array(initializer(shape))
    assert abs(first - second).max() > 0
    restored = keras.initializers.get(keras.initializers.serialize(initializer))
    np.testing.assert_array_equal(first, array(restored(shape)))


@random_class
def test_one_unseeded_instance_gives_two_layers_different_kernels(name):
    initializer = configured(name)
    assert abs(weights_of(name, initializer) - weights_of(name, initializer)).max() > 0


@pytest.mark.tensorflow
@axis_aware_class
def test_bad_gain_is_refused(name):
    for gain in (0, -1.0, float("nan"), float("inf"), "2", True, None):
        with pytest.raises(ValueError, match=r"`gain` must be a positive, finite number\. Received: gain="):
            class_of(name)(gain=gain)


@pytest.mark.tensorflow
@random_class
def test_integer_dtype_is_refused(name):
    with pytest.raises(ValueError, match=r"`dtype` must be one of .*Received: dtype='int32'"):
        configured(name)(shapes_of(name)[0], dtype="int32")


# Elsewhere no trace surrounds the build: one class shows it.
@pytest.mark.parametrize("name", RANDOM if keras.backend.backend() == "jax" else RANDOM[:1])
def test_subclassed_model_built_while_traced_gets_finite_weights(name):
    """JAX builds such a model inside a trace, where Keras' global seed generator may not be used."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layer_of(name, name)

        def call(self, inputs):
            return self.dense(inputs)

    model = Model()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    inputs = np.ones((4, 5, 4) if name in WITH_FIELD else (4, 4), "float32")
    model.fit(inputs, array(layer_of(name, "zeros")(inputs)), verbose=0)
    assert all(np.isfinite(array(weight)).all() for weight in model.weights)
