"""Factors and base kernels of adapters, which one computation makes together."""

from collections.abc import Callable, Sequence
from typing import Literal

from keras import ops

from keras_initx._types import Tensor
from keras_initx.adapters import Factors, given_back, is_less
from keras_initx.strategies._plan import Draw, WholePlan
from keras_initx.walk import Adapter, KernelSite

__all__ = ["computed", "given_back_to"]


def computed(
    name: str,
    sites: Sequence[KernelSite],
    factors: Callable[[Adapter, Tensor, int], Factors],
    base: Literal["kept", "less", "rounded"],
) -> WholePlan:
    """Returns the draws of factors that are made together, one adapter at a time.

    Args:
        name: Name of the start.
        sites: The factors and base kernels of adapters.
        factors: Function from an adapter, the matrix of its kernel and a seed to the factors. The matrix is
            None where the base is kept.
        base: What becomes of the base, as in `Start`.

    Raises:
        ValueError: If a rank is larger than the kernel's, or a base that the start changes is quantized.
    """
    plan: WholePlan = given_back_to(sites) if base == "kept" else {}
    by_layer: dict[int, _Together] = {}
    for site in sites if base != "kept" else [site for site in sites if site.is_factor]:
        assert site.adapter is not None
        if base != "kept":
            _check_rank(site, site.adapter)
            _check_floats(name, site)
        together = by_layer.setdefault(id(site.layer), _Together(site.adapter, factors, base == "kept"))
        part = {"lora_a": "a", "lora_b": "b"}.get(site.role, "base")
        plan[site] = Draw(_Part(name, together, part), computed=True)
    return plan


def given_back_to(sites: Sequence[KernelSite]) -> WholePlan:
    """Returns the values of base kernels that lack the A B of an earlier start, which a new start leaves.

    Args:
        sites: The kernels and factors of a model.
    """
    bases = [site for site in sites if site.adapter and not site.is_factor]
    return {
        site: Draw(
            _Back(site.adapter),
            "it has back what an earlier start of its adapter took",
            computed=True,
        )
        for site in bases
        if site.adapter and is_less(site.adapter)
    }


class _Back:
    """The base kernel with what an earlier start took, as a function of shape and dtype."""

    __name__ = "given back"

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        return ops.cast(ops.reshape(given_back(self.adapter), tuple(shape)), dtype)


class _Together:
    """The factors of one adapter, which are computed once and forgotten when all parts are taken."""

    def __init__(
        self, adapter: Adapter, factors: Callable[[Adapter, Tensor, int], Factors], kept: bool
    ) -> None:
        self.adapter, self.factors = adapter, factors
        self.left = {"a", "b"} if kept else {"a", "b", "base"}
        self.found: Factors | None = None

    def take(self, part: str, seed: int) -> Tensor:
        if self.found is None:
            kernel = None if "base" not in self.left else _whole(self.adapter)
            self.found = self.factors(self.adapter, kernel, seed)
        value = getattr(self.found, part)
        self.left.discard(part)
        if not self.left:
            self.found = None
        return value


class _Part:
    """One part of the start of an adapter, as a function of shape and dtype; its name is the start's."""

    def __init__(self, name: str, together: _Together, part: str) -> None:
        self.__name__, self._together, self._part = name, together, part
        self.seed = 0  # `initialize` sets the seed of the adapter

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        value = self._together.take(self._part, self.seed)
        return ops.cast(ops.reshape(ops.convert_to_tensor(value, "float32"), tuple(shape)), dtype)


def _whole(adapter: Adapter) -> Tensor:
    """The matrix of the kernel with its present adapter in it."""
    rows, columns = adapter.shape
    a = ops.reshape(ops.cast(adapter.a, "float32"), (rows, adapter.rank))
    kernel = ops.reshape(ops.cast(adapter.kernel, "float32"), (rows, columns))
    return kernel + adapter.scale * ops.matmul(a, ops.cast(adapter.b, "float32"))


def _check_rank(site: KernelSite, adapter: Adapter) -> None:
    if adapter.rank > min(adapter.shape):
        raise ValueError(
            f"`model` must have adapters of a rank that their kernels have. Received: `{site.path}` of rank "
            f"{adapter.rank}, for a kernel of {adapter.shape[0]} x {adapter.shape[1]}. Enable LoRA with a "
            f"rank of at most {min(adapter.shape)}."
        )


def _check_floats(name: str, site: KernelSite) -> None:
    if mode := getattr(site.layer, "quantization_mode", None):
        raise ValueError(
            f"`model` must have its base kernels in floats for {name}, which changes them. Received: "
            f"`{site.path}`, quantized to {mode}. Call `initialize` before `quantize`, with LoftQ for "
            'adapters that fit. "LoRA" starts adapters on a quantized base.'
        )
