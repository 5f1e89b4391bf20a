"""Starts of low-rank adapters that are parts of their kernels: `PiSSA`, `OLoRA` and `LoftQ`."""

from collections.abc import Sequence
from typing import Literal

from keras_initx._types import Tensor
from keras_initx.adapters import MODES, Factors, loftq, olora, pissa, rounding
from keras_initx.checks import check_choice, check_count
from keras_initx.strategies._adapters import LoRA
from keras_initx.strategies._parts import computed
from keras_initx.strategies._plan import WholePlan
from keras_initx.walk import Adapter, KernelSite

__all__ = ["LoftQ", "OLoRA", "PiSSA"]


class PiSSA(LoRA):
    """Starts adapters at the principal singular values of their kernels, which the base kernels lose.

    Law: with W = U S V', A is U root(S) and B is root(S) V' of the r largest singular values, over the root
    of the scale. The base becomes W - scale A B, so that the model computes what it computed before.
    Training moves the principal part, and the rest stays frozen. The kernel of an EinsumDense or convolution
    counts as the matrix from all axes but the last to the last, since Keras adapts it so.

    Choose it to try longer first steps at small learning rates; at tuned rates we measured no lead over
    `LoRA`. Do not choose it if the base must stay as it is: at the end, `report.as_lora(model)` makes plain
    LoRA of twice the rank for the original base.

    >>> import keras
    >>> from keras_initx import initialize
    >>> layer = keras.layers.Dense(6)
    >>> layer.build((None, 5))
    >>> layer.enable_lora(2)
    >>> x = keras.random.normal((4, 5), seed=1)
    >>> before = layer(x)
    >>> report = initialize(layer, "PiSSA")
    >>> bool(keras.ops.max(keras.ops.abs(layer(x) - before)) < 1e-5), [row.path for row in report.rows]
    (True, ['kernel', 'lora_kernel_a', 'lora_kernel_b'])

    Args:
        iterations: Iterations of a randomized decomposition, which is many times faster for large kernels; 4
            are enough for trained ones. None for the exact decomposition.
        rank_stable: As in `LoRA`.
        alpha: As in `LoRA`.

    Raises:
        ValueError: If `iterations` is not None or an int of at least 0; on `initialize`, if a base is
            quantized, a rank is larger than the kernel's, or there are no adapters.

    Reference:
        Meng, Wang and Zhang, 2024, "PiSSA: principal singular values and singular vectors adaptation of large
        language models", equations 2 to 4 (https://arxiv.org/abs/2404.02948); code of PEFT read.
    """

    base = "less"

    def __init__(
        self, iterations: int | None = None, *, rank_stable: bool = False, alpha: float | None = None
    ) -> None:
        super().__init__(rank_stable=rank_stable, alpha=alpha)
        self.iterations = None if iterations is None else check_count("iterations", iterations, 0)

    def _draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        return computed(type(self).__name__, sites, self._factors, "less")

    def _factors(self, adapter: Adapter, kernel: Tensor, seed: int) -> Factors:
        return pissa(kernel, adapter.rank, self.alpha_of(adapter) / adapter.rank, self.iterations, seed)


class OLoRA(LoRA):
    """Starts adapters at the leading part of the QR decomposition of their kernels, which the bases lose.

    Law: with W' = Q R, B is the first r columns of Q, transposed, and A the first r rows of R, transposed.
    B is orthonormal. The base becomes W - scale A B, and the model computes what it computed before.

    Choose it to try an orthonormal start without a singular value decomposition. At the end,
    `report.as_lora(model)` makes plain LoRA of twice the rank for the original base.

    >>> import keras
    >>> from keras_initx import initialize
    >>> layer = keras.layers.Dense(6)
    >>> layer.build((None, 5))
    >>> layer.enable_lora(2)
    >>> _ = initialize(layer, "OLoRA")
    >>> import numpy as np
    >>> b = keras.ops.convert_to_numpy(layer.lora_kernel_b)
    >>> np.allclose(b @ b.T, np.eye(2), atol=1e-5)
    True

    Args:
        rank_stable: As in `LoRA`.
        alpha: As in `LoRA`.

    Raises:
        ValueError: On `initialize`, if a base is quantized, a rank is larger than the kernel's, or there are
            no adapters.

    Reference:
        Buyukakyuz, 2024, "OLoRA: orthonormal low-rank adaptation of large language models"
        (https://arxiv.org/abs/2406.01775), by the code of PEFT, `olora_init`. The paper was not read.
    """

    base = "less"

    def _draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        return computed(type(self).__name__, sites, self._factors, "less")

    def _factors(self, adapter: Adapter, kernel: Tensor, _: int) -> Factors:
        return olora(kernel, adapter.rank, self.alpha_of(adapter) / adapter.rank)


