"""After LSUV the pre-activations of models that others wrote have std 1 on the batch."""

import warnings

import numpy as np
import pytest

import keras_initx as initx
from keras_initx import probe
from keras_initx.walk import input_specs, iter_kernels
from support.model_table import APPLICATIONS, BACKBONES, LIGHT, application, backbone, few_elsewhere, slow
from support.outside_probe import assert_reported


def assert_calibrated(model, samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = initx.calibrate(model, None, "initx>LSUV", samples=samples, redraw=True, seed=1)
        batch = initx.data.take_pair(model, None, samples, None, 1, input_specs(model))[0]
    assert_reported(report, model, batch)
    stds = {}

    def observe(site, output):
        stds.setdefault(site.path, []).append(probe.mean_and_variance(output))
        return output

    probe.run(model, batch, [s for s in iter_kernels(model, trace=False) if not s.obstacle], observe)
    done = {row.path for row in report.rows if row.iterations and not row.note}
    assert done
    for path in done:
        calls = np.array(stds[path])
        std = np.sqrt(np.mean(calls[:, 1] + calls[:, 0] ** 2) - np.mean(calls[:, 0]) ** 2)
        # One scale for all calls of a shared layer is found to LSUV's own tolerance.
        assert std == pytest.approx(1, rel=1e-3 if len(calls) == 1 else 0.1), path
    return {row.path: row.note for row in report.rows if row.note}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in LIGHT else slow) for n in APPLICATIONS])
def test_an_application(name):
    assert assert_calibrated(application(name), samples=8) == {}


@pytest.mark.parametrize("name", few_elsewhere(BACKBONES, "GPT2", "ResNet"))
def test_a_backbone(name):
    notes = assert_calibrated(backbone(name), samples=8)
    # Left are tables: tied to the logits or for logits that nobody asks for, of relative distances, and the
    # token of a class.
    assert all(path.endswith(("embeddings", "class_token")) for path in notes), notes
    positions = {note for path, note in notes.items() if path.endswith("position_embedding/embeddings")}
    assert positions <= {"frozen: left as it is"}
