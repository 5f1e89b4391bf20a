"""One version of a model that answers requests."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_initx.serving._batching import Batcher
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import LoadedModel, Signature

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

__all__ = ["Version", "VersionStatus"]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """The state of a version, between its first load and its end.

    Attributes:
        number: The version's number.
        state: `"START"` (its load is due), `"LOADING"`, `"AVAILABLE"`, `"UNLOADING"` or `"END"`.
        error_code: The gRPC name of the error that ended its last load, or `"OK"`.
        error_message: The message of that error. An `"AVAILABLE"` version has one if its files changed and
            could not be read again.
    """

    number: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class Version:
    """A loaded version, as `Models.find` returns it.

    Attributes:
        name: The model's name.
        number: The version's number.
        signatures: The signatures by name.
        signature_defs: The same signatures as TensorFlow's messages.
        model: The loaded SavedModel that runs them.
    """

    def __init__(
        self,
        name: str,
        number: int,
        model: LoadedModel,
        limits: Limits,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.number = number
        self.signatures: Mapping[str, Signature] = model.signatures
        self.signature_defs: Mapping[str, SignatureDef] = model.signature_defs
        self.model = model
        self._batcher = Batcher(model, limits, observe)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the running ones to end."""
        return self._batcher.waiting

    async def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, perhaps in one batch with other requests.

        If the call is cancelled, its request leaves the queue. A request that already runs is run to its end,
        and its answer is thrown away.

        Args:
            signature: One of `signatures`.
            inputs: All inputs of the signature. Types, ranks and fixed sizes have been checked before.
            outputs: The names of the outputs to compute.

        Returns:
            The outputs by name. They are read-only where several requests share the arrays of one batch.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, at once, if the queue is full. UNAVAILABLE if the version has
                been unloaded. Otherwise TensorFlow's error about the inputs, with TensorFlow's code.
        """
        # Sorted, so that requests for the same outputs in another order can share a batch.
        return await self._batcher.run(signature, inputs, tuple(sorted(outputs)))

    async def close(self, quiet: float) -> None:
        """Frees the model, after all requests are answered and nothing came for `quiet` seconds."""
        await self._batcher.drain(quiet)
        self._batcher.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._batcher.join()  # a session must not be closed while its thread runs it
        self.model.close()
