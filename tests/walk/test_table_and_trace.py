"""The table of layer classes and the trace of operations tell the same of each layer of Keras.

The trace runs on layers that it is not needed for. Where the two disagree, one of them has a fault.
"""

import keras
import pytest
from keras import layers

from keras_initx._keras_internals import flatten_layers
from keras_initx.walk import iter_kernels
from keras_initx.walk._layers import ATTENTION, kernel_layers
from support.table_and_trace import assert_all_alike

SEQUENCE, IMAGE, VOLUME = (8, 4), (8, 8, 4), (4, 4, 4, 2)
# For each layer, the shape of its input, and what else its call takes.
LAYERS = {
    "dense": (lambda: layers.Dense(3), (4,)),
    "dense of one unit": (lambda: layers.Dense(1), (4,)),
    "dense of one input": (lambda: layers.Dense(3), (1,)),
    "dense over time": (lambda: layers.Dense(3, "relu"), SEQUENCE),
    "conv1d": (lambda: layers.Conv1D(3, 2), SEQUENCE),
    "conv1d strided": (lambda: layers.Conv1D(6, 4, strides=2, padding="same"), SEQUENCE),
    "conv1d causal groups": (lambda: layers.Conv1D(6, 3, padding="causal", groups=2), SEQUENCE),
    "conv1d of one tap": (lambda: layers.Conv1D(3, 1, strides=2), SEQUENCE),
    "conv2d": (lambda: layers.Conv2D(3, 3), IMAGE),
    "conv2d strided": (lambda: layers.Conv2D(6, 4, strides=2), IMAGE),
    "conv2d of unequal sides": (lambda: layers.Conv2D(6, (1, 3), strides=(1, 2)), IMAGE),
    "conv2d dilated": (lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same"), IMAGE),
    "conv2d 2 groups": (lambda: layers.Conv2D(6, 3, groups=2), IMAGE),
    "conv2d of one channel in each group": (lambda: layers.Conv2D(4, 3, groups=4), IMAGE),
    "conv2d of two channels in each group": (lambda: layers.Conv2D(8, 3, groups=4), IMAGE),
    "conv2d of one pixel": (lambda: layers.Conv2D(3, 1, strides=2), IMAGE),
    "conv3d": (lambda: layers.Conv3D(3, 2), VOLUME),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3, strides=2, depth_multiplier=2), SEQUENCE),
    "depthwise2d": (lambda: layers.DepthwiseConv2D(3), IMAGE),
    "depthwise2d multiplied": (lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2), IMAGE),
    "separable1d": (lambda: layers.SeparableConv1D(5, 2, depth_multiplier=3), SEQUENCE),
    "separable2d": (lambda: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2), IMAGE),
    "transposed1d": (lambda: layers.Conv1DTranspose(3, 4, strides=2), SEQUENCE),
    "transposed2d": (lambda: layers.Conv2DTranspose(3, 4, strides=2, padding="same"), IMAGE),
    "transposed3d": (lambda: layers.Conv3DTranspose(3, 2), VOLUME),
    "einsum to heads": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        SEQUENCE,
    ),
    "einsum from heads": (lambda: layers.EinsumDense("abcd,cde->abe", (None, 3), bias_axes="e"), (5, 2, 4)),
    "einsum per head": (lambda: layers.EinsumDense("abhc,hcd->abhd", (5, 2, 3)), (5, 2, 4)),
    "einsum outputs first": (lambda: layers.EinsumDense("abc,dc->abd", (None, 3), bias_axes="d"), SEQUENCE),
    "einsum of any rank": (lambda: layers.EinsumDense("...x,xy->...y", (3,), bias_axes="y"), SEQUENCE),
    "attention": (lambda: layers.MultiHeadAttention(2, 3), SEQUENCE),
    "grouped attention": (lambda: layers.GroupQueryAttention(3, 4, 2), SEQUENCE),
    "simple rnn": (lambda: layers.SimpleRNN(3), SEQUENCE),
    "lstm": (lambda: layers.LSTM(3), SEQUENCE),
    "gru": (lambda: layers.GRU(3), SEQUENCE),
    "gru that resets before": (lambda: layers.GRU(3, reset_after=False), SEQUENCE),
    "conv lstm 1d": (lambda: layers.ConvLSTM1D(3, 2), (3, 8, 4)),
    "conv lstm 2d": (lambda: layers.ConvLSTM2D(3, 2), (3, *IMAGE)),
    "conv lstm 3d": (lambda: layers.ConvLSTM3D(3, 2), (3, *VOLUME)),
    "stacked cells": (lambda: layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)]), SEQUENCE),
    "both directions": (lambda: layers.Bidirectional(layers.GRU(3)), SEQUENCE),
    "each time step": (lambda: layers.TimeDistributed(layers.Dense(3)), SEQUENCE),
    "spectral norm": (lambda: layers.SpectralNormalization(layers.Dense(3)), (4,)),
    "embedding": (lambda: layers.Embedding(10, 4), (6,)),
    "tied embedding": (lambda: layers.ReversibleEmbedding(10, 4), (6,)),
    "reversible embedding": (lambda: layers.ReversibleEmbedding(10, 4, tie_weights=False), (6,)),
    "batch norm": (layers.BatchNormalization, IMAGE),
    "group norm": (lambda: layers.GroupNormalization(2), IMAGE),
    "layer norm": (layers.LayerNormalization, IMAGE),
    "rms norm": (layers.RMSNormalization, IMAGE),
}


def model_of(name):
    make, shape = LAYERS[name]
    layer = make()
    # The values do not matter, and JAX compiles each draw for a second.
    for own in flatten_layers(layer):
        for attribute in [key for key in vars(own) if key.endswith("_initializer")]:
            setattr(own, attribute, keras.initializers.Zeros())
    inputs = layers.Input(shape, dtype="int32" if "embedding" in name else None)
    outputs = layer(inputs, inputs) if isinstance(layer, ATTENTION) else layer(inputs)
    if isinstance(layer, layers.ReversibleEmbedding):
        outputs = layer(outputs, reverse=True)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("name", LAYERS)
def test_table_and_trace_tell_the_same_of_a_layer(name):
    assert_all_alike(model_of(name))


@pytest.mark.tensorflow
def test_each_class_of_the_table_is_compared():
    compared = set()
    for name in LAYERS:
        compared |= {type(site.layer) for site in iter_kernels(model_of(name), trace=False)}
    own = {
        cls
        for cls, rule in kernel_layers().items()
        if not rule.taught and cls.__module__.startswith("keras.")
    }
    assert own - compared == set()
