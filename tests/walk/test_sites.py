"""Which kernels `iter_kernels` finds, with their roles and true fans."""

import keras
import pytest
from keras import layers, ops

from keras_initx.fans import Fans
from keras_initx.walk import Kernel, iter_kernels, iter_weights, own_initializer, register


def built(layer, shape):
    layer.build((None, *shape))
    return layer


def kernels(model, **options):
    return {s.path: s for s in iter_kernels(model, **options) if "scale" not in s.role}


SEQUENCE, IMAGE, VOLUME = (8, 4), (8, 8, 4), (4, 4, 4, 2)
TABLE = [
    (layers.Dense(3), (4,), [("dense", 4, 3)]),
    (layers.Conv1D(3, 2), SEQUENCE, [("conv", 8, 6)]),
    (layers.Conv2D(6, 3, groups=2), IMAGE, [("conv", 18, 27)]),
    (layers.Conv2D(6, 4, strides=2), IMAGE, [("conv", 64, 24)]),
    (layers.Conv3D(3, 2), VOLUME, [("conv", 16, 24)]),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), SEQUENCE, [("depthwise", 3, 6)]),
    (layers.DepthwiseConv2D(3), IMAGE, [("depthwise", 9, 9)]),
    (
        layers.SeparableConv1D(5, 2, depth_multiplier=3),
        SEQUENCE,
        [("depthwise", 2, 6), ("pointwise", 12, 5)],
    ),
    (layers.SeparableConv2D(5, 3), IMAGE, [("depthwise", 9, 9), ("pointwise", 4, 5)]),
    (layers.Conv1DTranspose(3, 4, strides=2), SEQUENCE, [("transposed", 8, 12)]),
    (layers.Conv2DTranspose(3, 2, strides=2), IMAGE, [("transposed", 4, 12)]),
    (layers.Conv3DTranspose(3, 2), VOLUME, [("transposed", 16, 24)]),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), SEQUENCE, [("einsum", 4, 6)]),
    (layers.EinsumDense("abhc,hcd->abhd", (5, 2, 3)), (5, 2, 4), [("einsum", 4, 3)]),
    (layers.SimpleRNN(3), SEQUENCE, [("dense", 4, 3), ("recurrent", 3, 3)]),
    (layers.LSTM(3), SEQUENCE, [("gates", 4, 3), ("recurrent", 3, 3)]),
    (layers.GRU(3), SEQUENCE, [("gates", 4, 3), ("recurrent", 3, 3)]),
    (layers.ConvLSTM1D(3, 2), (5, 8, 4), [("gates", 8, 6), ("recurrent", 6, 6)]),
    (layers.ConvLSTM2D(3, 2), (5, 8, 8, 4), [("gates", 16, 12), ("recurrent", 12, 12)]),
    (layers.ConvLSTM3D(3, 2), (5, 4, 4, 4, 2), [("gates", 16, 24), ("recurrent", 24, 24)]),
    (layers.RNN(layers.GRUCell(3)), SEQUENCE, [("gates", 4, 3), ("recurrent", 3, 3)]),
    (
        layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)]),
        SEQUENCE,
        [("gates", 4, 3), ("recurrent", 3, 3), ("dense", 3, 2), ("recurrent", 2, 2)],
    ),
    (layers.Bidirectional(layers.LSTM(3)), SEQUENCE, 2 * [("gates", 4, 3), ("recurrent", 3, 3)]),
    (layers.TimeDistributed(layers.Dense(3)), SEQUENCE, [("dense", 4, 3)]),
    (
        layers.TimeDistributed(keras.Sequential([layers.Dense(3), layers.Dense(2)])),
        SEQUENCE,
        [("dense", 4, 3), ("dense", 3, 2)],
    ),
    (layers.Embedding(10, 4), (6,), [("embedding", None, 4)]),
    (layers.ReversibleEmbedding(10, 4), (6,), [("embedding", None, 4)]),
    (
        layers.ReversibleEmbedding(10, 4, tie_weights=False),
        (6,),
        [("embedding", None, 4), ("dense", 4, 10)],
    ),
    (layers.SpectralNormalization(layers.Dense(3)), (4,), [("dense", 4, 3)]),
    (layers.PReLU(), SEQUENCE, []),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), TABLE, ids=lambda value: getattr(value, "name", ""))
