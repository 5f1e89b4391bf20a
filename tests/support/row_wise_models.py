"""Models that are not row-wise, one for each way, and models that are."""

import keras
from keras import layers, ops

from support.exported_models import mobilenet, several


class Function(layers.Layer):
    """A function as a layer; it has as many rows as its input."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def of(*functions, shape=(3,), dtype="float32"):
    inputs = tensor = layers.Input(shape, dtype=dtype, name="x")
    for function in functions:
        layer = function if isinstance(function, layers.Layer) else Function(function)
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


class InTraining(layers.Layer):
    """Runs a layer as in training, whatever it is told."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs, training=True)


def attention_over_the_batch(x):
    return ops.softmax(x @ ops.transpose(x)) @ x


def masked_attention_over_the_batch(x):
    """Attends to itself alone, but by a product with zeros, through which NaN and infinity leak."""
    return ops.matmul(ops.eye(ops.shape(x)[0]), x)


def padded_to_the_longest():
    """As many columns as the row with the largest count needs."""
    import tensorflow as tf

    class Longest(Function):
        def compute_output_spec(self, inputs):
            return keras.KerasTensor((None, None), inputs.dtype)

    return of(Longest(lambda x: tf.sequence_mask(tf.cast(tf.abs(x[:, 0]) * 3, "int32") % 9, dtype=x.dtype)))


def flattened():
    class Flat(Function):
        def compute_output_spec(self, inputs):
            return keras.KerasTensor((None,), inputs.dtype)

    return of(Flat(lambda x: ops.reshape(x, (-1,))))


class Counter(layers.Layer):
    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, inputs):
        self.count.assign(self.count + 1)
        return inputs + self.count


def experts_of_a_capacity(x):
    """Two experts by the sign of a feature; each takes its first rows, and zeros the others."""
    chosen = ops.one_hot(ops.cast(x[:, 0] > 0, "int32"), 2, dtype="int32")
    place = ops.sum(ops.cumsum(chosen, 0) * chosen, 1)
    room = ops.maximum(4, ops.cast(ops.ceil(0.625 * ops.cast(ops.shape(x)[0], "float32")), "int32"))
    return ops.where((place <= room)[:, None], 2 * x, 0 * x)


# Each with a part of the reason that is told.
NOT_ROW_WISE = {
    "batch norm in training": (lambda: of(InTraining(layers.BatchNormalization())), "of a row"),
    "batch mean": (lambda: of(lambda x: x - ops.mean(x, 0)), "of a row"),
    "sorting": (lambda: of(lambda x: ops.sort(x, 0)), "of a row"),
    "softmax over the rows": (lambda: of(lambda x: ops.softmax(x, 0)), "of a row"),
    "attention over the batch": (lambda: of(attention_over_the_batch), "of a row"),
    "attention that masks by zeros": (lambda: of(masked_attention_over_the_batch), "of a row changes"),
    "size of the batch": (lambda: of(lambda x: x / ops.cast(ops.shape(x)[0], x.dtype)), "of a row differs"),
    "experts of a capacity": (lambda: of(experts_of_a_capacity), "of a row differs"),
    "padded to the longest": (padded_to_the_longest, "the shape of its output"),
    "not one row for each": (flattened, "does not have one row for each row"),
    "a counter": (lambda: of(Counter()), "it keeps a state"),
    "dropout": (lambda: of(InTraining(layers.Dropout(0.5))), "or draws at random"),
    "integers that are sorted": (lambda: of(lambda x: ops.sort(x, 0), dtype="int32"), "of a row changes"),
    "tokens that are sorted": (
        lambda: of(layers.Embedding(9, 2), lambda x: ops.sort(x, 0), dtype="int32"),
        "of a row differs",
    ),
    "an open axis": (lambda: of(lambda x: x - ops.mean(x, 0), shape=(None, 3)), "of a row"),
}


def attention():
    inputs = layers.Input((None, 4), name="x")
    return keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))


ROW_WISE = {
    "dense": lambda: of(layers.Dense(5, "relu"), layers.Dense(1)),
    "convolutions": lambda: of(
        layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3), shape=(6, 6, 1)
    ),
    "lstm of an open axis": lambda: of(layers.LSTM(4), shape=(None, 2)),
    "attention": attention,
    "norms": lambda: of(
        layers.BatchNormalization(), layers.LayerNormalization(), layers.Dense(2), shape=(5,)
    ),
    "tokens": lambda: of(
        layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), dtype="int32", shape=(None,)
    ),
    "two inputs and two outputs": lambda: several()[0],
    "mobilenet": lambda: mobilenet()[0],
    "bytes": lambda: of(layers.Rescaling(1 / 255), layers.Dense(2), shape=(4,), dtype="uint8"),
    "float64": lambda: of(layers.Dense(2, dtype="float64"), dtype="float64"),
    "half precision": lambda: of(layers.Dense(8, "relu", dtype="mixed_bfloat16"), shape=(8,)),
}
