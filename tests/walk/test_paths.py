import keras
import pytest
from keras import layers

from keras_initx.walk import iter_kernels

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def sites(model):
    return {site.path: site for site in iter_kernels(model)}


@pytest.mark.parametrize(
    ("layer", "shape", "role"),
    [
        (layers.Dense(3), (None, 4), "dense"),
        (layers.Conv1D(3, 2), (None, 8, 4), "conv"),
        (layers.Conv2D(4, 2, groups=2), (None, 8, 8, 4), "conv"),
        (layers.Conv3D(3, 2), (None, 4, 4, 4, 2), "conv"),
        (layers.DepthwiseConv1D(3), (None, 8, 4), "depthwise"),
        (layers.DepthwiseConv2D(3), (None, 8, 8, 4), "depthwise"),
        (layers.Conv1DTranspose(3, 2), (None, 8, 4), "transposed"),
        (layers.Conv2DTranspose(3, 2), (None, 8, 8, 4), "transposed"),
        (layers.Conv3DTranspose(3, 2), (None, 4, 4, 4, 2), "transposed"),
        (layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), (None, 8, 4), "einsum"),
    ],
)
def test_linear_layers_have_a_site_without_obstacle(layer, shape, role):
    layer.build(shape)
    (site,) = iter_kernels(layer)
    assert (site.role, site.obstacle) == (role, "")
    assert site.kernel is (layer.kernel if role != "dense" else layer._kernel)
    assert site.bias is layer.bias
    attribute = "depthwise_initializer" if role == "depthwise" else "kernel_initializer"
    assert site.initializer is getattr(layer, attribute)


def test_attention_kernels_have_their_own_roles():
    for attention in (
        layers.MultiHeadAttention(2, 4, name="mha"),
        layers.GroupQueryAttention(4, 4, 2, name="mha"),
    ):
        inputs = layers.Input((5, 8))
        model = keras.Model(inputs, attention(inputs, inputs))
        found = {site.path: site.role for site in iter_kernels(model)}
        assert found == {f"mha/{role}": role for role in ("query", "key", "value", "attention_output")}


@pytest.mark.parametrize(
    ("equation", "output_shape", "input_shape", "axes"),
    [
        ("abc,cd->abd", (None, 3), (None, 5, 4), ((0,), (1,))),
        ("abc,cde->abde", (None, 2, 3), (None, 5, 4), ((0,), (1, 2))),
        ("abcd,cde->abe", (None, 3), (None, 5, 4, 2), ((0, 1), (2,))),
        ("...x,xy->...y", (3,), (None, 5, 4), ((0,), (1,))),
        ("abhc,hcd->abhd", (5, 2, 3), (None, 5, 2, 4), ((1,), (2,))),
        ("bec,ecd->bed", (6, 3), (None, 6, 4), ((1,), (2,))),
    ],
)
def test_einsum_axes_leave_out_what_inputs_and_outputs_share(equation, output_shape, input_shape, axes):
    layer = layers.EinsumDense(equation, output_shape)
    layer.build(input_shape)
    (site,) = iter_kernels(layer)
    assert site.axes == axes


def test_unsupported_layers_are_sites_with_a_reason():
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Embedding(10, 4, name="embed"),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="both"),
            layers.SeparableConv1D(5, 2, name="separable"),
        ]
    )
    found = sites(model)
    assert "recurrent loop" in found["both/forward_lstm/lstm_cell"].obstacle
    assert not found["embed/embeddings"].obstacle
    assert found["separable/depthwise_kernel"].bias is None
    assert found["separable/pointwise_kernel"].bias is model.layers[2].bias
    assert found["separable/depthwise_kernel"].initializer is model.layers[2].depthwise_initializer
    recurrent = [site for path, site in found.items() if path.endswith("recurrent_kernel")]
    assert len(recurrent) == 2
    assert all("recurrent loop" in site.obstacle for site in recurrent)


def test_biases_slopes_and_scales_of_several_axes_are_no_kernels():
    slopes, normalization = layers.PReLU(), layers.LayerNormalization(axis=(1, 2))
    slopes.build((None, 4, 5))
    normalization.build((None, 4, 5))
    assert not list(iter_kernels(slopes))
    assert [site.role for site in iter_kernels(normalization)] == ["scale"]
    gru = layers.GRU(3)
    gru.build((None, 4, 5))
    assert [site.kernel.name for site in iter_kernels(gru)] == ["kernel", "recurrent_kernel"]


def test_dense_inside_a_recurrent_cell_is_not_hooked():
    class Cell(keras.layers.Layer):
        state_size = output_size = 3

        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, inputs, states):
            output = self.dense(inputs) + states[0]
            return output, [output]

    model = keras.Sequential([layers.Input((4, 5)), layers.RNN(Cell())])
    (site,) = iter_kernels(model)
    assert "recurrent loop" in site.obstacle


def test_overridden_call_lora_and_quantization_are_obstacles():
    class Squared(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    squared, lora, quantized = Squared(3), layers.Dense(3), layers.Dense(3)
    for layer in (squared, lora, quantized):
        layer.build((None, 4))
    lora.enable_lora(2)
    quantized.quantize("int8")
    # The square comes after the product, whose output is linear in the kernel.
    (site,) = iter_kernels(squared)
    assert (site.obstacle, len(site.uses)) == ("", 1)
    assert any("LoRA" in site.obstacle for site in iter_kernels(lora))
    assert [site.obstacle for site in iter_kernels(quantized)] == ["the kernel is quantized"]


def test_nested_and_shared_layers_are_found_once_under_paths_without_the_models_name():
    shared = layers.Dense(4, name="shared")

    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="root")
            self.inner = keras.Sequential([shared, layers.Dense(4, name="last")], name="inner")
            self.several = [shared, layers.Dense(2, name="listed")]

        def call(self, inputs):
            x = self.inner(inputs)
            for layer in self.several:
                x = layer(x)
            return x

    model = Model()
    model(keras.ops.ones((2, 4)))
    assert sorted(path.rpartition("/")[2] for path in sites(model)) == ["last", "listed", "shared"]
    assert not any(path.startswith("root/") for path in sites(model))


def block(name):
    inputs = layers.Input((4,))
    return keras.Model(inputs, layers.Dense(4, name="d")(inputs), name=name)


def test_paths_of_equal_names_in_nested_models_differ():
    model = keras.Sequential([layers.Input((4,)), block("b1"), block("b2"), block("b1_")])
    assert sorted(sites(model)) == ["b1/d", "b1_/d", "b2/d"]


def test_siblings_of_one_name_get_a_number():
    class Twins(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.left, self.right = layers.Dense(2, name="d"), layers.Dense(2, name="d")

        def build(self, shape):
            self.left.build(shape)
            self.right.build(shape)

    twins = Twins()
    twins.build((None, 3))
    assert sorted(sites(twins)) == ["d", "d_1"]


def test_frozen_kernels_are_still_sites():
    layer = layers.Dense(3, trainable=False)
    layer.build((None, 4))
    assert [site.kernel.trainable for site in iter_kernels(layer)] == [False]
