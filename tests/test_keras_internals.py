"""A canary: each undocumented name of Keras that the package uses, run on the installed Keras.

After an update of Keras run this file on each backend. A failed test names the function to mend of
`keras_initx/_keras_internals.py` or `_keras_optimizers.py`, and the table says what does not work until then.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx._keras_internals as internals
import keras_initx._keras_optimizers as optimizers

BREAKS_WITHOUT = {
    "GLOBAL_SEED": "Verbs with a seed move the user's random numbers, or draw other ones each time.",
    "NAME_COUNTS": "Trials of `compare` name their layers differently, so the same seed draws other weights.",
    "SEED_STATE": "Dropout has the same masks for all seeds, and `export` reports seeds as changed state.",
    "STATELESS_SCOPE": "The rows of layers by hand lose the gradients of their other weights.",
    "UNINITIALIZED": "A layer built aside is given values when the user's own scope ends.",
    "attention_scale": "The coordinate check does not see the logits of attention.",
    "build_shapes": "Subclassed models cannot be traced, so nothing knows the order of their layers.",
    "causal_padding": "Filters cannot be taken from data for a Conv1D with causal padding.",
    "collected_losses": "A trace leaves symbolic losses in the model, and `fit` fails.",
    "compiled_loss": "`compare` takes the losses of single outputs for metrics of unknown direction.",
    "conv_lstm_cell": "ConvLSTM's kernels are unknown: drawn with wrong fans, and not calibrated.",
    "copy_decay_exclusions": "An optimizer with rates by variable decays weights that are excluded.",
    "export_signature": "`export` does not know the shapes and dtypes of a model's arguments.",
    "flatten_layers": "Nothing works: layers within layers and subclassed models are not found.",
    "functional_part": "A Sequential model's signature names its inputs by no layer.",
    "given_arguments": "The diagnosis does not see that Keras lost the alpha of an adapter.",
    "global_attribute": "See GLOBAL_SEED, NAME_COUNTS and UNINITIALIZED.",
    "input_structure": "No functional or Sequential model can be traced, nor its data be checked.",
    "is_layer_of_keras": "A trace looks into Keras' own layers and takes their operations for the user's.",
    "is_of_keras": "No recurrent cell is known, so gates are not calibrated.",
    "is_rnn_code_of_keras": "No recurrent layer is known, so gates are not calibrated.",
    "learning_rate_of": "`compare` overwrites a schedule with one of its learning rates.",
    "leaves_to_adamw": "`MuP` gives kernels that Muon steps the learning rates of AdamW.",
    "loss_weights": "`compare` takes a loss with a negative weight for one that 0 bounds.",
    "mask_of": "`compare` shows a chance level that ignores masks.",
    "metric_direction": "`compare` asks for the direction of a metric that Keras knows.",
    "optimized_variables": "The diagnosis steps the wrong variables where some are frozen.",
    "optimizer_hooks": "Factors of weight decay, and on PyTorch of learning rates, have no effect.",
    "own_trainable_variables": "A wrapper's kernels are taken for its own, and reported twice.",
    "own_variables": "Biases and statistics are attributed to each layer that holds them.",
    "pending_initializer": "Weights of users' layers cannot be drawn anew as the layer draws them.",
    "producer_of": "A signature names its inputs by numbers that differ in each process.",
    "quantized_weight": "The kernel of a quantized layer is missing from the report.",
    "set_global_attribute": "See GLOBAL_SEED, NAME_COUNTS and UNINITIALIZED.",
    "set_path": "The diagnosis decays weights that the optimizer leaves out.",
    "stepping_class": "On PyTorch Nadam counts one step as several where learning rates differ.",
    "unpickled": "An optimizer with rates by variable cannot be pickled or copied.",
    "unseeded_torch": "On PyTorch a layer with noise makes the kernels of all layers by hand unknown.",
    "variable_index": "No optimizer with rates by variable can step.",
    "without_nodes": "Layers with an output of None make the trace fail.",
    "wrapped_function": "`compare` asks for the direction of each metric of a plain function.",
}  # fmt: skip


def _functional():
    inputs = keras.Input((4,), name="in")
    hidden = layers.Dense(3, name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.BatchNormalization(name="norm")(hidden)))


class Doubled(keras.Model):
    """Subclassed, with one layer and a variable that is not trainable."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, x):
        return 2 * self.dense(x)


