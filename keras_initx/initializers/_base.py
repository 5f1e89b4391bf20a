"""The base of every initializer: gain, seed and axes, and draws that are safe in every dtype."""

import functools
import hashlib
import inspect
import numbers
import random
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias, TypedDict

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_positive
from keras_initx.fans import KernelAxes, Layout, LayoutLike, split_kernel

__all__ = [
    "PACKAGE",
    "AxisAware",
    "DrawOptions",
    "KernelOptions",
    "Seed",
    "Seeded",
    "Shown",
    "call_seed",
    "default_config",
    "draw",
    "spread",
]

PACKAGE = "initx"
_HALF_PRECISION = ("bfloat16", "float16")
_SHOWN = 20  # entries of a list in a repr

# None draws new values at each call, an int repeats the values for a shape, a generator advances.
Seed: TypeAlias = int | keras.random.SeedGenerator | None


class DrawOptions(TypedDict, total=False):
    """The last three arguments of every random initializer with axes, which `AxisAware` takes."""

    seed: Seed
    input_axes: Sequence[int] | None
    output_axes: Sequence[int] | None


class KernelOptions(DrawOptions, total=False):
    """The last four arguments of most initializers with axes.

    A constructor takes them as `**kernel: Unpack[KernelOptions]` and passes them on, so that their names,
    types and defaults are written once. Type checkers and editors read them here. `inspect.signature` and
    notebooks read them from `__signature__`, which `Shown` sets.
    """

    layout: LayoutLike | None


class Shown(keras.initializers.Initializer):
    """Base of every initializer of the package: its repr is the call that makes it, with long lists cut."""

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: object) -> None:
        """Gives the class a signature with the arguments that its constructor passes on."""
        super().__init_subclass__(**options)
        cls.__signature__ = _whole_signature(cls)

    def __repr__(self) -> str:
        """Returns the name of the class with the arguments that differ from its defaults."""
        cls: type = type(self)
        config, defaults = self.get_config(), default_config(cls)
        # A config holds an object, such as an initializer within another, as a dict. Its repr is shorter.
        values = {
            name: getattr(self, name, value) if isinstance(value, dict) else value
            for name, value in config.items()
            if name not in defaults or value != defaults[name]
        }
        return f"{cls.__name__}({', '.join(f'{name}={_shown(value)}' for name, value in values.items())})"


def _shown(value: object) -> str:
    """Returns the repr of an argument; of a long list, such as a vocabulary, its beginning and its length."""
    if not isinstance(value, list) or len(value) <= _SHOWN:
        return repr(value)
    return f"[{', '.join(map(repr, value[:3]))}, ... {len(value)} in all]"


def _whole_signature(cls: type) -> inspect.Signature:
    """Returns a constructor's signature, with names in the place of `**options: Unpack[SomeTypedDict]`."""
    found: dict[str, inspect.Parameter] = {}
    passed: set[str] | None = None  # names that the constructors so far hand to the next class; None for all
    for owner in (base for base in cls.__mro__[:-1] if "__init__" in vars(base)):
        rest = None
        for name, own in list(inspect.signature(vars(owner)["__init__"]).parameters.items())[1:]:
            if own.kind is own.VAR_KEYWORD and typing.get_origin(own.annotation) is typing.Unpack:
                names = set(typing.get_type_hints(typing.get_args(own.annotation)[0]))
                rest = names if passed is None else names & passed
            elif own.kind is own.VAR_KEYWORD and passed is not None:
                rest = passed
            elif passed is None:
                found[name] = own
            elif name in passed:
                found.setdefault(name, own.replace(kind=own.KEYWORD_ONLY))
        if rest is None:
            break
        passed = rest
    return inspect.Signature(list(found.values()))


@functools.cache
def default_config(cls: type[keras.initializers.Initializer]) -> dict[str, Any]:
    """Returns the config of an initializer that was made without arguments; empty if its class needs some.

    >>> default_config(keras.initializers.TruncatedNormal)["stddev"]
    0.05

    Args:
        cls: A class of initializers, from this package or from Keras.

    Returns:
        The config, as `get_config` returns it.
    """
    # Keras takes a number from Python's generator for each initializer without a seed. Looking at a default
    # must not change later draws.
    state = random.getstate()
    try:
        return cls().get_config()
    except TypeError:
        return {}
    finally:
        random.setstate(state)


