"""One version of a model that answers."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_initx.serving._batching import Batcher, Limits
from keras_initx.serving._loaded import LoadedModel, Signature

__all__ = ["Version", "VersionStatus"]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """Where a version is on its way.

    Attributes:
        number: The version.
        state: `"START"` (its load is due), `"LOADING"`, `"AVAILABLE"`, `"UNLOADING"` or `"END"`.
        error_code: `"OK"`, or the name of gRPC's code of the error that ended its last load.
        error_message: That error. A version that is `"AVAILABLE"` has one where its files changed and could
            not be read again.
    """

    number: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class Version:
    """A loaded version, from `Models.find`.

    Attributes:
        name: The model.
        number: The version.
        signatures: What it can be asked, by name.
        signature_defs: The same as TensorFlow's messages.
        model: What runs them.
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
        self.signature_defs: Mapping[str, Any] = model.signature_defs
        self.model = model
        self._batcher = Batcher(model, limits, observe)

    @property
    def waiting(self) -> int:
        """Requests that wait behind those that run."""
        return self._batcher.waiting

    async def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, together with what else is asked meanwhile.

        A cancelled call leaves the queue; what already runs ends unseen.

        Args:
            signature: One of `signatures`.
            inputs: All its inputs, already checked against it: types, ranks, fixed sizes.
            outputs: Names of the outputs to compute.

        Returns:
            Those outputs. They may be views of a batch that others share: do not write to them.

        Raises:
            ServingError: RESOURCE_EXHAUSTED at once when the queue is full, UNAVAILABLE after the version has
                been unloaded, and what TensorFlow says of the inputs.
        """
        return await self._batcher.run(signature, inputs, tuple(sorted(outputs)))

    async def close(self, quiet: float) -> None:
        """Frees the model when all that was asked is answered and nothing came for `quiet` seconds."""
        await self._batcher.drain(quiet)
        self._batcher.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._batcher.join()
        self.model.close()
