"""The kernels of a model as the table of layer classes tells them, beside what their operations tell."""

import math

from keras_initx.walk import iter_kernels
from keras_initx.walk._found import find
from keras_initx.walk._layers import SCALES

PRODUCT, CONVOLUTION, LOOKUP = {"dense", "einsum"}, {"conv", "depthwise", "transposed"}, {"embedding"}
# The role that the operation tells, by the role that the class has.
FAMILIES = {
    **dict.fromkeys(("dense", "einsum", "query", "key", "value", "attention_output"), PRODUCT),
    **dict.fromkeys(("gates", "recurrent"), PRODUCT | CONVOLUTION),
    "conv": {"conv"},
    "depthwise": {"depthwise"},
    "embedding": LOOKUP,
    "pointwise": {"conv"},
    "transposed": {"transposed"},
}
LOOPED = ("gates", "recurrent")


def table_and_trace(model):
    """Pairs of the site of each kernel that the table of classes has, and what the trace finds of its kernel.

    The trace gives None for a kernel that no product, convolution or lookup takes.
    """
    sites = [s for s in iter_kernels(model, trace=False) if not s.uses and (s.fans or s.role in SCALES)]
    weights = {id(w): w for w in (*(site.kernel for site in sites), *model.trainable_variables)}
    told, failure = find(model, list(weights.values()))
    assert not failure
    return [(site, told.get(id(site.kernel))) for site in sites]


def facts(site, kernel, in_loop):
    """The facts that both must tell alike, of a site or of what the trace found."""
    axes = site.unit_axes and {axis % len(kernel.shape) for axis in site.unit_axes[0]}
    sized = axes and {axis for axis in axes if kernel.shape[axis] > 1}
    if in_loop:  # the table has no units of these, and the bias of a sum of two products
        return {"fan_in": site.fans.fan_in}
    return {"fans": site.fans, "bias": getattr(site.bias, "path", None), "units": sized}


def assert_alike(site, found):
    """Checks that table and trace agree about a kernel."""
    if site.role in SCALES:
        assert found is None or not found.uses, site.path
        return
    assert found is not None, f"nothing takes {site.path}"
    assert found.role in FAMILIES[site.role], site.path
    in_loop = site.role in LOOPED or type(site.layer).__name__ == "SimpleRNNCell"
    assert facts(found, site.kernel, in_loop) == facts(site, site.kernel, in_loop), site.path
    if in_loop:  # one product makes the pre-activations of all gates
        assert found.fans.fan_out == site.fans.fan_out * site.blocks, site.path
    elif found.layout and site.layout:
        assert (found.layout.kind, found.layout.groups) == (site.layout.kind, site.layout.groups), site.path


def share_known(model, sites, exempt=()):
    """The share of the parameters of a model's trainable weights of two axes or more whose fans are known.

    Args:
        model: The model.
        sites: Its sites.
        exempt: Names of weights that do not count.
    """
    known = {id(site.kernel) for site in sites if site.fans or site.is_scale}
    weights = [v for v in model.trainable_variables if len(v.shape) > 1 and v.name not in exempt]
    sizes = {id(v): math.prod(v.shape) for v in weights}
    return sum(size for key, size in sizes.items() if key in known) / sum(sizes.values())
