"""How the kernels of a model grow: their fans, weights and updates, as powers of the width."""

from collections.abc import Mapping

from keras_initx.scaling._models import Sized
from keras_initx.scaling._rows import OUTPUTS, Growth
from keras_initx.scaling._run import Trained
from keras_initx.scaling._slopes import fit
from keras_initx.walk import KernelSite

__all__ = ["Fans", "fans_of", "growths_of"]

_GROWS = 0.1  # least power of the width by which a fan counts as growing

# By path: the fans of a kernel, or the width of a head twice for attention.
Fans = dict[str, tuple[float, float]]


def fans_of(model: Sized) -> Fans:
    """Returns the fans of each kernel with known fans, and the head widths of attention."""
    fans = {
        path: (float(site.fans.fan_in), float(site.fans.fan_out))
        for site, path in zip(model.sites, model.paths, strict=True)
        if site.fans
    }
    return fans | {one.path: (float(one.head_width),) * 2 for one in model.attention}


def growths_of(
    smallest: Sized, fans: Mapping[int, Fans], trained: Mapping[int, Mapping[int, Trained]]
) -> tuple[Growth, ...]:
    """Returns how each kernel grows, with attention whose heads grow, and outputs by a tied embedding.

    Args:
        smallest: The smallest model.
        fans: What `fans_of` returned, by width.
        trained: The trainings, by width and seed.
    """
    widths = list(fans)
    seeds = list(trained[widths[0]])

    def power(name: str, path: str) -> float | None:
        sizes = {seed: [getattr(trained[w][seed], name)[path] for w in widths] for seed in seeds}
        if any(size is None for of_seed in sizes.values() for size in of_seed):
            return None
        return fit(widths, sizes).slope

    def grows(path: str) -> tuple[float, float]:
        """The powers of the two fans."""
        found = [fit(widths, {0: [fans[w][path][end] for w in widths]}).slope or 0.0 for end in (0, 1)]
        return found[0], found[1]

    def rate(path: str) -> float | None:
        known = all(path in trained[w][seeds[0]].rates for w in widths)
        return fit(widths, {0: [trained[w][seeds[0]].rates[path] for w in widths]}).slope if known else None

    kernels = [
        _growth(site, path, grows(path), power("weights", path), power("updates", path), rate(path))
        for site, path in zip(smallest.sites, smallest.paths, strict=True)
        if path in fans[widths[0]]
    ]
    logits = [
        Growth(one.path, "logits", "logits", head_width=one.head_width)
        for one in smallest.attention
        if grows(one.path)[0] > _GROWS
    ]
    is_tied = OUTPUTS in trained[widths[0]][seeds[0]].values[0] and any(s.tied for s in smallest.sites)
    return (*kernels, *logits, *([Growth(OUTPUTS, "outputs", "tied")] if is_tied else []))


def _growth(
    site: KernelSite,
    path: str,
    grows: tuple[float, float],
    weights: float | None,
    updates: float | None,
    rate: float | None,
) -> Growth:
    inputs, outputs = grows
    kind = {(True, True): "hidden", (True, False): "output", (False, True): "input"}.get(
        (inputs > _GROWS, outputs > _GROWS), "fixed"
    )
    law = None if weights is None else (outputs - inputs) / 2
    return Growth(path, site.role, kind, law, weights, updates, rate)
