"""What the package promises: names, and the arguments that they take. As a script, writes the list anew:

PYTHONPATH=tests python -m support.promised_names
"""

import inspect
import pathlib
import types

import keras_initx as initx

FILE = pathlib.Path(__file__).with_suffix(".txt")
ROOMS = ("callbacks", "fans", "gains", "initializers", "layers", "strategies")


def promised():
    """The lines of the list: of the root, and of the rooms whose names users write."""
    found = {name: getattr(initx, name) for name in initx.__all__}
    found |= {f"{room}.{name}": getattr(getattr(initx, room), name) for room in ROOMS for name in names(room)}
    return [line(name, thing) for name, thing in sorted(found.items())]


def names(room):
    return getattr(initx, room).__all__


def line(name, thing):
    if isinstance(thing, types.ModuleType) or not callable(thing):
        return name
    kinds = inspect.Parameter
    marks = {kinds.KEYWORD_ONLY: "{}=", kinds.VAR_KEYWORD: "**{}", kinds.VAR_POSITIONAL: "*{}"}
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:  # of a class that is made by C code
        return name
    return f"{name}({', '.join(marks.get(one.kind, '{}').format(one.name) for one in parameters)})"


if __name__ == "__main__":
    FILE.write_text("\n".join(promised()) + "\n")
