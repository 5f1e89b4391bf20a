"""`initialize(model, None)` draws every weight as it was before training, or says that it does not."""

import inspect
import random
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.walk import iter_kernels
from support.model_table import backbone

U, SEQUENCE, IMAGE, VOLUME = 32, (5, 32), (6, 6, 32), (4, 4, 4, 8)
TOKENS = ("int32", (6,))
# Every class of keras.layers that has weights, and the shapes of its inputs.
WEIGHTED = {
    "AdditiveAttention": (lambda: layers.AdditiveAttention(), [SEQUENCE, SEQUENCE]),
    "Attention": (lambda: layers.Attention(use_scale=True, score_mode="concat"), [SEQUENCE, SEQUENCE]),
    "BatchNormalization": (lambda: layers.BatchNormalization(), [SEQUENCE]),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(8)), [SEQUENCE]),
    "Conv1D": (lambda: layers.Conv1D(U, 3), [SEQUENCE]),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(U, 3), [SEQUENCE]),
    "Conv2D": (lambda: layers.Conv2D(U, 3, groups=2), [IMAGE]),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(U, 3), [IMAGE]),
    "Conv3D": (lambda: layers.Conv3D(U, 3), [VOLUME]),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(U, 3), [VOLUME]),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(U, 3), [(3, *SEQUENCE)]),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(U, 3), [(3, *IMAGE)]),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(8, 3), [(3, *VOLUME)]),
    "Dense": (lambda: layers.Dense(U), [SEQUENCE]),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), [SEQUENCE]),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), [IMAGE]),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (None, U), bias_axes="d"), [SEQUENCE]),
    "Embedding": (lambda: layers.Embedding(U, U), [TOKENS]),
    "GRU": (lambda: layers.GRU(U), [SEQUENCE]),
    "GRUCell": (lambda: layers.RNN(layers.GRUCell(U)), [SEQUENCE]),
    "GroupNormalization": (lambda: layers.GroupNormalization(4), [SEQUENCE]),
    "GroupedQueryAttention": (lambda: layers.GroupQueryAttention(8, 4, 2), [SEQUENCE, SEQUENCE]),
    "LSTM": (lambda: layers.LSTM(U, stateful=True), [("batch", 2, *SEQUENCE)]),
    "LSTMCell": (lambda: layers.RNN(layers.LSTMCell(U)), [SEQUENCE]),
    "LayerNormalization": (lambda: layers.LayerNormalization(), [SEQUENCE]),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(4, 8), [SEQUENCE, SEQUENCE]),
    "PReLU": (lambda: layers.PReLU(alpha_initializer="random_normal"), [SEQUENCE]),
    "RMSNormalization": (lambda: layers.RMSNormalization(), [SEQUENCE]),
    "RNN": (lambda: layers.RNN([layers.GRUCell(U), layers.SimpleRNNCell(U)]), [SEQUENCE]),
    "ReversibleEmbedding": (lambda: layers.ReversibleEmbedding(U, U, tie_weights=False), [TOKENS]),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(U, 3), [SEQUENCE]),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(U, 3), [IMAGE]),
    "SimpleRNN": (lambda: layers.SimpleRNN(U), [SEQUENCE]),
    "SimpleRNNCell": (lambda: layers.RNN(layers.SimpleRNNCell(U)), [SEQUENCE]),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(U)), [SEQUENCE]),
    "StackedRNNCells": (lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(U)])), [SEQUENCE]),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(U)), [(3, *SEQUENCE)]),
}
# Other frameworks' modules, whose configs hold their weights or need that framework; bases; an adapted layer.
APART = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper", "Layer", "Wrapper", "Normalization"}
WITHOUT = {
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "AugMix", "AutoContrast", "Average",
    "CategoryEncoding", "CenterCrop", "Concatenate", "ContrastLimitedAdaptiveHistogramEqualization",
    "CutMix", "Discretization", "Dot", "Dropout", "ELU", "Equalization", "Flatten", "GaussianDropout",
    "GaussianNoise", "HashedCrossing", "Hashing", "Identity", "InputLayer", "IntegerLookup", "Lambda",
    "LeakyReLU", "Masking", "MaxNumBoundingBoxes", "Maximum", "MelSpectrogram", "Minimum", "MixUp",
    "Multiply", "Permute", "Pipeline", "RandAugment", "RandomBrightness", "RandomColorDegeneration",
    "RandomColorJitter", "RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing",
    "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert",
    "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness",
    "RandomShear", "RandomTranslation", "RandomZoom", "ReLU", "RepeatVector", "Rescaling", "Reshape",
    "Resizing", "STFTSpectrogram", "Softmax", "Solarization", "StringLookup", "Subtract",
    "TextVectorization", "UnitNormalization",
}  # fmt: skip
BY_RANK = (
    "AdaptiveAveragePooling", "AdaptiveMaxPooling", "AveragePooling", "Cropping", "GlobalAveragePooling",
    "GlobalMaxPooling", "MaxPooling", "SpatialDropout", "UpSampling", "ZeroPadding",
)  # fmt: skip
WITHOUT |= {f"{name}{rank}D" for name in BY_RANK for rank in (1, 2, 3)}