def test_the_table_names_every_function_and_constant():
    assert set(BREAKS_WITHOUT) == {*internals.__all__, *optimizers.__all__}
    for module in (internals, optimizers):
        functions = [found for _, found in inspect.getmembers(module, inspect.isfunction)]
        own = [found for found in functions if found.__module__ == module.__name__]
        assert {found.__name__ for found in own} == {name for name in module.__all__ if name.islower()}
        assert all(found.__doc__ and found.__annotations__ for found in own)
    assert {name for name in vars(internals) if name.isupper()} <= set(BREAKS_WITHOUT)


def test_flatten_layers():
    inner = keras.Sequential([layers.Dense(2, name="dense")], name="inner")
    model = keras.Sequential([inner], name="outer")
    assert [layer.name for layer in internals.flatten_layers(model)] == ["outer", "inner", "dense"]
    assert [layer.name for layer in internals.flatten_layers(model, include_self=False)] == ["inner", "dense"]
    assert [layer.name for layer in internals.flatten_layers(model, False, recursive=False)] == ["inner"]


def test_own_variables():
    model = Doubled()
    model.build((None, 4))
    model.dense.trainable = False
    assert [v.name for v in internals.own_variables(model)] == ["count"]
    assert internals.own_trainable_variables(model) == []
    assert [v.name for v in internals.own_trainable_variables(model.dense)] == ["kernel", "bias"]
    norm = layers.BatchNormalization()
    norm.build((None, 2))
    names = [v.name for v in internals.own_variables(norm)]
    assert names[:4] == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_quantized_weight():
    dense = layers.Dense(2)
    dense.build((None, 4))
    dense.quantize("int8")
    assert internals.quantized_weight(dense, "kernel").dtype == "int8"
    assert internals.quantized_weight(dense, "other") is None


def test_pending_initializer():
    with keras.StatelessScope(initialize_variables=False):
        dense = layers.Dense(2, kernel_initializer="ones")
        dense.build((None, 4))
        assert isinstance(internals.pending_initializer(dense.kernel), keras.initializers.Ones)
    variable = keras.Variable(np.ones(2))
    assert internals.pending_initializer(variable) is None


def test_set_path():
    variable = keras.Variable(np.ones(2), name="alone")
    internals.set_path(variable, "block/alone")
    assert variable.path == "block/alone"


def test_attention_scale():
    class Own(layers.MultiHeadAttention):
        def _compute_attention(self, query, key, value, *args, **options):
            return value, None

    for layer in (layers.MultiHeadAttention(2, 16), layers.GroupQueryAttention(16, 4, 2)):
        assert internals.attention_scale(layer) == 0.25
    assert internals.attention_scale(Own(2, 16)) is None
    assert internals.attention_scale(layers.Dense(2)) is None


def test_causal_padding():
    layer = layers.Conv1D(2, kernel_size=3, padding="causal", data_format="channels_last")
    assert [list(pair) for pair in internals.causal_padding(layer)] == [[0, 0], [2, 0], [0, 0]]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_lstm_cell(rank):
    layer = getattr(layers, f"ConvLSTM{rank}D")(2, kernel_size=1)
    assert isinstance(layer.cell, internals.conv_lstm_cell())


def test_where_code_comes_from():
    class Mine(layers.LSTM):
        def call(self, x):
            return x

    assert internals.is_of_keras(layers.LSTMCell)
    assert internals.is_of_keras(layers.LSTMCell.call)
    assert not internals.is_of_keras(Mine)
    assert internals.is_rnn_code_of_keras(layers.RNN)
    assert not internals.is_rnn_code_of_keras(layers.Dense)
    assert not internals.is_rnn_code_of_keras(Mine)
    assert internals.is_layer_of_keras(layers.Dense(2))
    assert not internals.is_layer_of_keras(Mine(2))
    assert not internals.is_layer_of_keras(keras.Sequential())


def test_functional_part_and_input_structure():
    model = _functional()
    assert internals.functional_part(model) is None
    assert internals.input_structure(model).shape == (None, 4)
    sequential = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    assert internals.functional_part(sequential).output_names == [sequential.layers[-1].name]
    assert internals.input_structure(sequential).shape == (None, 5)
    unbuilt = keras.Sequential([layers.Dense(2)])
    assert internals.input_structure(unbuilt) is None
    assert internals.functional_part(unbuilt) is None
    assert internals.input_structure(Doubled()) is None


def test_input_structure_is_that_of_a_dict():
    inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(inputs, layers.Concatenate()([inputs["a"], inputs["b"]]))
    assert {name: spec.shape for name, spec in internals.input_structure(model).items()} == {
        "a": (None, 1),
        "b": (None, 2),
    }


