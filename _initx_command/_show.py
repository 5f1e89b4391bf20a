"""`initx list` and `initx show`: strategies and initializers, in words and in a draw."""

import argparse
import json
import math
import textwrap
from typing import NamedTuple

from _initx_command import _catalogue
from _initx_command._facts import Draw, Facts
from _initx_command._loading import load
from _initx_command._sources import parse_shape
from _initx_command._verb import Answer, Options, Verb

__all__ = ["LIST", "SHOW"]

_MOST = 2**26  # entries of a draw
_BAR = 50  # characters of the longest bar


def _add_list(options: Options) -> None:
    options.add_json()


def _add_show(options: Options) -> None:
    options.add(
        "name",
        metavar="INITIALIZER",
        help="a name of `initx list`, or an initializer of Keras, such as he_normal",
    )
    options.add(
        "shape",
        nargs="?",
        metavar="SHAPE",
        help="draw a kernel of this shape, such as 256,128 or 3x3x64x128",
    )
    options.add("--seed", type=int, default=0, metavar="N", help="seed of the draw")
    options.add_json()


class _Listing(NamedTuple):
    """The answer of `initx list`."""

    rows: list[dict[str, str]]

    def to_json(self) -> str:
        return json.dumps(self.rows, indent=2)

    def __str__(self) -> str:
        """Formats the list as aligned lines."""
        columns = ("name", "family", "needs")
        widths = {key: max(len(row[key]) for row in self.rows) for key in columns}
        return "\n".join(
            "  ".join([*(row[key].ljust(width) for key, width in widths.items()), row["summary"]])
            for row in self.rows
        )


class _Shown(NamedTuple):
    """The answer of `initx show`."""

    facts: Facts

    def to_json(self) -> str:
        return json.dumps(self.facts, indent=2)

    def __str__(self) -> str:
        """Formats the facts as lines, with bars for a draw."""
        facts = self.facts
        lines = [f"{facts['name']}, {facts['family']}: {facts['summary']}"]
        if facts["registered"]:
            lines += ["", f'In a layer: kernel_initializer="{facts["registered"]}"']
        for title, text in (("Law", facts["law"]), ("Reference", facts["reference"])):
            lines += ["", *textwrap.wrap(f"{title}: {text}", 100)] if text else []
        lines += ["", *textwrap.wrap(f"Signature: {facts['signature']}", 100)]
        defaults = ", ".join(f"{name}={value!r}" for name, value in facts["defaults"].items())
        lines += ["", *textwrap.wrap(f"Defaults: {defaults or 'none'}", 100)]
        return "\n".join([*lines, *(["", *_bars(facts["draw"])] if "draw" in facts else [])])


def _list(_: argparse.Namespace) -> Answer:
    columns = ("name", "family", "needs", "summary", "registered")
    stored = _catalogue.read()["initializers"]
    return Answer(_Listing([{key: str(facts[key]) for key in columns} for facts in stored]))  # type: ignore[literal-required]


def _show(options: argparse.Namespace) -> Answer:
    shape = parse_shape(options.shape)
    name = options.name.removeprefix("initx>")
    if name.lower() == "none":
        raise ValueError("`name` must be a strategy or an initializer. Received: none, each layer's own.")
    if shape is not None and not 0 < math.prod(shape) <= _MOST:
        raise ValueError(f"`shape` must hold from 1 to {_MOST:,} entries to be shown. Received: {shape}.")
    facts = _catalogue.find(name)
    if facts is None:
        from _initx_command._facts import describe

        load()
        facts = describe(name)
    if shape is None:
        return Answer(_Shown(facts))
    if facts["family"] == "strategy":
        raise ValueError(f"`shape` is for initializers. Received: {name!r}, which draws whole models.")
    from _initx_command._facts import measure

    load()
    return Answer(_Shown({**facts, "draw": measure(name, shape, options.seed)}))


def _bars(draw: Draw) -> list[str]:
    numbers = [f"{name} {value:.4g}" for name, value in draw.items() if isinstance(value, int | float)]
    most = max(draw["counts"])
    edges = [f"{edge:+.3g}" for edge in draw["edges"]]
    width = max(map(len, edges))
    bars = [
        f"{low:>{width}} to {high:>{width}} | " + f"{'#' * -(-count * _BAR // most)} {count}".lstrip()
        for low, high, count in zip(edges, edges[1:], draw["counts"], strict=False)
    ]
    return [f"A draw of shape {tuple(draw['shape'])}: {', '.join(numbers)}", "", *bars]


LIST = Verb("list", "list all strategies and initializers: name, family, needs, one line", _add_list, _list)
SHOW = Verb(
    "show", "show the law, reference and defaults of a strategy or initializer, and a draw", _add_show, _show
)