def test_each_layer_has_its_kernels_with_role_and_true_fans(layer, shape, expected):
    sites = list(kernels(built(layer, shape)).values())
    assert [site.role for site in sites] == [role for role, *_ in expected]
    for site, (_, fan_in, fan_out) in zip(sites, expected, strict=True):
        assert site.fans.fan_out == fan_out
        assert fan_in is None or site.fans.fan_in == fan_in
        assert site.initializer is not None
        assert site.skip == ""
        assert site.note in ("", "the activation that feeds it is not known")


@pytest.mark.parametrize("layer", [layers.MultiHeadAttention(2, 3), layers.GroupQueryAttention(3, 2, 1)])
def test_attention_sums_over_the_model_and_over_the_heads(layer):
    inputs = layers.Input((5, 8))
    model = keras.Model(inputs, layer(inputs, inputs))
    fans = {site.role: site.fans for site in iter_kernels(model)}
    heads = 2 if isinstance(layer, layers.MultiHeadAttention) else 1
    assert fans["query"] == Fans(8, 6)
    assert fans["key"] == fans["value"] == Fans(8, 3 * heads)
    assert fans["attention_output"] == Fans(6, 8)
    assert {site.attention for site in iter_kernels(model)} == {layer.name}


def test_attention_layers_without_kernels_have_none():
    inputs = layers.Input((5, 8))
    attended = layers.AdditiveAttention()([layers.Attention()([inputs, inputs]), inputs])
    model = keras.Model(inputs, layers.Dense(3)(attended))
    (site,) = kernels(model).values()
    assert (site.role, site.depth) == ("dense", 0)


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(), layers.LayerNormalization(), layers.RMSNormalization(),
        layers.GroupNormalization(2),
    ],
)  # fmt: skip
def test_scales_of_normalizations_are_sites_without_fans(layer):
    (site,) = iter_kernels(built(layer, IMAGE))
    assert (site.role, site.fans, site.activation) == ("scale", None, None)


def test_lora_and_quantization_are_reasons_to_skip():
    lora, quantized = built(layers.Dense(3), (4,)), built(layers.Dense(3), (4,))
    lora.enable_lora(2)
    quantized.quantize("int8")
    assert ["LoRA" in site.skip for site in iter_kernels(lora)] == [True, False, False]
    assert [site.skip for site in iter_kernels(quantized)] == ["the kernel is quantized"]


class Mixer(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.mixing_initializer = keras.initializers.get("he_normal")

    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], 6), name="mixing")

    def call(self, inputs):
        return inputs @ self.mixing


def test_kernels_of_layers_without_values_have_a_note():
    class Reading(Mixer):
        def call(self, inputs):
            return super().call(inputs) * float(ops.max(inputs))

    (site,) = iter_kernels(built(Reading(), (4,)))
    assert (site.role, site.fans) == ("other", None)
    assert "does not run on tensors without values" in site.note
    assert "register" in site.note
    assert isinstance(site.initializer, keras.initializers.HeNormal)


def test_kernels_of_layers_that_no_table_has_are_found_by_what_takes_them():
    (site,) = iter_kernels(built(Mixer(), (4,)))
    assert (site.role, site.fans, site.note, site.obstacle) == ("dense", Fans(4, 6), "", "")
    assert isinstance(site.initializer, keras.initializers.HeNormal)


@pytest.mark.parametrize(
    ("kernel", "role", "fans"),
    [
        (Kernel("mixing", "dense"), "mixing", Fans(4, 6)),
        (Kernel("mixing", {"kind": "gates", "gates": 3}), "mixing", Fans(4, 2)),
        (Kernel("mixing", lambda layer: {"kind": "gates", "gates": layer.parts}), "mixing", Fans(4, 3)),
        ("mixing", "mixing", Fans(4, 6)),
    ],
)
def test_register_teaches_kernels_to_a_class_and_its_subclasses(kernel, role, fans):
    class Taught(Mixer):
        parts = 2

    class Child(Taught):
        pass

    register(Taught, {"mixing": kernel})
    (site,) = iter_kernels(built(Child(), (4,)))
    assert (site.role, site.fans, site.note) == (role, fans, "")


