"""The options `--check` and `--plot`, which several verbs have."""

import importlib.util
import pathlib
from collections.abc import Iterable, Sequence

__all__ = ["check_plot", "parse_limits"]


def parse_limits(
    texts: Iterable[str] | None, allow: Sequence[str] | None, names: Sequence[str]
) -> dict[str, float | None] | None:
    """Reads limits such as max_gain=2,max_dead=none from each use of `--check`.

    >>> parse_limits(["max_gain=2,max_dead=none"], None, ("max_dead", "max_gain"))
    {'max_gain': 2.0, 'max_dead': None}

    Args:
        texts: The texts behind `--check`, empty for an option without limits; None without the option.
        allow: The kinds of `--allow`, which needs `--check`; None without the option.
        names: The limits that the verb has.

    Returns:
        The limits by name; None without `--check`.

    Raises:
        ValueError: If a text is anything else, or `--allow` stands alone.
    """
    if texts is None:
        if allow:
            raise ValueError(
                f"`--allow` must stand beside `--check`. Received: {', '.join(allow)} without --check."
            )
        return None
    found: dict[str, float | None] = {}
    for text in filter(None, ",".join(texts).split(",")):
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            found[name] = None if number.lower() == "none" else float(number)
            if name not in names:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"`--check` must be limits and numbers, of {', '.join(names)}. Received: {text!r}. "
                f"Write {names[0]}=0.5,{names[1]}=2."
            ) from None
    return found


def check_plot(path: str) -> None:
    """Raises ValueError for a picture that cannot be written, before a long run.

    Args:
        path: The file of `--plot`.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("`--plot` needs matplotlib: pip install 'keras-initx[plots]'")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    file = pathlib.Path(path)
    if file.suffix[1:].lower() not in kinds or not file.parent.is_dir():
        raise ValueError(
            f"`--plot` must be a file in a folder that exists, of {', '.join(kinds)}. Received: {path!r}."
        )
