"""The methods that every report has: to dicts, JSON, data frames, text and HTML.

Every verb of the package returns a report: a frozen dataclass with rows. The report says which columns its
table has, and `keras_initx.tables` writes the table.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.extras import require
from keras_initx.tables import Table

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

__all__ = ["Report", "frame_of", "records_of"]


@dataclasses.dataclass(frozen=True)
class Report:
    """The methods that every report has.

    A subclass is a frozen dataclass with a field `rows`, and defines `_table`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dicts with text keys, lists, texts, numbers and None."""
        return _plain(dataclasses.asdict(self) | self._more())

    def to_json(self) -> str:
        """Returns `to_dict` as JSON text, with null for NaN and infinities, which JSON does not have."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)

    def to_dataframe(self) -> "pandas.DataFrame":
        """Returns a `pandas.DataFrame` with a row for each row of the report, and a column for each field.

        Raises:
            ImportError: If pandas is not installed (the extra `dataframe`).
        """
        return frame_of(self._records())

    def __str__(self) -> str:
        """Formats the report as an aligned table with the totals below."""
        return self._table().to_text()

    def __rich__(self) -> "Group":
        """Returns the table that `rich.print` shows."""
        return self._table().to_rich()

    def _repr_html_(self) -> str:
        """Returns the table that a notebook shows."""
        return self._table().to_html()

    def _table(self) -> Table:
        """Returns the columns and the totals."""
        raise NotImplementedError

    def _more(self) -> dict[str, Any]:
        """Returns properties that `to_dict` has beside the fields."""
        return {}

    def _records(self) -> list[dict[str, object]]:
        """Returns the rows of the data frame."""
        return records_of(self.rows)  # type: ignore[attr-defined]  # the field of the subclass


def records_of(rows: Iterable[Any]) -> list[dict[str, object]]:
    """Returns dataclasses as flat records: texts, numbers, None, and shapes as tuples of numbers.

    Several texts become one, with semicolons between them. Fields that hold a dict are left out.

    >>> @dataclasses.dataclass
    ... class Row:
    ...     path: str
    ...     kinds: tuple[str, ...]
    >>> records_of([Row("dense", ("dead", "forward"))])
    [{'path': 'dense', 'kinds': 'dead; forward'}]

    Args:
        rows: Dataclasses of one class.
    """
    return [
        {
            field.name: _cell(value)
            for field in dataclasses.fields(row)
            if not isinstance(value := getattr(row, field.name), Mapping)
        }
        for row in rows
    ]


def _cell(value: object) -> object:
    texts = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return "; ".join(value) if texts else value  # type: ignore[arg-type]  # a list of texts


def frame_of(records: Sequence[Mapping[str, object]]) -> "pandas.DataFrame":
    """Returns records as a data frame. This is the only place that imports pandas.

    Args:
        records: A dict of column and cell for each row.

    Raises:
        ImportError: If pandas is not installed.
    """
    require("pandas", extra="dataframe", purpose="`to_dataframe`")
    import pandas

    return pandas.DataFrame(list(records))


def _plain(value: Any) -> Any:
    """Returns a value as JSON would return it, but for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: Any) -> Any:
    """Returns a plain value with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