def test_build_shapes():
    model = Doubled()
    assert internals.build_shapes(model) == {}
    model(np.ones((3, 4), "float32"))
    assert list(internals.build_shapes(model).values()) == [(3, 4)]


def test_producer_of():
    model = _functional()
    assert internals.producer_of(model.inputs[0]).name == "in"
    assert internals.producer_of(model.outputs[0]) is model.get_layer("head")


def test_mask_of():
    masked = layers.Embedding(5, 2, mask_zero=True)(np.array([[1, 0]]))
    assert ops.convert_to_numpy(internals.mask_of(masked)).tolist() == [[True, False]]
    assert internals.mask_of(layers.Embedding(5, 2)(np.array([[1, 0]]))) is None


def test_collected_losses():
    layer = layers.ActivityRegularization(l2=1.0)
    layer(np.ones((2, 3), "float32"))
    found = internals.collected_losses(layer)
    assert len(found) == 1
    del found[:]
    assert not layer.losses


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="it is PyTorch's")
def test_unseeded_torch():
    from keras.src.backend.torch import random

    def drawn():
        return keras.ops.convert_to_numpy(keras.random.normal((4,), seed=1)).tolist()

    before = random.torch_seed_generator
    with internals.unseeded_torch():
        assert drawn() != drawn()
    assert random.torch_seed_generator is before
    assert drawn() == drawn()


def test_without_nodes():
    class Halves(layers.Layer):
        """One of its outputs is None, which Keras' nodes refuse."""

        def call(self, x):
            return x, None

        def compute_output_spec(self, x):
            return x, None

    tensor = keras.KerasTensor((2, 3))
    layer, off = layers.Dense(2), []
    with internals.without_nodes(lambda: not off):
        assert not hasattr(layer(tensor), "_keras_history")
        assert Halves()(tensor)[1] is None
        off.append(True)
        assert internals.producer_of(layer(tensor)) is layer
    with pytest.raises(ValueError, match="outputs must be tensors"):
        Halves()(tensor)


def test_compiled_loss_and_loss_weights():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in "ab"})
    assert internals.compiled_loss(model) is None
    assert internals.loss_weights(model) is None
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": -1.0})
    model.evaluate(np.ones((2, 4)), {name: np.ones((2, 1)) for name in "ab"}, verbose=0)
    assert sorted(one.name for one in internals.compiled_loss(model).metrics) == ["a_loss", "b_loss"]
    assert internals.loss_weights(model) == {"a": 1.0, "b": -1.0}


def test_wrapped_function():
    metric = keras.metrics.MeanSquaredError()
    assert internals.wrapped_function(metric) is keras.metrics.mean_squared_error
    assert internals.wrapped_function(keras.metrics.Mean()) is None


def test_metric_direction():
    assert internals.metric_direction(keras.metrics.BinaryAccuracy()) == "max"
    assert internals.metric_direction(keras.metrics.MeanSquaredError()) == "min"
    assert internals.metric_direction(keras.metrics.Mean()) is None


def test_learning_rate_of():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert optimizers.learning_rate_of(keras.optimizers.SGD(schedule)) is schedule
    assert isinstance(optimizers.learning_rate_of(keras.optimizers.SGD(0.1)), keras.Variable)
    assert optimizers.learning_rate_of(None) is None


def test_optimized_variables():
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(3))]
    optimizer = keras.optimizers.Adam()
    optimizer.build(variables)
    variables[0].trainable = False
    found = optimizers.optimized_variables(optimizer)
    assert [one is other for one, other in zip(found, variables, strict=True)] == [True, True]


def test_variable_index():
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(3))]
    optimizer = keras.optimizers.SGD()
    optimizer.build(variables)
    assert [optimizers.variable_index(optimizer, variable) for variable in variables[::-1]] == [1, 0]


def test_leaves_to_adamw():
    dense, embedding = layers.Dense(2, name="dense"), layers.Embedding(3, 2, name="embedding")
    for layer in (dense, embedding):
        layer.build((None, 4))
    found = [
        (v, o, e)
        for v in (dense.kernel, dense.bias, embedding.embeddings)
        for o in ((), ("den",))
        for e in (0, 1)
    ]
    told = [optimizers.leaves_to_adamw(*one) for one in found]
    assert told == [False, False, True, True] + [True] * 4 + [False, True, False, True]
    muon = keras.optimizers.Muon(exclude_layers=["den"])
    muon.build([dense.kernel, dense.bias, embedding.embeddings])
    names = [v.name for v in muon.variables if v.name.endswith("velocity")]
    assert len(names) == 3  # AdamW's slots


