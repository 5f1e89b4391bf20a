"""How much a version takes at a time."""

import dataclasses

__all__ = ["Limits"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one version.

    Attributes:
        max_batch_rows: The most rows of several requests that run together. A larger request runs alone and
            whole.
        max_queue: The most requests that may wait while a batch runs.
        max_queue_bytes: The most bytes that the inputs of waiting requests may have. One request may always
            wait, whatever its size.

    Raises:
        ValueError: If a limit is below 1.
    """

    max_batch_rows: int = 128
    max_queue: int = 1000
    max_queue_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}. Leave it out.")
