"""What every initializer of the package shares: gain, seed, axes, and draws that are safe in every dtype."""

import functools
import hashlib
import numbers
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.checks import check_choice, check_count, check_finite, check_positive
from keras_initx.fans import KernelAxes, Layout, split_kernel

__all__ = [
    "PACKAGE", "AxisAware", "Seeded", "Shown", "call_seed", "check_choice", "check_count", "check_finite",
    "check_positive", "default_config", "draw", "spread",
]  # fmt: skip

PACKAGE = "initx"
_HALF_PRECISION = ("bfloat16", "float16")


class Shown(keras.initializers.Initializer):
    """Base of every initializer of the package: its repr is the call that makes it."""

    def __repr__(self) -> str:
        """Returns the class' name with the arguments that differ from its defaults."""
        cls: Any = type(self)
        config, defaults = self.get_config(), default_config(cls)
        # A config holds an object, as of an initializer within another, as a dict: its own repr is shorter.
        values = {
            name: getattr(self, name, value) if isinstance(value, dict) else value
            for name, value in config.items()
            if name not in defaults or value != defaults[name]
        }
        return f"{cls.__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


@functools.cache
def default_config(cls: Any) -> dict[str, Any]:
    """Returns the config of an initializer that was made without arguments; empty if its class needs some.

    >>> default_config(keras.initializers.TruncatedNormal)["stddev"]
    0.05

    Args:
        cls: A class of initializers.
    """
    state = random.getstate()  # Keras takes a number from it for each initializer without a seed
    try:
        return cls().get_config()
    except TypeError:
        return {}
    finally:
        random.setstate(state)


class AxisAware(Shown, keras.initializers.VarianceScaling):
    """Base of all initializers that need to know which axes of a kernel are inputs and which are outputs.

    It is a `VarianceScaling` because EinsumDense and the attention layers hand `input_axes` and `output_axes`
    to subclasses of that class alone, by `from_config(config | axes)`.

    Args:
        gain: Positive factor; the size of the kernel is proportional to it.
        layout: Kind, dict or `keras_initx.fans.Layout` of kernels that their shape cannot tell apart.
        seed: None to draw afresh at each call (ruled by `keras.utils.set_random_seed`), an int to draw the
            same values for the same shape at each call, or a `keras.random.SeedGenerator`.
        input_axes: Axes of the kernel that an output sums over; None to read them off the shape.
        output_axes: Axes of the kernel that index the outputs; None to read them off the shape.
    """

    def __init__(
        self,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        self.gain = check_positive("gain", gain)
        self.layout = None if layout is None else Layout.of(layout)
        super().__init__(scale=self.gain**2, seed=seed, input_axes=input_axes, output_axes=output_axes)
        if seed is None:
            # Keras would fix one seed per instance here, and so give two layers that share it equal kernels.
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
        """Returns the part that each axis of a kernel of this shape plays."""
        return split_kernel(shape, self.input_axes, self.output_axes, self.layout)


class Seeded(Shown):
    """Base of the random initializers whose law does not depend on fans.

    Args:
        seed: As in `AxisAware`.
    """

    def __init__(self, seed: Any) -> None:
        restored = keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed
        if restored is not None and not isinstance(restored, int | keras.random.SeedGenerator):
            raise ValueError(
                f"`seed` must be None, an int or a `keras.random.SeedGenerator`. Received: seed={seed!r}."
            )
        self.seed = restored

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"seed": keras.saving.serialize_keras_object(self.seed)}


def call_seed(seed: Any, shape: Sequence[int], label: str = "") -> Any:
    """Returns the seed of one draw within a call.

    Shapes and labels have streams of their own: the values that one int seed gives to two shapes are
    uncorrelated, where Keras gives the larger of them the values of the smaller.

    Args:
        seed: The initializer's seed.
        shape: Shape of the kernel.
        label: What the draw is for, where a call draws more than once.
    """
    if seed is None:
        # Python's generator is where Keras' own initializers take their default seed from, and
        # `keras.utils.set_random_seed` seeds it. Keras' global SeedGenerator cannot be used: it raises when
        # JAX traces the build of a layer.
        return random.randint(1, 10**9)
    if isinstance(seed, numbers.Integral):
        digest = hashlib.sha256(f"{seed}/{tuple(shape)}/{label}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1
    return seed


def draw(sample: Callable[[str], Any], dtype: Any) -> Any:
    """Calls `sample` with a dtype that is precise enough to draw in, and casts its result to `dtype`.

    Half precision is drawn in float32: QR has no bfloat16 kernel, and a draw of few bits is no normal draw.
    """
    dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    if "float" not in dtype:
        raise ValueError(
            "`dtype` must be one of ['bfloat16', 'float16', 'float32', 'float64']. "
            f"Received: dtype={dtype!r}. Random kernels are real numbers; store integers with a cast."
        )
    if dtype in _HALF_PRECISION:
        return ops.cast(sample("float32"), dtype)
    return sample(dtype)  # a cast that changes nothing costs a twentieth of a small draw


def spread(tensor: Any, shape: Sequence[int]) -> Any:
    """Repeats a tensor over leading axes in memory of its own, as torch needs to load weights into it."""
    return ops.copy(ops.broadcast_to(tensor, shape))
