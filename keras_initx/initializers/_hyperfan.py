"""The variance law of a hypernetwork, which generates the weights of another network."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_initx._types import Activation, Tensor
from keras_initx.checks import check_choice, check_positive
from keras_initx.fans import Layout, LayoutLike, compute_fans
from keras_initx.gains import compute_gain
from keras_initx.initializers._base import PACKAGE, Seed, Seeded, call_seed
from keras_initx.initializers._saved_activation import restore_activation, save_activation
from keras_initx.initializers._variance import draw_entries


@keras.saving.register_keras_serializable(package=PACKAGE)
class Hyperfan(Seeded):
    """The output kernel of a hypernetwork; the weights that it generates follow He's law.

    Law: Var H = (gain * g)^2 / (c * n * d * Var e), for a kernel H of shape (d, *generated shape) that
    multiplies an embedding e of d entries. The generated weights then have variance g^2 / n in the main
    network. n is the fan_in of the main layer (hyperfan-in), or its fan_out with the backward gain g
    (hyperfan-out). c is 2 if the hypernetwork generates biases, too, which then carry half of the variance;
    else c is 1.

    Choose it for the last layer of a hypernetwork and for no other layer. Laws of the kernel's own fans do
    not know the main network, and make its signal explode.

    >>> head = Hyperfan(seed=1)((50, 40, 30))  # generates the kernels (40, 30) of a main layer
    >>> embedding = keras.random.normal((1000, 50), seed=2)
    >>> kernels = keras.ops.tensordot(embedding, head, 1)
    >>> print(f"{float(keras.ops.var(kernels)) * 40:.1f}")
    2.0

    Args:
        activation: The activation that feeds the main layer: a name, a function or a layer. None has gain 1.
        mode: The count n of the main layer: `"fan_in"` or `"fan_out"`.
        generates_bias: Whether the hypernetwork generates the main layer's bias as well.
        embedding_variance: Mean square of the embedding's entries, positive.
        generated_shape: Shape of the generated kernel, for a layer that generates it flat, as a Dense layer
            does. With None it is the shape of this kernel without its first axis.
        gain: Positive factor of the standard deviation.
        layout: Meaning of the generated kernel's axes where its shape does not tell it, such as
            `"depthwise"`: a kind, a dict or a `keras_initx.fans.Layout`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the shape holds no generated kernel, or
            one of another size than `generated_shape`, or if `dtype` is not a float.

    Reference:
        Chang, Flokas and Lipson, 2020, "Principled weight initialization for hypernetworks" (ICLR). The paper
        was not available: hyperfan-in was compared with public code, and hyperfan-out follows from the same
        argument.
    """

    def __init__(
        self,
        activation: Activation | None = "relu",
        mode: str = "fan_in",
        generates_bias: bool = False,
        embedding_variance: float = 1.0,
        generated_shape: Sequence[int] | None = None,
        gain: float = 1.0,
        layout: LayoutLike | None = None,
        seed: Seed = None,
    ) -> None:
        super().__init__(seed)
        self.activation = restore_activation(activation)
        self.mode = check_choice("mode", mode, ("fan_in", "fan_out"))
        self.generates_bias = bool(generates_bias)
        self.embedding_variance = check_positive("embedding_variance", embedding_variance)
        self.generated_shape = None if generated_shape is None else tuple(generated_shape)
        self.gain = check_positive("gain", gain)
        self.layout = None if layout is None else Layout.of(layout)
        # Computed here, so that an activation without a gain is refused before any layer is built.
        self._factor = self.gain * compute_gain(self.activation, backward=mode == "fan_out")

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        generated = tuple(shape[1:]) if self.generated_shape is None else self.generated_shape
        if len(generated) < 2 or math.prod(generated) != math.prod(shape[1:]):
            raise ValueError(
                "`generated_shape` must be the shape of the kernel that the layer generates, of at least two "
                f"axes. Received: generated_shape={self.generated_shape}, shape={tuple(shape)}. Give the "
                "shape of the main layer's kernel; it must have as many entries as this layer has outputs."
            )
        fans = compute_fans(generated, layout=self.layout)
        count = fans.fan_in if self.mode == "fan_in" else fans.fan_out
        # A generated weight is a sum of d products of H and e, so the d terms share its variance.
        terms = (1 + self.generates_bias) * count * shape[0] * self.embedding_variance
        stddev = self._factor / math.sqrt(terms or 1)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "activation": save_activation(self.activation),
            "mode": self.mode,
            "generates_bias": self.generates_bias,
            "embedding_variance": self.embedding_variance,
            "generated_shape": self.generated_shape,
            "gain": self.gain,
            "layout": None if self.layout is None else self.layout.to_dict(),
        }
