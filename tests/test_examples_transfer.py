"""The transfer example: the heads that it compares, and the images that each of them sees."""

import pathlib
import types

import numpy as np
import pytest

import keras_initx.datasets
from support import fashion_files

pytest.importorskip("sklearn")

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(keras_initx.datasets, "read_fashion_mnist", fashion_files.real)
    import transfer

    return transfer


@fashion_files.needs_real_files
def test_no_image_of_a_new_class_reaches_the_body_and_none_of_the_test_a_head(example):
    data = example.read()
    assert [sorted(set(labels)) for _, labels in data.values()] == [[*range(5)]] * 3
    assert [len(labels) for _, labels in data.values()] == [30_000, 30_000, 5_000]
    images, labels = example.few(data["new"], 3, seed=0)
    assert np.bincount(labels).tolist() == [3] * 5
    other, _ = example.few(data["new"], 3, seed=1)
    assert not np.array_equal(images, other)
    test = {image.tobytes() for image in data["test"][0]}
    assert not any(image.tobytes() in test for image in images)


@pytest.mark.integration
@fashion_files.needs_real_files
def test_heads_from_few_labels_start_ahead_of_a_random_one(example, capsys):
    """After 100 steps of the body. Five thousand test images know a share to 0.02 (three standard errors)."""
    arguments = types.SimpleNamespace(shots=[10], seeds=1, body_steps=100)
    found = example.measure(arguments)
    accuracy = {name: found[name, 10, False][0] for name in example.STARTS}
    assert min(accuracy["class means"], accuracy["linear probe"]) > accuracy["random"] + 0.1
    assert min(accuracy["class means"], accuracy["linear probe"]) > 0.4
    example.show(found, [10])
    out = capsys.readouterr().out
    assert f"{100 * accuracy['linear probe']:.1f}\n" in out
    assert "An interval needs two seeds: pass --seeds 2" in out
    assert "inf" not in out
    assert "no difference shown" in out  # one seed shows none


def test_an_interval_needs_two_seeds(example, capsys):
    accuracies = {name: 0.1 * number for number, name in enumerate(example.STARTS)}

    def shown(seeds):
        example.show(
            {(name, 5, tuned): [own] * seeds for name, own in accuracies.items() for tuned in (False, True)},
            [5],
        )
        return capsys.readouterr().out

    alone, two = shown(1), shown(2)
    assert "An interval needs two seeds: pass --seeds 2" in alone
    assert "[" not in alone
    assert "30.0 [30.0, 30.0]" in two
    assert "needs two seeds" not in two
