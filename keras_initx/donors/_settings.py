"""What layers compute besides their weights: settings that differ between a model and its donor."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_initx._keras_internals import flatten_layers, own_variables
from keras_initx._types import Layer, Model
from keras_initx.donors._pair import Pair

__all__ = ["other_settings"]

# Settings that follow from shapes, hold for training alone, or say how a layer runs.
_INERT = frozenset(
    """
    build_config data_format dropout dtype filters flash_attention implementation input_dim input_length
    intermediate_dim lora_alpha lora_rank momentum name noise_shape output_dim quantization_config rate
    recurrent_dropout return_state seed stateful stddev synchronized trainable unit_forget_bias units unroll
    """.split()  # noqa: SIM905
)
_DRAWN = ("_constraint", "_initializer", "_regularizer")
# Numbers that stay where the width is another; the others may follow from it, as the number of heads does.
_AT_ANY_WIDTH = ("axis", "dilation_rate", "output_padding", "pool_size", "sliding_window", "strides")
# A layer may have these where the donor's has none: they begin with nothing.
_ADDED = ("center", "scale", "use_bias")
# Layers that hand on what they get, when the model does not train.
_THROUGH = frozenset(
    """
    ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity InputLayer
    SpatialDropout1D SpatialDropout2D SpatialDropout3D
    """.split()  # noqa: SIM905
)


def other_settings(pairs: Sequence[Pair], model: Model, donor: Model) -> dict[int, str]:
    """Returns the settings of layers that differ, by the id of the first weight of each layer.

    Args:
        pairs: The weights of the model and their counterparts.
        model: The model.
        donor: The donor.
    """
    found: dict[int, list[str]] = {}
    seen: set[int] = set()
    taken = [pair for pair in pairs if pair.donor is not None]
    equal = len(taken) == len(pairs) and all(_alike(pair) for pair in taken)
    for pair in taken:
        assert pair.donor is not None
        if id(pair.own.layer) not in seen:
            seen.add(id(pair.own.layer))
            same = all(_alike(p) for p in taken if p.own.layer is pair.own.layer)
            found[id(pair.own)] = _differences(pair.own.layer, pair.donor.layer, same)
    if equal and taken:  # else the runs of both models tell
        found[id(taken[0].own)] += _without_weights(model, donor)
    return {key: "; ".join(dict.fromkeys(notes)) for key, notes in found.items() if notes}


def _alike(pair: Pair) -> bool:
    return pair.donor is not None and pair.own.kernel.shape == pair.donor.kernel.shape


def _without_weights(model: Model, donor: Model) -> list[str]:
    """What differs of the layers and operations that hold no weights of their own."""
    mine, theirs = ([*_parts(side)] for side in (model, donor))
    names = [[type(part).__name__ for part in side] for side in (mine, theirs)]
    if names[0] == names[1]:
        return [
            note for one, other in zip(mine, theirs, strict=True) for note in _differences(one, other, True)
        ]
    if not all(isinstance(side, keras.Sequential) or hasattr(side, "operations") for side in (model, donor)):
        return []  # a model that is a class shows its layers, but not all that it computes
    more, less = Counter(names[0]) - Counter(names[1]), Counter(names[1]) - Counter(names[0])
    told = [", ".join(sorted(side)) or "nothing" for side in (more, less)]
    return [f"the model has {told[0]} where the donor has {told[1]}"] if more or less else []


def _parts(model: Model) -> Iterator[Any]:
    """The layers and operations of a model that hold no weights of their own, in order."""
    operations: Iterable[Any] = getattr(model, "operations", None) or model.layers
    for part in operations:
        inner = flatten_layers(part) if isinstance(part, keras.Layer) else [part]
        for one in inner:
            holds = isinstance(one, keras.Model) or (isinstance(one, keras.Layer) and own_variables(one))
            if not holds and type(one).__name__ not in _THROUGH:
                yield one


def _differences(own: Layer, donor: Layer, same: bool) -> list[str]:
    """The settings of two layers of one class that differ.

    Args:
        own: The layer of the model.
        donor: That of the donor.
        same: Whether the weights of both have the same shapes.
    """
    if type(own).__name__ != type(donor).__name__:
        return []
    mine, theirs = (_settings(layer, same) for layer in (own, donor))
    shared = [key for key in mine if key in theirs and _differ(key, mine[key], theirs[key])]
    return [
        f"its {type(own).__name__} `{own.name}` has {key}={_shown(mine[key])} where the donor's has "
        f"{_shown(theirs[key])}"
        for key in shared
    ]


def _settings(layer: Layer, same: bool) -> dict[str, Any]:
    try:
        found = layer.get_config()
    except Exception:  # a user's layer need not have one
        return {}
    return {
        key: _plain(value)
        for key, value in found.items()
        if key not in _INERT
        and not key.endswith(_DRAWN)
        and (same or key in _AT_ANY_WIDTH or isinstance(value, bool | float | str) or "activation" in key)
    }


def _plain(value: Any) -> Any:
    """A number, word or list of these; of an object only its class."""
    if isinstance(value, dict):
        return value.get("class_name") if not value.get("config") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _differ(key: str, one: Any, other: Any) -> bool:
    if key in _ADDED and not other:
        return False
    if key == "axis" and isinstance(one, int) and isinstance(other, int) and (one < 0) != (other < 0):
        return False  # counted from both ends
    if one in (None, "linear") and other in (None, "linear"):
        return False
    kinds = bool | int | float | str | tuple | None
    return isinstance(one, kinds) and isinstance(other, kinds) and bool(one != other)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
