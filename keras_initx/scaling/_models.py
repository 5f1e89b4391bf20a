"""The models of a check: one function builds them at each width, and their kernels pair up."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_initx._types import Batch, Model
from keras_initx.checks import first_line, is_whole
from keras_initx.scaling._attention import Attention, find_attention, unread_attention
from keras_initx.scaling._rows import OUTPUTS
from keras_initx.state import fresh_names
from keras_initx.tables import listed
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["Sized", "build_model", "check_grows", "check_widths", "notes_of", "roles_of", "sized"]


class Sized(NamedTuple):
    """A model at one width.

    Attributes:
        width: The width.
        model: The built model.
        sites: Its kernels, in call order. Scales of normalizations are left out.
        paths: For each kernel, the path of its kernel in the smallest model: names may differ.
        attention: Its attention layers whose logits can be computed, with the paths of the smallest model.
    """

    width: int
    model: Model
    sites: tuple[KernelSite, ...]
    paths: tuple[str, ...]
    attention: tuple[Attention, ...]


def check_widths(widths: object) -> list[int]:
    """Returns the widths as ints.

    >>> check_widths(range(64, 129, 64))
    [64, 128]

    Args:
        widths: What a user gave.

    Raises:
        ValueError: Unless they are two or more ints, positive and rising.
    """
    found: Any = widths.tolist() if hasattr(widths, "tolist") else widths
    good = isinstance(found, list | tuple | range) and all(is_whole(width) and width > 0 for width in found)
    if not good or len(found) < 2 or any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(
            "`widths` must be two or more different positive ints, the smallest first. "
            f"Received: widths={widths!r}. Pass [64, 128, 256, 512], for example."
        )
    return [int(width) for width in found]


def build_model(build: Callable[[int], Model], width: int, batch: Batch | None = None) -> Model:
    """Builds a model with the layer names of a new process, and checks it.

    Args:
        build: Function of a width that returns a model.
        width: The width.
        batch: A batch to call the model on, if it comes without weights; None to leave it so.

    Raises:
        ValueError: If the function raises an exception or returns anything other than a Keras model, or the
            model does not run on the batch.
    """
    if isinstance(build, keras.Model) or not callable(build):
        raise ValueError(
            "`build` must be a function of a width that returns a Keras model. Received: "
            f"{type(build).__name__}. Pass the function itself: coordinates(build, ...)."
        )
    try:
        with fresh_names():
            model = build(width)
    except Exception as error:
        raise ValueError(
            "`build` must be a function of a width that returns a Keras model. Received: a function that "
            f"raised {first_line(error, kind=True)} at width={width}."
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`build` must return a Keras model. Received: {type(model).__name__} at width={width}. End the "
            "function by `return model`."
        )
    if batch is not None and not (model.built and model.weights):
        _call(model, width, batch)
    return model


def _call(model: Model, width: int, batch: Batch) -> None:
    """Calls a model that came without weights, so that its layers make them."""
    try:
        model(tree.map_structure(ops.convert_to_tensor, batch))
    except Exception as error:
        raise ValueError(
            "`build` must return a model that runs on the data. Received: a model without weights that "
            f"raised {first_line(error, kind=True)} at width={width}. Call it on a batch in `build`."
        ) from error


def sized(width: int, model: Model, smallest: Sized | None = None) -> Sized:
    """Returns a model with its kernels, those of several layers once for each layer.

    Args:
        width: The width of the model.
        model: The model.
        smallest: The model of the smallest width; None for this one.

    Raises:
        ValueError: If the model has no kernels, or another structure than the smallest.
    """
    every = [one for site in iter_kernels(model) for one in (site, *site.shared)]
    sites = tuple(site for site in every if not site.is_scale)
    attention = find_attention(model, [site for site in sites if not site.obstacle])
    found = Sized(width, model, sites, tuple(site.path for site in sites), tuple(attention))
    if not sites:
        raise ValueError(
            f"`build` must return a model with kernels. Received: `{model.name}`, in which none is known. "
            "`keras_initx.walk.register` teaches layers."
        )
    if smallest is None:
        return found
    _check_structure(smallest, found)
    renamed = [
        own._replace(path=other.path) for own, other in zip(attention, smallest.attention, strict=False)
    ]
    return found._replace(paths=smallest.paths, attention=tuple(renamed))


def check_grows(model: Sized, seen: dict[tuple[tuple[int, ...], ...], int]) -> None:
    """Notes the shapes of a model's kernels.

    Args:
        model: The model.
        seen: The shapes of smaller models, with their widths.

    Raises:
        ValueError: If a smaller model had the same shapes.
    """
    shapes = tuple(tuple(site.kernel.shape) for site in model.sites)
    if shapes in seen:
        raise ValueError(
            f"`build` must use its width. Received: kernels of equal shapes at width={seen[shapes]} and "
            f"width={model.width}, such as {_told(model.sites[0])}. Pass it on: Dense(width)."
        )
    seen[shapes] = model.width


def roles_of(model: Sized) -> dict[str, str]:
    """Returns the paths of all coordinates of a model in call order, with their roles."""
    found = {path: site.role for site, path in zip(model.sites, model.paths, strict=True)}
    return found | {one.path: "logits" for one in model.attention} | {OUTPUTS: "outputs"}


def notes_of(model: Sized) -> list[str]:
    """Returns a sentence for all coordinates of a model that cannot be read."""
    obstacles = {site.path: site.obstacle for site in model.sites if site.obstacle}
    notes = [
        f"not measured: {listed([path for path in obstacles if obstacles[path] == reason])} ({reason})"
        for reason in dict.fromkeys(obstacles.values())
    ]
    if unread := unread_attention(model.sites, model.attention):
        notes.append(
            f"the logits of {listed(unread)} are not measured, since code other than Keras' computes them; "
            "muP divides them by the width of a head, not by its root"
        )
    return notes


def _check_structure(smaller: Sized, larger: Sized) -> None:
    """Raises ValueError unless the kernels of two models pair up."""
    rule = "`build` must return models of one structure at all widths. Received: "
    cure = "Let the width change the sizes of layers, not their number or their kind."
    for site, other in zip(smaller.sites, larger.sites, strict=False):
        if _structure(site) != _structure(other):
            raise ValueError(
                f"{rule}{_told(site)} at width={smaller.width}, and {_told(other)} in its place at "
                f"width={larger.width}. {cure}"
            )
    if len(smaller.sites) != len(larger.sites):
        raise ValueError(
            f"{rule}{len(smaller.sites)} kernels at width={smaller.width}, and {len(larger.sites)} at "
            f"width={larger.width}. {cure}"
        )


def _structure(site: KernelSite) -> tuple[object, ...]:
    """The properties that a kernel shares with its kernel of another width."""
    return site.role, type(site.layer).__name__, len(site.kernel.shape)


def _told(site: KernelSite) -> str:
    return f"`{site.path}` ({site.role}, shape {tuple(site.kernel.shape)})"
