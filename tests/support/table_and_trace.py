"""The kernels of a model as the table of layer classes tells them, beside what their operations tell."""

import dataclasses

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
    """The sites of a model, and what the trace finds of each weight that is no bias, by its id.

    The trace finds None of a weight that no product, convolution or lookup takes. A weight that nothing takes
    has no entry.
    """
    told, failure = find(model, model.trainable_variables)
    assert not failure
    return list(iter_kernels(model, trace=False)), told


def facts(site, kernel, in_loop):
    """The facts that both must tell alike, of a site or of what the trace found."""
    axes = site.unit_axes and {axis % len(kernel.shape) for axis in site.unit_axes[0]}
    sized = axes and {axis for axis in axes if kernel.shape[axis] > 1}
    if in_loop:  # the table has no units of these, and the bias of a sum of two products
        return {"fan_in": site.fans.fan_in}
    return {"fans": site.fans, "bias": getattr(site.bias, "path", None), "units": sized}


def without_bias_of_another(site, found):
    """What the trace found, without a bias that another layer adds: a class knows its own weights only."""
    own = {id(weight) for weight in site.layer.weights}
    return found if id(found.bias) in own else dataclasses.replace(found, bias=None)


def assert_alike(site, found):
    """Checks that table and trace agree about a kernel."""
    if site.role in SCALES:
        assert found is None or not found.uses, site.path
        return
    assert found is not None, f"nothing takes {site.path}"
    assert found.role in FAMILIES[site.role], site.path
    in_loop = site.role in LOOPED or type(site.layer).__name__ == "SimpleRNNCell"
    found = without_bias_of_another(site, found)
    assert facts(found, site.kernel, in_loop) == facts(site, site.kernel, in_loop), site.path
    if in_loop:  # one product makes the pre-activations of all gates
        assert found.fans.fan_out == site.fans.fan_out * site.blocks, site.path
    elif found.layout and site.layout:
        assert (found.layout.kind, found.layout.groups) == (site.layout.kind, site.layout.groups), site.path


def assert_all_alike(model, unseen=(), loose=(), encoded=()):
    """Checks that table and trace agree about all kernels of a model, and that no kernel is unknown.

    Args:
        model: The model.
        unseen: Ends of the paths of those kernels that no product, convolution or lookup needs to take.
        loose: Ends of the paths of those weights whose fans are not known.
        encoded: Ends of the paths of those kernels that take no input.
    """
    sites, told = table_and_trace(model)
    for site in sites:
        found = told.get(id(site.kernel))
        if (found is None or found.role == "other") and site.path.endswith(tuple(unseen)):
            continue
        if encoded and site.path.endswith(tuple(encoded)):
            assert "before it is used" in found.obstacle
            continue
        if not site.uses and (site.fans or site.is_scale):
            assert_alike(site, found)
    known = {id(site.kernel) for site in sites if site.fans or site.is_scale}
    unknown = {
        weight.path
        for weight in model.trainable_variables
        if len(weight.shape) > 1 and id(weight) not in known and told.get(id(weight), "nothing") is not None
    }
    assert {path for path in unknown if not path.endswith(tuple(loose))} == set()
