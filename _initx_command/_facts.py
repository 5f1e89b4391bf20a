"""Facts about every strategy and initializer, read from their classes.

Reading them needs Keras. `initx list` and `initx show` read the stored copy instead: see `_catalogue.py`.
"""

import re
from collections.abc import Mapping
from typing import NotRequired, TypedDict

__all__ = ["Draw", "Facts", "collect", "describe", "keras_names", "measure", "of_keras"]

_BINS = 17


class Draw(TypedDict):
    """Statistics of one drawn kernel."""

    shape: list[int]
    fan_in: NotRequired[float]
    fan_out: NotRequired[float]
    mean: float
    std: float
    min: float
    max: float
    counts: list[int]
    edges: list[float]


class Facts(TypedDict):
    """The facts about a strategy or an initializer that `initx show` prints."""

    name: str
    family: str
    needs: str
    summary: str
    registered: str
    law: str
    reference: str
    signature: str
    defaults: dict[str, object]
    draw: NotRequired[Draw]


def collect() -> list[Facts]:
    """Returns the facts about every strategy, and about every initializer of the package by family."""
    from keras_initx import initializers, strategies

    facts = [_of(name, "strategy", strategies.resolve(name)) for name in strategies.STRATEGIES]
    for family, classes in initializers.FAMILIES.items():
        facts += [_of(cls.__name__, family, cls()) for cls in classes]
    return facts


def keras_names() -> list[str]:
    """Returns the names in `keras.initializers` that give an initializer without further arguments."""
    import keras

    from keras_initx import initializers

    found = []
    for name in sorted(dir(keras.initializers)):
        try:
            initializer = initializers.get(name)
        except (KeyError, TypeError, ValueError):
            continue  # a function such as `serialize`, or a class that needs arguments
        base = keras.initializers.Initializer
        if isinstance(initializer, base) and type(initializer) is not base:
            found.append(name)
    return found


def describe(name: str) -> Facts:
    """Returns the facts about a strategy or an initializer.

    Args:
        name: The name of a strategy, or of an initializer of this package or of Keras, such as `"he_normal"`.

    Raises:
        ValueError: If the name is not known; the message has the nearest name.
    """
    known = {facts["name"]: facts for facts in collect()}
    return known[name] if name in known else of_keras(name)


def of_keras(name: str) -> Facts:
    """Returns the facts about an initializer of Keras; see `describe`."""
    from keras_initx import strategies

    try:
        return _of(name, "Keras", strategies.resolve(name))
    except (KeyError, TypeError) as error:  # from Keras
        raise ValueError(
            f"`name` must be an initializer that can be made without arguments. Received: {name!r}."
        ) from error


def _of(name: str, family: str, one: object) -> Facts:
    import inspect

    from keras_initx.initializers import needs_of

    cls = type(one)
    parameters = inspect.signature(cls).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    needs = ", ".join(["shape", *sorted(needs_of(cls))])
    return {
        "name": name,
        "family": family,
        "needs": "model" if family == "strategy" else needs,
        "summary": _paragraphs(cls)[0],
        "registered": "" if family in ("Keras", "strategy") else f"initx>{name}",
        "law": _find("Law:", cls),
        "reference": _find("Reference:", cls),
        "signature": f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})",
        "defaults": one.get_config() if hasattr(one, "get_config") else defaults,
    }


def _paragraphs(cls: type) -> list[str]:
    import inspect

    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", inspect.getdoc(cls) or "")]


def _find(head: str, cls: type) -> str:
    """Returns the paragraph of a docstring that begins with `head`, without this head."""
    return next((text.removeprefix(head).strip() for text in _paragraphs(cls) if text.startswith(head)), "")


def measure(name: str, shape: tuple[int, ...], seed: int) -> Draw:
    """Draws a kernel in float32, and returns its statistics.

    Args:
        name: The name of an initializer.
        shape: The shape of the kernel.
        seed: The seed of the draw.
    """
    import keras
    import numpy as np

    from keras_initx import initializers

    default = initializers.get(name)
    initializer = type(default).from_config(_seeded(default.get_config(), seed))
    values: np.ndarray = keras.ops.convert_to_numpy(initializer(shape, dtype="float32"))
    counts, edges = np.histogram(values, _BINS)
    fans = initializer.split(shape).fans.to_dict() if hasattr(initializer, "split") else {}
    return {
        "shape": list(shape),
        **fans,  # fan_in and fan_out
        "mean": float(values.mean(dtype="float64")),
        "std": float(values.std(dtype="float64")),
        "min": float(values.min()),
        "max": float(values.max()),
        "counts": counts.tolist(),
        "edges": edges.tolist(),
    }


def _seeded(config: Mapping[str, object], seed: int) -> dict[str, object]:
    """Returns the config with its seed set. An initializer in the config, as in ICNR's, gets it, too."""
    nested = {key: _seeded(value, seed) for key, value in config.items() if isinstance(value, dict)}
    return {**config, **nested, **({"seed": seed} if "seed" in config else {})}