def test_copy_decay_exclusions():
    source, target = keras.optimizers.AdamW(weight_decay=1.0), keras.optimizers.AdamW(1.0, weight_decay=0.5)
    source.exclude_from_weight_decay(var_names=["out"])
    optimizers.copy_decay_exclusions(source, target)
    variables = [keras.Variable(np.ones(1), name="out"), keras.Variable(np.ones(1), name="in")]
    target.apply([ops.zeros((1,))] * 2, variables)
    assert [ops.convert_to_numpy(v).tolist() for v in variables] == [[1.0], [0.5]]


@pytest.mark.parametrize("name", ["AdamW", "Nadam", "SGD"])
def test_optimizer_hooks_and_stepping_class(name):
    seen = []

    def decay(optimizer, variables, own):
        seen.append(("decay", len(variables)))
        own(optimizer, variables)

    def step(optimizer, gradients, variables, learning_rate, own):
        seen.append(("step", len(variables)))
        own(optimizer, gradients, variables, learning_rate)

    plain = getattr(keras.optimizers, name)(0.1, weight_decay=0.1)
    base = optimizers.stepping_class(type(plain))
    made = type("Made", (base,), optimizers.optimizer_hooks(base, decay, step))(0.1, weight_decay=0.1)
    pairs = [[keras.Variable(np.ones(2)), keras.Variable(np.ones(3))] for _ in range(2)]
    for optimizer, variables in zip((plain, made), pairs, strict=True):
        optimizer.apply([ops.ones((2,)), ops.ones((3,))], variables)
    np.testing.assert_allclose(*(ops.convert_to_numpy(v[0]) for v in pairs), rtol=1e-5)
    together = keras.backend.backend() == "torch" and name != "Nadam"
    assert seen == [("decay", 2), *([("step", 2)] if together else [])]
    assert issubclass(base, getattr(keras.optimizers, name))


def test_unpickled():
    optimizer = keras.optimizers.SGD(0.25)
    _, (saved,) = optimizer.__reduce__()
    assert float(ops.convert_to_numpy(optimizers.unpickled(saved).learning_rate)) == 0.25


def test_global_attribute_of_names():
    before = internals.global_attribute(internals.NAME_COUNTS)
    try:
        internals.set_global_attribute(internals.NAME_COUNTS, None)
        assert layers.Dense(1).name == layers.Dense(1).name.removesuffix("_1") == "dense"
        assert internals.global_attribute(internals.NAME_COUNTS)["dense"] == 2
    finally:
        internals.set_global_attribute(internals.NAME_COUNTS, before)


def test_global_attribute_of_the_seed():
    before = internals.global_attribute(internals.GLOBAL_SEED)
    try:
        draws = []
        for _ in range(2):
            name = internals.GLOBAL_SEED
            internals.set_global_attribute(name, keras.random.SeedGenerator(7, name=name))
            draws.append(float(keras.random.uniform(())))
        assert draws[0] == draws[1]
    finally:
        internals.set_global_attribute(internals.GLOBAL_SEED, before)


def test_global_attribute_of_variables_without_values():
    before = internals.global_attribute(internals.UNINITIALIZED)
    internals.set_global_attribute(internals.UNINITIALIZED, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            made = keras.Variable(keras.initializers.Ones(), shape=(2,))
            assert [v is made for v in internals.global_attribute(internals.UNINITIALIZED)] == [True]
            internals.set_global_attribute(internals.UNINITIALIZED, [])
        assert internals.pending_initializer(made) is not None  # as the scope no longer knows it
    finally:
        internals.set_global_attribute(internals.UNINITIALIZED, before)


def test_stateless_scope():
    with keras.StatelessScope() as scope:
        assert internals.global_attribute(internals.STATELESS_SCOPE) is scope
    assert internals.global_attribute(internals.STATELESS_SCOPE) is None


def test_seed_state():
    dropout = layers.Dropout(0.5)
    dropout.build((None, 2))
    assert [v.path.endswith(internals.SEED_STATE) for v in dropout.variables] == [True]


def test_export_signature():
    (spec,) = internals.export_signature(_functional())
    assert (spec.shape, spec.dtype) == ((None, 4), "float32")
    model = Doubled()
    model(np.ones((3, 4), "float32"))
    assert [tuple(spec.shape) for spec in internals.export_signature(model)] == [(None, 4)]


def test_keras_keeps_the_arguments_of_a_layer():
    layer = layers.Dense(3, lora_rank=2, lora_alpha=8)
    assert internals.given_arguments(layer)["lora_alpha"] == 8
