"""The stored facts about every strategy and initializer, for `initx list` and `initx show`.

`catalogue.json` is the result of `_facts.py`, which needs Keras. After a change of a docstring, a signature
or a family, `make catalogue` writes the file anew; `tests/test_cli_catalogue.py` fails until then. The facts
about Keras' own initializers belong to one version of Keras. Under another version, `initx show he_normal`
imports Keras and asks it.
"""

import functools
import json
import pathlib
from typing import TypedDict, cast

from _initx_command import _facts
from _initx_command._facts import Facts

__all__ = ["find", "make", "names", "read", "write"]

_FILE = pathlib.Path(__file__).with_name("catalogue.json")


class _OfKeras(TypedDict):
    version: str
    names: dict[str, str]  # the class that each name stands for
    classes: dict[str, Facts]


class Catalogue(TypedDict):
    """The content of the file."""

    initializers: list[Facts]
    keras: _OfKeras


@functools.cache
def read() -> Catalogue:
    """Returns the stored catalogue."""
    return cast(Catalogue, json.loads(_FILE.read_text("utf-8")))


def find(name: str) -> Facts | None:
    """Returns the stored facts about a strategy or an initializer; None if the catalogue does not have them.

    Args:
        name: A name of `initx list`, or a name in `keras.initializers`.
    """
    stored = read()
    for facts in stored["initializers"]:
        if facts["name"] == name:
            return facts
    theirs = stored["keras"]
    if name in theirs["names"] and theirs["version"] == _version_of_keras():
        return {**theirs["classes"][theirs["names"][name]], "name": name}
    return None


def names() -> list[str]:
    """Returns every name that `initx show` takes, sorted."""
    stored = read()
    return sorted([*(facts["name"] for facts in stored["initializers"]), *stored["keras"]["names"]])


def make() -> Catalogue:
    """Returns the catalogue of the installed code. That imports Keras."""
    of_keras = {name: _facts.of_keras(name) for name in _facts.keras_names()}
    classes: dict[str, Facts] = {}
    for name, facts in of_keras.items():
        classes.setdefault(_class_of(name), {**facts, "name": _class_of(name)})
    made: Catalogue = {
        "initializers": _facts.collect(),
        "keras": {
            "version": _version_of_keras(),
            "names": {name: _class_of(name) for name in of_keras},
            "classes": classes,
        },
    }
    return cast(Catalogue, json.loads(json.dumps(made)))  # as `read` returns it: a tuple is a list


def _version_of_keras() -> str:
    import importlib.metadata

    return importlib.metadata.version("keras")


def _class_of(name: str) -> str:
    from keras_initx import initializers

    return type(initializers.get(name)).__name__


def write() -> None:
    """Writes the catalogue of the installed code. That imports Keras."""
    _FILE.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", "utf-8")
