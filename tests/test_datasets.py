import time

import numpy as np
import pytest
import requests
import sklearn.datasets

pytest.importorskip("tensorflow_datasets")
from keras_initx import datasets

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def test_digits_are_scikit_learns_split_without_overlap(tmp_path):
    (train, test), info = datasets.load("initx_digits", ["train", "test"], tmp_path)
    assert (len(train), len(test)) == (1437, 360)
    assert info.features["label"].num_classes == 10
    pairs = [(image, label) for split in (train, test) for image, label in split.as_numpy_iterator()]
    assert all(image.shape == (8, 8, 1) and image.dtype == np.uint8 for image, _ in pairs)
    digits = sklearn.datasets.load_digits()
    ours = sorted((*image.ravel().tolist(), int(label)) for image, label in pairs)
    theirs = sorted((*map(int, row), int(t)) for row, t in zip(digits.data, digits.target, strict=True))
    assert ours == theirs


def test_a_prepared_data_set_is_found_again(tmp_path):
    datasets.load("initx_digits", "train", tmp_path)
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.tfrecord*"))
    datasets.load("initx_digits", "test", tmp_path)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.tfrecord*")) == before


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_a_network_a_download_fails_within_seconds_and_names_the_cure(name, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "head", unreachable)
    started = time.monotonic()
    with pytest.raises(
        ConnectionError,
        match=f"{name!r} is not on this machine .* 'initx_digits' or 'initx_pydoc/code', which need no",
    ):
        datasets.load(name, "train", tmp_path)
    assert time.monotonic() - started < 10
    assert not list(tmp_path.rglob("*.tfrecord*"))


def test_unknown_data_set_lists_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="Received: 'mnits'. Nearest known: 'mnist'"):
        datasets.load("mnits", "train", tmp_path)


def test_a_data_set_without_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The data set `name` must have labels. Received: 'wiki40b'"):
        datasets.load("wiki40b", "train", tmp_path)
