"""Names and dtypes of the inputs and outputs of a signature."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_initx._types import Tensor

if TYPE_CHECKING:
    import tensorflow as tf

_HALF_PRECISION = ("bfloat16", "float16")

# A dtype by its name, or as NumPy or TensorFlow write it.
DType: TypeAlias = "str | np.dtype | type | tf.DType"
# Tensors in the structure that a model or a function returns: one, or nested dicts, lists and tuples.
Outputs: TypeAlias = Tensor


class NotDenseError(ValueError):
    """An output is ragged or sparse, which a server cannot send."""


def named_specs(
    signature: list[Any],
    function: Callable[..., Any],
    dtypes: Sequence[DType] = (),
    layers: Sequence[str] = (),
) -> list[Any]:
    """Returns the specs as `tf.TensorSpec`s, each with a name that no other spec has.

    Args:
        signature: The specs: one structure for each argument of the function.
        function: The function. Its parameters name the specs that have no name of their own.
        dtypes: A dtype for each spec that replaces the spec's own; empty to keep the specs' dtypes.
        layers: A name for each spec that replaces the spec's own; empty to keep the specs' names.
    """
    import tensorflow as tf

    parameters = list(inspect.signature(getattr(function, "python_function", function)).parameters)
    names: list[str] = []
    specs = []
    for number, (path, spec) in enumerate(tree.flatten_with_path(signature)):
        own = layers[number] if layers else getattr(spec, "name", None)
        # A function with `*arguments` has fewer parameters than inputs.
        argument = parameters[path[0]] if path[0] < len(parameters) else f"input_{path[0]}"
        name = own or _join(path[1:]) or "_".join(map(str, (argument, *path[1:])))
        names.append(_unique(name, names))
        dtype = dtypes[number] if dtypes else spec.dtype
        specs.append(tf.TensorSpec(spec.shape, dtype, names[-1]))
    return tree.pack_sequence_as(signature, specs)


def named(outputs: Outputs, names: Sequence[str] = ()) -> dict[str, Any]:
    """Returns outputs as a flat dict of tensors that a server can send.

    An output in a dict has its keys as name. Another output takes its name from `names`, or it is called
    `output_0`, `output_1`, ... by its position. Half precision becomes float32.

    Args:
        outputs: A structure of tensors.
        names: A name for each output, as far as names are known.

    Raises:
        NotDenseError: If an output is ragged or sparse.
    """
    import tensorflow as tf

    found: dict[str, Any] = {}
    for number, (path, leaf) in enumerate(tree.flatten_with_path(outputs)):
        if leaf is None:  # an optional output that the model leaves out
            continue
        own = _join(path) or (names[number] if number < len(names) else f"output_{number}")
        if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
            raise NotDenseError(
                "`model` and `signatures` must answer with dense tensors: TensorFlow Serving sends no other. "
                f"Received: the output `{own}`, a {type(leaf).__name__}. Make it dense in the layer "
                "that returns it, for example with `TextVectorization(ragged=False)`, or with a layer that "
                "returns `inputs.to_tensor()`."
            )
        tensor = tf.convert_to_tensor(leaf)
        found[_unique(own, found)] = tf.cast(tensor, served(tensor.dtype.name))
    return found


def _join(path: tuple[str | int, ...]) -> str:
    """Returns the keys on the way to a leaf as one name; empty where the way has positions only."""
    return "_".join(map(str, path)) if any(isinstance(part, str) for part in path) else ""


def _unique(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with a number behind it if the name is taken."""
    free = (name if number == 0 else f"{name}_{number}" for number in range(len(list(taken)) + 1))
    return next(candidate for candidate in free if candidate not in taken)


def served(dtype: DType) -> str:
    """Returns the name of the dtype in which a server sends and receives a tensor.

    Half precision is served as float32: the JSON of servers does not have half precision, and float32 holds
    all its values.

    Args:
        dtype: The dtype of an input or output of the model.
    """
    name = keras.backend.standardize_dtype(dtype) if not isinstance(dtype, str) else dtype
    return "float32" if name in _HALF_PRECISION else name


def dtype_of(leaf: np.ndarray, dtype: DType) -> DType:
    """Returns the dtype of an input of a subclassed model, as its rows tell.

    Keras takes every input of a subclassed model for floats. Rows of integers or strings correct this. Rows
    of floats change nothing: NumPy makes float64 of a list, in whatever dtype the model computes.

    Args:
        leaf: Rows of the input.
        dtype: The dtype that Keras tells.
    """
    return dtype if leaf.dtype.kind == "f" else "string" if leaf.dtype.kind in "OSUT" else leaf.dtype.name
