"""`initx list` and `initx show`: initializers, in words and in a draw."""

import argparse
import inspect
import math
import re
import textwrap
from typing import Any

__all__ = ["list_all", "parse_shape", "show", "write_list", "write_show"]

_BINS = 17
_MOST = 2**26  # entries of a draw
_BAR = 50  # characters of the longest bar


def list_all() -> list[dict[str, str]]:
    """Returns name, family, needs and summary of every initializer."""
    from keras_initx import initializers

    return [
        {
            "name": f"initx>{cls.__name__}",
            "family": family,
            "needs": "shape, data" if family in ("data-dependent", "gradient") else "shape",
            "summary": _paragraphs(cls)[0],
        }
        for family, classes in initializers.FAMILIES.items()
        for cls in classes
    ]


def show(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what is known of one initializer and, for a shape, of a draw."""
    from keras_initx import initializers

    rows = {row["name"]: row for row in list_all()}
    name = options.name if ">" in options.name else f"initx>{options.name}"
    if name not in rows:
        initializers.get(options.name)  # raises for a name that Keras does not know either
        raise ValueError(f"`name` must be one of `initx list`. Received: {options.name!r}.")
    shape = parse_shape(options.shape)
    initializer = initializers.get(name)
    config = initializer.get_config()
    parameters = inspect.signature(type(initializer)).parameters.values()
    facts = rows[name] | {
        "law": _find("Law:", type(initializer)),
        "reference": _find("Reference:", type(initializer)),
        "signature": f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})",
        "defaults": config,
    }
    if shape is None:
        return facts
    seeded = type(initializer).from_config(_seed(config, options.seed))
    return facts | {"draw": _measure(seeded, shape)}


def _seed(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Returns the config with its seed set, and those of the initializers that it holds, as ICNR's does."""
    nested = {key: _seed(value, seed) for key, value in config.items() if isinstance(value, dict)}
    return config | nested | ({"seed": seed} if "seed" in config else {})


def _measure(initializer: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Draws a kernel in float32 and counts its entries."""
    import keras
    import numpy as np

    if not 0 < math.prod(shape) <= _MOST:
        raise ValueError(f"`shape` must hold from 1 to {_MOST:,} entries to be shown. Received: {shape}.")
    values: np.ndarray = keras.ops.convert_to_numpy(initializer(shape, dtype="float32"))
    counts, edges = np.histogram(values, _BINS)
    facts: dict[str, Any] = {"shape": list(shape)}
    if hasattr(initializer, "split"):
        facts |= initializer.split(shape).fans.to_dict()
    return facts | {
        "mean": float(values.mean(dtype="float64")),
        "std": float(values.std(dtype="float64")),
        "min": float(values.min()),
        "max": float(values.max()),
        "counts": counts.tolist(),
        "edges": edges.tolist(),
    }


def parse_shape(text: str | None, name: str = "shape") -> tuple[int, ...] | None:
    """Reads 256,128 or 3x3x64x128."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}([x,][0-9]{1,18})*", text):
        raise ValueError(
            f"`{name}` must be counts with commas or x between them. Received: {text!r}. "
            "Write 256,128 or 3x3x64x128."
        )
    return tuple(int(size) for size in re.split("[x,]", text))


def _paragraphs(cls: type) -> list[str]:
    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", inspect.getdoc(cls) or "")]


def _find(head: str, cls: type) -> str:
    """Returns the paragraph of a docstring that begins with `head`, without it."""
    return next((text.removeprefix(head).strip() for text in _paragraphs(cls) if text.startswith(head)), "")


def write_list(rows: list[dict[str, str]]) -> str:
    """Formats the list as aligned lines."""
    widths = {key: max(len(row[key]) for row in rows) for key in ("name", "family", "needs")}
    return "\n".join(
        "  ".join([*(row[key].ljust(width) for key, width in widths.items()), row["summary"]]) for row in rows
    )


def write_show(facts: dict[str, Any]) -> str:
    """Formats what is known of one initializer, with bars for a draw."""
    lines = [f"{facts['name']}, {facts['family']}: {facts['summary']}"]
    for key in ("law", "reference"):
        lines += ["", *textwrap.wrap(f"{key.capitalize()}: {facts[key]}", 100)]
    lines += ["", *textwrap.wrap(f"Signature: {facts['signature']}", 100)]
    defaults = [f"{name}={value!r}" for name, value in facts["defaults"].items()]
    lines += ["", *textwrap.wrap(f"Defaults: {', '.join(defaults) or 'none'}", 100)]
    return "\n".join(lines + (["", *_write_draw(facts["draw"])] if "draw" in facts else []))


def _write_draw(draw: dict[str, Any]) -> list[str]:
    numbers = [f"{name} {draw[name]:.4g}" for name in list(draw)[1:] if name not in ("counts", "edges")]
    most = max(draw["counts"])
    edges = [f"{edge:+.3g}" for edge in draw["edges"]]
    width = max(map(len, edges))
    bars = [
        f"{low:>{width}} to {high:>{width}} | " + f"{'#' * -(-count * _BAR // most)} {count}".lstrip()
        for low, high, count in zip(edges, edges[1:], draw["counts"], strict=False)
    ]
    return [f"A draw of shape {tuple(draw['shape'])}: {', '.join(numbers)}", "", *bars]