class LoftQ(LoRA):
    """Starts adapters at what quantization will take from their kernels, before the model is quantized.

    Law: from A B = 0, each iteration rounds W - scale A B as `layer.quantize` does, which gives the base, and
    sets A B to the r largest singular values of what W has beyond the base. Call it on the LoRA-enabled model
    in floats, then call `quantize(mode)`: the base holds values that quantization keeps. The model is then
    nearer to the original than after plain quantization.

    Choose it before training adapters on a quantized base, for int4 above all.

    >>> import keras
    >>> from keras_initx import initialize
    >>> layer = keras.layers.Dense(24)
    >>> layer.build((None, 32))
    >>> layer.enable_lora(4)
    >>> import numpy as np
    >>> kernel = keras.ops.convert_to_numpy(layer.kernel)
    >>> report = initialize(layer, LoftQ("int4", iterations=3))
    >>> near = np.linalg.norm(keras.ops.convert_to_numpy(layer.kernel) - kernel)
    >>> float(near / np.linalg.norm(kernel)) < 0.1
    True

    Args:
        mode: `"int8"` or `"int4"`, as `quantize` will be called.
        iterations: Number of rounds, at least 1. After one round the base is the plain quantized kernel, and
            the adapters fit on any copy of the model that `quantize` made.
        block_size: Inputs that share a step in int4: 128 as in Keras' `quantize("int4")`, or None for one
            step for each output.
        rank_stable: As in `LoRA`.
        alpha: As in `LoRA`.

    Raises:
        ValueError: If `mode`, `iterations` or `block_size` is not one of these; on `initialize`, if a base is
            quantized already, a layer cannot be quantized, a rank is larger than the kernel's, or there are
            no adapters.

    Reference:
        Li et al., 2023, "LoftQ: LoRA-fine-tuning-aware quantization for large language models", algorithm 1
        (https://arxiv.org/abs/2310.08659). Deviation: the rounding is Keras', not NormalFloat.
    """

    def __init__(
        self,
        mode: Literal["int4", "int8"] = "int8",
        iterations: int = 1,
        block_size: int | None = 128,
        *,
        rank_stable: bool = False,
        alpha: float | None = None,
    ) -> None:
        super().__init__(rank_stable=rank_stable, alpha=alpha)
        self.mode = check_choice("mode", mode, MODES)
        self.iterations = check_count("iterations", iterations)
        self.base = "rounded" if iterations == 1 else "mixed"
        self.block_size = None if block_size is None else check_count("block_size", block_size)

    def _draws(self, sites: Sequence[KernelSite]) -> WholePlan:
        for site in sites:
            if not hasattr(site.layer, "quantize") or site.role in ("conv",):
                raise ValueError(
                    f"`model` must have adapters on layers that Keras quantizes for LoftQ. Received: "
                    f'`{site.path}` of {type(site.layer).__name__}. Pass `exclude="{site.role}"`.'
                )
        return computed(type(self).__name__, sites, self._factors, "rounded")

    def _factors(self, adapter: Adapter, kernel: Tensor, _: int) -> Factors:
        rounded = rounding(adapter, self.mode, self.block_size)
        scale = self.alpha_of(adapter) / adapter.rank
        return loftq(kernel, adapter.rank, scale, rounded, self.iterations)
