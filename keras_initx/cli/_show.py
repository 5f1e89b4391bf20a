"""`initx list` and `initx show`: strategies and initializers, in words and in a draw."""

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
    """Returns what tells every strategy and initializer from the others.

    Returns:
        For each its name, family, needs and summary, and for an initializer the name by which a layer takes
        it (`registered`), which is empty for a strategy.
    """
    from keras_initx import initializers, strategies

    rows = [_row(name, "strategy", "model", cls) for name, cls in strategies.STRATEGIES.items()]
    for family, classes in initializers.FAMILIES.items():
        rows += [
            _row(cls.__name__, family, ", ".join(["shape", *sorted(initializers.needs_of(cls))]), cls)
            for cls in classes
        ]
    return rows


def _row(name: str, family: str, needs: str, cls: type) -> dict[str, str]:
    registered = "" if family in ("Keras", "strategy") else f"initx>{name}"
    summary = _paragraphs(cls)[0]
    return {"name": name, "family": family, "needs": needs, "summary": summary, "registered": registered}


def show(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what is known of a strategy or an initializer and, for a shape, of a draw."""
    from keras_initx import strategies

    shape = parse_shape(options.shape)
    name = options.name.removeprefix("initx>")
    scheme = strategies.resolve(name)
    if scheme is None:
        raise ValueError("`name` must be a strategy or an initializer. Received: none, each layer's own.")
    planned = hasattr(scheme, "plan")
    if planned and shape is not None:
        raise ValueError(f"`shape` is for initializers. Received: {name!r}, which draws whole models.")
    cls = type(scheme)
    rows = {row["name"]: row for row in list_all()}
    parameters = inspect.signature(cls).parameters.values()
    facts = rows.get(name, _row(name, "Keras", "shape", cls)) | {
        "law": _find("Law:", cls),
        "reference": _find("Reference:", cls),
        "signature": f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})",
        "defaults": {p.name: p.default for p in parameters} if planned else scheme.get_config(),
    }
    if shape is None:
        return facts
    seeded = cls.from_config(_seed(scheme.get_config(), options.seed))
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
    if facts["registered"]:
        lines += ["", f'In a layer: kernel_initializer="{facts["registered"]}"']
    for key in ("law", "reference"):
        lines += ["", *textwrap.wrap(f"{key.capitalize()}: {facts[key]}", 100)] if facts[key] else []
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