@pytest.mark.parametrize(
    ("layer_class", "table", "message"),
    [
        (int, {"kernel": "dense"}, "`layer_class` must be a class of Keras layers. Received: <class 'int'>"),
        (Mixer, {}, "`kernels` must map"),
        (Mixer, {"mixing": 3}, "Received: kernels={'mixing': 3}"),
    ],
)
def test_register_says_what_is_wrong(layer_class, table, message):
    with pytest.raises(ValueError, match=message):
        register(layer_class, table)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["mixing"], {"linear": 1}, "`linear` must be a bool.* Received: linear=1"),
        (
            ["b", "a"],
            {"linear": True},
            r"of one kernel.* kernels=\['a', 'b'\]. For several kernels, pass a `call`",
        ),
        (["mixing"], {"linear": True, "call": max}, "without `call`. Received: linear=True"),
        (
            ["mixing"],
            {"call": "call"},
            "`call` must be None or a function. Received: call='call'. For example",
        ),
    ],
)
def test_register_says_what_is_wrong_with_pre_activations(names, options, message):
    with pytest.raises(ValueError, match=message):
        register(Mixer, dict.fromkeys(names, "mixing"), **options)
    (site,) = iter_kernels(built(Mixer(), (4,)))
    assert (site.role, site.taught) == ("dense", False)


def test_the_last_of_several_kernels_that_name_a_bias_has_it():
    class Twice(layers.Layer):
        def build(self, shape):
            for name in ("one", "two", "three"):
                self.add_weight(shape=(4, 4), name=name)
            for name in ("bias", "own"):
                self.add_weight(shape=(4,), name=name, trainable=name == "own")

    kernels = {"one": Kernel("a"), "two": Kernel("a", "dense"), "three": Kernel("a", bias="own")}
    register(Twice, kernels, call=lambda layer, show, x: x)
    sites = list(iter_kernels(built(Twice(), (4,))))
    assert [getattr(site.bias, "name", None) for site in sites] == [None, "bias", "own"]
    assert [site.unit_axes for site in sites] == [None, ((-1,), (-1,)), None]
    assert [(site.obstacle, site.taught) for site in sites] == [("", True)] * 3


def test_a_subclass_that_overrides_the_call_of_a_registered_class_has_an_obstacle():
    class Taught(Mixer):
        pass

    class Squared(Taught):
        def call(self, inputs):
            return super().call(inputs) ** 2

    register(Taught, {"mixing": "mixing"}, linear=True)
    (site,) = iter_kernels(built(Squared(), (4,)))
    assert site.obstacle == "Squared overrides Taught.call, so its output need not be linear in its kernel"


def weights(model):
    return {w.path: w for w in iter_weights(model, list(iter_kernels(model, trace=False)))}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.LSTM(3, bias_initializer="ones"), SEQUENCE),
        (layers.LSTM(3, bias_initializer=keras.initializers.Constant(2.0)), SEQUENCE),
        (layers.LSTM(3, unit_forget_bias=False), SEQUENCE),
        (layers.ConvLSTM2D(3, 2, bias_initializer=keras.initializers.Constant(2.0)), (5, 8, 8, 4)),
        (layers.GRU(3, bias_initializer=keras.initializers.Constant(2.0)), SEQUENCE),
        (layers.BatchNormalization(beta_initializer="ones"), IMAGE),
        (layers.Dense(3, bias_initializer="ones"), (4,)),
        (layers.PReLU(alpha_initializer=keras.initializers.Constant(0.3)), SEQUENCE),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_other_weights_are_found_once_with_what_keras_draws(layer, shape):
    found = weights(built(layer, shape))
    kernel_ids = {id(site.kernel) for site in iter_kernels(layer)}
    rest = [v for v in layer.weights if id(v) not in kernel_ids]
    assert [id(w.kernel) for w in found.values()] == [id(v) for v in rest]
    for weight in found.values():
        drawn = keras.ops.convert_to_numpy(weight.initializer(weight.kernel.shape, weight.kernel.dtype))
        assert drawn.tolist() == keras.ops.convert_to_numpy(weight.kernel).tolist()


def test_roles_of_other_weights():
    roles = {path: weight.role for path, weight in weights(built(layers.BatchNormalization(), IMAGE)).items()}
    assert roles == {"beta": "shift", "moving_mean": "statistic", "moving_variance": "statistic"}
    assert [w.role for w in weights(built(layers.GRU(3), SEQUENCE)).values()] == ["bias"]


def test_own_initializer_has_the_axes_that_keras_hands_over():
    inputs = layers.Input((5, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))
    for site in iter_kernels(model):
        own = own_initializer(site)
        axes = [0, 1] if site.role == "attention_output" else [0]
        assert list(own.input_axes) == axes