def model_of(build, shapes):
    inputs = [
        layers.Input(batch_shape=shape[1:])
        if shape[0] == "batch"
        else layers.Input(shape[1], dtype=shape[0])
        if isinstance(shape[0], str)
        else layers.Input(shape)
        for shape in shapes
    ]
    layer = build()
    attention = isinstance(layer, layers.MultiHeadAttention | layers.GroupQueryAttention)
    outputs = layer(*inputs) if attention else layer(inputs if len(inputs) > 1 else inputs[0])
    return keras.Model(inputs, outputs)


def array(variable):
    return np.array(ops.convert_to_numpy(ops.cast(variable, "float32")), "float64")


def perturb(model):
    for variable in model.weights:
        variable.assign(variable + ops.cast(77, variable.dtype))


def assert_as_new(model, new, apart=()):
    """Each weight has the mean and deviation of a new model's, within six standard errors of both draws."""
    assert len(model.weights) == len(new.weights)
    for variable, fresh in zip(model.weights, new.weights, strict=True):
        if variable.path in apart:
            continue
        now, then = array(variable), array(fresh)
        if not np.ptp(then):
            np.testing.assert_array_equal(now, then, err_msg=variable.path)
            continue
        spread, error = then.std(), 6 * (2 / now.size) ** 0.5
        assert abs(now.mean() - then.mean()) < spread * error, variable.path
        assert abs(now.std() / spread - 1) < error, variable.path


