"""What the layers of a model compute before their activations, read without the package's own probe."""

import contextlib

import numpy as np
import pytest
from keras import ops

from keras_initx.walk import iter_kernels


@contextlib.contextmanager
def recording(layer, seen):
    """Has a layer's activation, or else its `call`, list what reaches it or leaves it."""
    attribute = "activation" if callable(getattr(layer, "activation", None)) else "call"
    original, own = getattr(layer, attribute), attribute in layer.__dict__

    def record(*args, **kwargs):
        result = original(*args, **kwargs)
        shown = args[0] if attribute == "activation" else result
        seen.append(np.array(ops.convert_to_numpy(ops.stop_gradient(shown))))  # torch may change it in place
        return result

    object.__setattr__(layer, attribute, record)
    try:
        yield
    finally:
        if own:
            object.__setattr__(layer, attribute, original)
        else:
            object.__delattr__(layer, attribute)


def outside_stds(model, inputs, training=False):
    """The std of each pre-activation that is a layer's only one, by path, over all that hold the kernel."""
    sites = {
        id(site.layer): site
        for site in iter_kernels(model, trace=False)
        if not site.obstacle and site.kernel.name != "reverse_embeddings"
    }
    seen = {site.path: [] for site in sites.values()}
    kept = [(v, np.array(ops.convert_to_numpy(v))) for v in model.non_trainable_variables]
    with contextlib.ExitStack() as hooks:
        for site in sites.values():
            for layer in {id(one.layer): one.layer for one in (site, *site.shared)}.values():
                hooks.enter_context(recording(layer, seen[site.path]))
        model(inputs, training=training)
    for variable, value in kept:
        variable.assign(value)
    values = {path: np.concatenate([part.ravel() for part in parts]) for path, parts in seen.items() if parts}
    return {path: value.astype("float64").std() for path, value in values.items()}


def assert_reported(report, model, inputs, training=False, rel=1e-3):
    """Every std of a report is what the finished model has, and what has none has a reason."""
    found = outside_stds(model, inputs, training)
    told = {row.path: row.std_after for row in report.rows if row.std_after is not None}
    common = sorted(set(told) & set(found))
    assert common
    assert {path: told[path] for path in common} == pytest.approx(
        {path: found[path] for path in common}, rel=rel, abs=1e-6
    )
    assert all(row.note for row in report.rows if row.std_after is None)