class AxisAware(Shown, keras.initializers.VarianceScaling):
    """Base of all initializers that need to know which axes of a kernel are inputs and which are outputs.

    It is a `VarianceScaling` because EinsumDense and the attention layers tell their `input_axes` and
    `output_axes` to subclasses of that class alone, by `from_config(config | axes)`.

    Args:
        gain: Positive factor; the size of the kernel is proportional to it.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. None reads them off the shape.
        output_axes: Axes that number the outputs. None reads them off the shape.

    Raises:
        ValueError: If `gain` is not a positive, finite number, or the layout is unknown.
    """

    def __init__(
        self,
        gain: float = 1.0,
        layout: LayoutLike | None = None,
        seed: Seed = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        self.gain = check_positive("gain", gain)
        self.layout = None if layout is None else Layout.of(layout)
        super().__init__(scale=self.gain**2, seed=seed, input_axes=input_axes, output_axes=output_axes)
        if seed is None:
            # Keras fixes one seed per instance here. Two layers that share it would get equal kernels.
            self.seed = None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        layout = self.layout and self.layout.to_dict()
        return {
            "gain": self.gain,
            "layout": layout["kind"] if layout and len(layout) == 1 else layout,
        } | {name: config[name] for name in ("seed", "input_axes", "output_axes")}

    def split(self, shape: Sequence[int]) -> KernelAxes:
        """Returns the role of each axis of a kernel of this shape."""
        return split_kernel(shape, self.input_axes, self.output_axes, self.layout)


class Seeded(Shown):
    """Base of the random initializers with a law that does not depend on fans.

    Args:
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If `seed` is none of these.
    """

    def __init__(self, seed: Seed) -> None:
        restored = keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed
        if restored is not None and not isinstance(restored, int | keras.random.SeedGenerator):
            raise ValueError(
                f"`seed` must be None, an int or a `keras.random.SeedGenerator`. Received: seed={seed!r}."
            )
        self.seed = restored

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"seed": keras.saving.serialize_keras_object(self.seed)}


def call_seed(seed: Seed, shape: Sequence[int], label: str = "") -> int | keras.random.SeedGenerator:
    """Returns the seed of one draw within a call.

    Each shape and each label has its own stream: the values that one int seed gives to two shapes are
    uncorrelated. Keras instead gives the larger kernel the values of the smaller kernel first.

    Args:
        seed: The initializer's seed.
        shape: Shape of the kernel.
        label: Name of the draw, for a call that draws more than once.
    """
    if seed is None:
        # Python's generator is where Keras' own initializers take their default seed from, and
        # `keras.utils.set_random_seed` seeds it. Keras' global SeedGenerator cannot be used: it raises when
        # JAX traces the build of a layer.
        return random.randint(1, 10**9)
    if isinstance(seed, numbers.Integral):
        # A cryptographic hash has no structure that seeds 0, 1, 2 or similar shapes could show in a kernel.
        digest = hashlib.sha256(f"{seed}/{tuple(shape)}/{label}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1
    return seed


def draw(sample: Callable[[str], Tensor], dtype: str | None) -> Tensor:
    """Calls `sample` with a dtype that is precise enough to draw in, and casts the result to `dtype`.

    Half precision is drawn in float32: QR has no bfloat16 kernel, and a normal draw needs more bits.

    Args:
        sample: Draws a tensor in the dtype that it is given, float32 or float64.
        dtype: A float dtype; None for `keras.config.floatx()`.

    Returns:
        The tensor, in `dtype`.

    Raises:
        ValueError: If `dtype` is not a float.
    """
    dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    if "float" not in dtype:
        raise ValueError(
            "`dtype` must be one of ['bfloat16', 'float16', 'float32', 'float64']. "
            f"Received: dtype={dtype!r}. Random kernels are real numbers; store integers with a cast."
        )
    if dtype in _HALF_PRECISION:
        return ops.cast(sample("float32"), dtype)
    return sample(dtype)  # a cast that changes nothing takes a twentieth of the time of a small draw


def spread(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeats a tensor over leading axes, in memory of its own: torch cannot load weights into a view."""
    return ops.copy(ops.broadcast_to(tensor, shape))
