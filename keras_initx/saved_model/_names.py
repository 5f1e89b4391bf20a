"""What inputs and outputs of a signature are called, and the types that they are served in."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

_HALF_PRECISION = ("bfloat16", "float16")


class NotDenseError(ValueError):
    """An output that a server cannot send."""


def named_specs(
    signature: list[Any], function: Any, dtypes: Sequence[Any] = (), layers: Sequence[str] = ()
) -> list[Any]:
    """Turns the specs of a function's arguments into `tf.TensorSpec`s, each with a name of its own.

    Args:
        signature: The specs, a structure for each argument.
        function: Whose parameters name what has no name.
        dtypes: For each spec another dtype.
        layers: For each spec its name.
    """
    import tensorflow as tf

    parameters = list(inspect.signature(getattr(function, "python_function", function)).parameters)
    names: list[str] = []
    specs = []
    for number, (path, spec) in enumerate(tree.flatten_with_path(signature)):
        own = layers[number] if layers else getattr(spec, "name", None)
        argument = parameters[path[0]] if path[0] < len(parameters) else f"input_{path[0]}"
        name = own or _join(path[1:]) or "_".join(map(str, (argument, *path[1:])))
        names.append(_unique(name, names))
        dtype = dtypes[number] if dtypes else spec.dtype
        specs.append(tf.TensorSpec(spec.shape, dtype, names[-1]))
    return tree.pack_sequence_as(signature, specs)


def named(outputs: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """Returns outputs by the keys on the way to them, else by the names, as a server can send them.

    Args:
        outputs: A structure of tensors.
        names: A name for each, where there is one.

    Raises:
        NotDenseError: If one of them is ragged or sparse.
    """
    import tensorflow as tf

    found: dict[str, Any] = {}
    for number, (path, leaf) in enumerate(tree.flatten_with_path(outputs)):
        if leaf is None:
            continue
        own = _join(path) or (names[number] if number < len(names) else f"output_{number}")
        if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
            raise NotDenseError(
                "`model` and `signatures` must answer with dense tensors: TensorFlow Serving sends no other. "
                f"Received: the output `{own}`, a {type(leaf).__name__}. Make it dense where it is made, for "
                "example with `TextVectorization(ragged=False)`, or with a layer that returns "
                "`inputs.to_tensor()`."
            )
        tensor = tf.convert_to_tensor(leaf)
        found[_unique(own, found)] = tf.cast(tensor, served(tensor.dtype.name))
    return found


def _join(path: tuple[Any, ...]) -> str:
    """The keys on the way to a leaf; nothing where there are only positions."""
    return "_".join(map(str, path)) if any(isinstance(part, str) for part in path) else ""


def _unique(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with a number behind it if it is taken."""
    free = (name if number == 0 else f"{name}_{number}" for number in range(len(list(taken)) + 1))
    return next(candidate for candidate in free if candidate not in taken)


def served(dtype: Any) -> str:
    """Returns what a dtype is served as: the JSON of servers has no half precision, and float32 holds it.

    Args:
        dtype: Of an input or output.
    """
    name = keras.backend.standardize_dtype(dtype) if not isinstance(dtype, str) else dtype
    return "float32" if name in _HALF_PRECISION else name


def dtype_of(leaf: np.ndarray, dtype: Any) -> Any:
    """Returns the dtype of an input: Keras takes all of a subclassed model for floats; rows know better.

    Args:
        leaf: Its rows.
        dtype: What Keras says.
    """
    return dtype if leaf.dtype.kind == "f" else "string" if leaf.dtype.kind in "OSUT" else leaf.dtype.name