@pytest.mark.parametrize("name", WEIGHTED)
def test_each_layer_of_keras_starts_over(name):
    build, shapes = WEIGHTED[name]
    model, new = model_of(build, shapes), model_of(build, shapes)
    assert model.weights
    perturb(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.initialize(model, None, seed=0)
    assert report.kept == ()
    assert all(row.initializer for row in report.rows)
    assert_as_new(model, new)


def test_the_table_has_every_layer_of_keras_that_has_weights():
    public = {
        cls.__name__
        for cls in vars(layers).values()
        if inspect.isclass(cls) and issubclass(cls, layers.Layer)
    }
    assert public == {*WEIGHTED, *WITHOUT, *APART}


def test_what_normalization_was_adapted_to_stays_and_what_a_batch_normalization_saw_goes(rng):
    model = keras.Sequential(
        [layers.Input((4,)), layers.Normalization(name="n"), layers.BatchNormalization(name="b")]
    )
    model.get_layer("n").adapt(rng.normal(3.0, 2.0, (50, 4)))
    adapted = [array(v) for v in model.get_layer("n").weights]
    model.get_layer("b").moving_mean.assign(np.full(4, 9.0))
    report = initx.initialize(model, None, seed=0)
    for variable, value in zip(model.get_layer("n").weights, adapted, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    assert not array(model.get_layer("b").moving_mean).any()
    assert report.kept == ()
    notes = {row.path: row.note for row in report.rows}
    assert notes["n/mean"] == "adapted to data: left as it is"


class Scale(layers.Layer):
    """A scale of each channel, as LayerScale has it, and a matrix with Keras' default."""

    def __init__(self, start=0.1, **options):
        super().__init__(**options)
        self.start = start

    def build(self, shape):
        self.factors = self.add_weight((shape[-1],), keras.initializers.Constant(self.start), name="factors")
        self.mixing = self.add_weight((shape[-1], shape[-1]), name="mixing")
        self.steps = self.add_weight((), "zeros", dtype="int32", trainable=False, name="steps")

    def call(self, inputs):
        return inputs @ self.mixing * self.factors

    def get_config(self):
        return super().get_config() | {"start": self.start}


class Block(layers.Layer):
    """Sublayers, a weight of its own beside them, and a table made from an array."""

    def __init__(self, units=32, **options):
        super().__init__(**options)
        self.units = units
        self.inner, self.scale = layers.Dense(units, name="inner"), Scale(name="scale")
        self.table = keras.Variable(np.arange(3.0), trainable=False, name="table")

    def build(self, shape):
        self.token = self.add_weight(
            (1, shape[-1]), lambda shape, dtype: ops.full(shape, 5, dtype), name="token"
        )
        self.inner.build(shape)
        self.scale.build((*shape[:-1], self.units))

    def call(self, inputs):
        return self.scale(self.inner(inputs + self.token))

    def get_config(self):
        return super().get_config() | {"units": self.units}


class Whole(keras.Model):
    """A model of its own class, with a weight and a block that it shares."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = layers.Dense(32, name="first")
        self.block = Block(name="shared")

    def build(self, shape):
        self.temperature = self.add_weight((), keras.initializers.Constant(2.0), name="temperature")
        self.first.build(shape)
        self.block.build((*shape[:-1], 32))

    def call(self, inputs):
        return self.block(self.block(self.first(inputs))) / self.temperature


def mine(dtype="float32"):
    inputs = layers.Input((5, 16))
    outputs = Whole(dtype=dtype, name="whole")(Scale(0.5, dtype=dtype, name="scale")(inputs))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("scheme", [None, "by_role", "initx>HeScaled"])
def test_layers_of_ones_own_start_over_too(scheme):
    model, new = mine(), mine()
    perturb(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.initialize(model, scheme, seed=0)
    assert report.kept == ()
    # The kernels are what the scheme is for, those of layers by hand, too: all else is the layers' own.
    drawn = {id(site.kernel) for site in iter_kernels(model) if site.fans} if scheme else ()
    kernel = [v.path for v in model.weights if id(v) in drawn]
    assert_as_new(model, new, kernel)


def test_the_draws_of_copies_follow_the_seed_and_differ_by_path():
    one, other = mine(), mine()
    initx.initialize(one, None, seed=4)
    initx.initialize(other, None, seed=4)
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b), err_msg=a.path)
    mixing = [array(v) for v in one.weights if v.name == "mixing" and v.shape == (32, 32)]
    initx.initialize(other, None, seed=5)
    (again,) = (array(v) for v in other.weights if v.name == "mixing" and v.shape == (32, 32))
    assert abs(np.corrcoef(mixing[0].ravel(), again.ravel())[0, 1]) < 6 / 32


def number(name):
    return int(f"0{name.removeprefix('dense').removeprefix('_')}")


def test_copies_leave_names_and_random_numbers_as_they_were():
    model = mine()
    name = number(layers.Dense(1).name)
    keras.utils.set_random_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    initx.initialize(model, None, seed=0)
    assert random.getstate() == states[0]
    drawn = array(keras.random.normal((3,)))
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert number(layers.Dense(1).name) == name + 1
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(array(keras.random.normal((3,))), drawn)


def test_copies_hold_no_values(monkeypatch):
    """Each random weight is drawn once: a copy that had values would draw its own."""
    model, drawn = mine(), []
    original = keras.initializers.GlorotUniform.__call__

    def counted(self, shape, dtype=None):
        drawn.append(tuple(shape))
        return original(self, shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", counted)
    initx.initialize(model, None, seed=0)
    assert sorted(drawn) == sorted(tuple(v.shape) for v in model.weights if v.name in ("kernel", "mixing"))


class Untold(layers.Layer):
    """Cannot be made again: its argument is in no config and no attribute."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.hidden = function

    def build(self, shape):
        random = keras.random.normal((shape[-1], 4))
        self.kernel = keras.Variable(random, name="kernel")  # a tensor tells nothing of its making
        self.bias = keras.Variable(ops.ones((4,)), name="bias")

    def call(self, inputs):
        return self.hidden(inputs @ self.kernel + self.bias)

    def get_config(self):
        return super().get_config()


class Carried(layers.Layer):
    """Its config holds what it has learned."""

    def __init__(self, values, **options):
        super().__init__(**options)
        self.learned = keras.Variable(np.asarray(values, "float32"), name="learned")

    def call(self, inputs):
        return inputs * self.learned

    def get_config(self):
        return super().get_config() | {"values": array(self.learned).tolist()}


def test_what_nothing_tells_is_left_and_said():
    model = keras.Sequential(
        [
            layers.Input((4,)),
            Untold(ops.tanh, name="a"),
            Carried([1.0, 2, 3, 4], name="b"),
            layers.Dense(2, name="c"),
        ]
    )
    perturb(model)
    before = [array(v) for v in model.weights]
    with pytest.warns(
        UserWarning,
        match="left 3 of 5 weights, 71% of .*, as they are.*`a`, `a/bias`, `b/learned`.*`overrides`",
    ) as caught:
        report = initx.initialize(model, None, seed=0)
    assert __file__ in {one.filename for one in caught if "left 3 of 5 weights" in str(one.message)}
    assert report.kept == ("a", "a/bias", "b/learned")
    assert str(report).startswith("saw 1 of 2 kernels, 33 % of their parameters; not a\n")
    assert (report.unseen, report.seen) == (("a",), pytest.approx(8 / 24))
    for variable, value in list(zip(model.weights, before, strict=True))[:3]:
        np.testing.assert_array_equal(array(variable), value)
    cured = initx.initialize(model, None, seed=0, overrides={"a": "he_normal", "b": "ones"})
    assert cured.kept == cured.unseen == ()
    assert not str(cured).startswith("saw")
    assert array(model.weights[2]).tolist() == [1, 1, 1, 1]


def test_kept_are_not_the_frozen_the_excluded_and_the_quantized():
    model = keras.Sequential([layers.Input((4,)), Untold(ops.tanh, name="a"), layers.Dense(2, name="c")])
    model.get_layer("a").trainable = False
    model.get_layer("c").enable_lora(1)
    assert initx.initialize(model, None, seed=0).kept == ()
    model.get_layer("a").trainable = True
    assert initx.initialize(model, None, seed=0, exclude="a").kept == ()


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["Gemma", "T5", "ViT"])
def test_backbones_of_keras_hub_start_over(name):
    model, new = backbone(name), backbone(name)
    perturb(model)
    report = initx.initialize(model, None, seed=0)
    assert report.kept == ()
    assert_as_new(model, new)
