"""The tables of Keras' layers agree with each other and with the Keras that is installed.

A failed test after an update of Keras names a layer that `keras_initx/walk/_layers.py` is to be taught.
"""

import inspect

import keras
import pytest
from keras import layers

from keras_initx import recurrence, walk
from keras_initx._keras_internals import conv_lstm_cell
from keras_initx.initializers import _gates, _recurrent
from keras_initx.strategies import _autoinit, _signal_maps
from keras_initx.walk import _layers, _units

pytestmark = pytest.mark.tensorflow

# Layers of Keras that no table has, by why.
STRUCTURE = "it holds other layers, or stands for an input"
NO_KERNEL = "it has no kernel, and no effect on a signal that is known from its name alone"
PREPROCESSING = "it prepares data before the model"
ADAPTIVE = "not taught yet: its windows differ from place to place"
UNTAUGHT = {
    **{f"Adaptive{kind}Pooling{n}D": ADAPTIVE for kind in ("Average", "Max") for n in (1, 2, 3)},
    "AdditiveAttention": "its only weight has one axis; the mix of its values has no map",
    "Attention": "it has no kernel; AutoInit has a map of its own",
    "AugMix": PREPROCESSING,
    "AutoContrast": PREPROCESSING,
    "CategoryEncoding": PREPROCESSING,
    "CenterCrop": PREPROCESSING,
    "ContrastLimitedAdaptiveHistogramEqualization": PREPROCESSING,
    "CutMix": PREPROCESSING,
    "Discretization": PREPROCESSING,
    "Equalization": PREPROCESSING,
    "FlaxLayer": "the user's function decides",
    "HashedCrossing": PREPROCESSING,
    "Hashing": PREPROCESSING,
    "InputLayer": STRUCTURE,
    "IntegerLookup": PREPROCESSING,
    "JaxLayer": "the user's function decides",
    "Lambda": "the user's function decides",
    "MaxNumBoundingBoxes": PREPROCESSING,
    "Maximum": NO_KERNEL,
    "MelSpectrogram": PREPROCESSING,
    "Minimum": NO_KERNEL,
    "MixUp": PREPROCESSING,
    "Pipeline": PREPROCESSING,
    "STFTSpectrogram": PREPROCESSING,
    "Solarization": PREPROCESSING,
    "StackedRNNCells": STRUCTURE,
    "StringLookup": PREPROCESSING,
    "TFSMLayer": "a SavedModel decides",
    "TextVectorization": PREPROCESSING,
    "TorchModuleWrapper": "the user's module decides",
}
# Names in the tables that are not Keras', by whose they are.
OTHERS = {
    "DropPath": "keras_hub's layers",
    "PositionEmbedding": "keras_hub's layer",
    "ResidualScale": "this package's layer",
}
# Where AutoInit has no map of what the table has, by why: the kernels after them are scaled for (0, 1).
NO_MAP = {
    "DropPath": "keras_hub's, with arguments of its own",
    "Flip": "AutoInit was not taught it",
    "Resize": "interpolation has no map",
    "Resizing": "interpolation has no map",
    "StochasticDepth": "of keras.applications, with arguments of its own",
    "Where": "the share of each of its signals is not known",
}
# What AutoInit has a map of beside the table, by why the rest of the package needs no entry.
ONLY_A_MAP = {
    "Activation": "an activation: `activation_of` tells which",
    "Amax": "not followed: a maximum over positions changes the distribution",
    "Attention": "a layer without projections, in which no kernel is",
    "Max": "as Amax",
    "RMSNorm": "an operation: `is_normalization` is asked of layers",
    "ResidualScale": "a row of the table of kernels",
    "Sum": "not followed: it changes the size",
}


def keras_layers():
    found = inspect.getmembers(layers, inspect.isclass)
    own = {cls.__name__: cls for _, cls in found if issubclass(cls, layers.Layer)}
    del own["Layer"]
    return own


def operations(cls=keras.Operation):
    """Names of all classes of operations and layers that Keras has loaded, private ones included."""
    found = {cls.__name__} if cls.__module__.startswith("keras.") else set()
    return found.union(*map(operations, cls.__subclasses__()))


def is_taught(cls):
    rows = cls in walk._layers.kernel_layers() or cls.__name__ in _layers.EFFECTS
    others = (*_layers.ACTIVATION_LAYERS, *_layers.NORMALIZATIONS, *_layers.ATTENTION, *_layers.LOOPS)
    return rows or issubclass(cls, (*others, layers.Wrapper))


def test_every_layer_of_keras_is_taught_or_listed_with_a_reason():
    known = {name for name, cls in keras_layers().items() if is_taught(cls)}
    augmenting = {name for name in keras_layers() if name.startswith("Rand")}
    assert set(keras_layers()) - known - augmenting == set(UNTAUGHT)


def test_no_table_names_a_class_that_keras_does_not_have():
    named = {
        *_layers.EFFECTS,
        *_layers.ACTIVATIONS,
        *_layers.PARAMETRIC,
        *_layers.HUB_LAYERS,
        *_signal_maps._MAPS,
        *_signal_maps._PASSING,
        *_autoinit.LINEAR,
        *_autoinit.EMBEDDINGS,
    }
    assert named - operations() == set(OTHERS)


def test_autoinit_has_a_map_of_each_effect_and_of_nothing_else():
    mapped = {*_signal_maps._MAPS, *_signal_maps._PASSING}
    assert set(_layers.EFFECTS) - mapped == set(NO_MAP)
    normalizations = {cls.__name__ for cls in _layers.NORMALIZATIONS}
    assert normalizations <= mapped
    assert mapped - set(_layers.EFFECTS) - normalizations == set(ONLY_A_MAP)


def test_activations_are_keras_own():
    for name in _layers.ACTIVATIONS.values():
        assert keras.activations.get(name) is getattr(keras.activations, name)


def test_linear_layers_and_embeddings_are_those_of_the_table():
    table = {cls: rule for cls, rule in _layers.kernel_layers().items() if not rule.taught}
    linear = {cls.__name__ for cls, rule in table.items() if rule.linear}
    assert linear == walk.LINEAR | walk.EMBEDDINGS
    assert not walk.LINEAR & walk.EMBEDDINGS


def test_gates_are_told_alike_by_all():
    cells = walk.cell_gates()
    assert set(cells) == {layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell, conv_lstm_cell()}
    for cls, gates in cells.items():
        layouts = {kernel.layout for kernel in _layers.kernel_layers()[cls].kernels.values()}
        assert {1 if layout == "dense" else layout.gates for layout in layouts} == {len(gates)}
    assert set(_gates._KNOWN) == {len(gates) for gates in cells.values()} - {1}
    assert {_recurrent._GRU, _recurrent._LSTM} == set(_gates._KNOWN)
    assert recurrence.gate_names(layers.LSTMCell(2)) == cells[layers.LSTMCell]


def test_units_are_known_of_each_layout_but_those_listed():
    """Of gates the units are in the loop; an einsum's are read off its equation; a scale mixes nothing."""
    kinds = set()
    for cls, rule in _layers.kernel_layers().items():
        if rule.taught:
            continue
        for kernel in rule.kernels.values():
            layout = kernel.layout(cls(2, 1)) if callable(kernel.layout) else kernel.layout
            kinds.add(getattr(layout, "kind", layout) or kernel.role)
    assert kinds - set(_units._AXES) == {"einsum", "gates", *_layers.SCALES}
    assert set(_units._AXES) <= kinds
