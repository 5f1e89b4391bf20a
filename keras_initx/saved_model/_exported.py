"""`ExportedModel`: the report of `export`."""

import dataclasses
import json
from typing import Any

__all__ = ["ExportedModel"]


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """The report of `export` about the version that it wrote.

    Attributes:
        path: The folder of the version.
        version: The number of the version.
        signatures: The names of its signatures, sorted.
        difference: The largest difference between the answers of the SavedModel and of the model, as a part
            of the largest entry of that output. None if the model answers at random.
        warmup_records: The number of requests that a server replays when it loads the version.
        portable: The `.keras` file beside the version; None without `portable=True`.
        row_wise: The names of the signatures that are proven to be row-wise, sorted. A row-wise signature
            gives a row the same answer alone and next to any other rows, so a server may run several requests
            together.
    """

    path: str
    version: int
    signatures: tuple[str, ...]
    difference: float | None = None
    warmup_records: int = 0
    portable: str | None = None
    row_wise: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns the fields as JSON: the text that `initx export --json` prints."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """Formats the report as one line."""
        more = f"; row-wise: {', '.join(self.row_wise) or 'none'}"
        more += f"; warm-up records: {self.warmup_records}" if self.warmup_records else ""
        more += f"; portable: {self.portable}" if self.portable else ""
        return f"{self.path} (version {self.version}; signatures: {', '.join(self.signatures)}{more})"
