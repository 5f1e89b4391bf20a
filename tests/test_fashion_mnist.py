"""Fashion-MNIST: where its files are found, the real files, and files that are damaged."""

import gzip
import importlib.util

import numpy as np
import pytest
import requests

from keras_initx import datasets
from keras_initx.datasets import _fashion_images
from support import fashion_files

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
needs_tfds = pytest.mark.skipif(
    not importlib.util.find_spec("tensorflow_datasets"), reason="tfds is not installed"
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Keras' folder and the folder of Debian's package, both empty, on a machine without a network."""

    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(_fashion_images, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(requests, "head", unreachable)
    return tmp_path / "keras" / "datasets" / "fashion-mnist", tmp_path / "debian"


@fashion_files.needs_real_files
def test_the_real_files_hold_the_published_data():
    images = fashion_files.real()
    assert len(images.labels) == 10
    for (pixels, labels), rows in ((images.train, 60_000), (images.test, 10_000)):
        assert (pixels.shape, pixels.dtype) == ((rows, 28, 28, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((rows,), np.int32)
        assert np.bincount(labels).tolist() == [rows // 10] * 10  # the classes are balanced
    # The mean and the standard deviation that everybody standardizes with.
    counts, values = np.bincount(images.train[0].ravel()), np.arange(256) / 255
    mean = np.average(values, weights=counts)
    std = np.sqrt(np.average((values - mean) ** 2, weights=counts))
    assert (round(mean, 4), round(std, 4)) == (0.2860, 0.3530)
    assert images.labels[images.train[1][0]] == "Ankle boot"  # the first image of the authors' page


def test_keras_folder_comes_before_debians_package(places):
    keras_folder, debian = places
    for folder, rows in ((debian, (30, 10)), (keras_folder, (20, 5))):
        arrays = fashion_files.write(folder, rows)
        images = datasets.read_fashion_mnist()
        assert (len(images.train[0]), len(images.test[0])) == rows
        np.testing.assert_array_equal(images.train[0][..., 0], arrays[IMAGES])
        np.testing.assert_array_equal(images.train[1], arrays[LABELS])
    (keras_folder / LABELS).unlink()  # a download that was cut off after three files
    assert len(datasets.read_fashion_mnist().train[0]) == 30


def test_without_home_set_keras_folder_is_in_the_users_home(places, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(places[1]))
    fashion_files.write(places[1] / ".keras" / "datasets" / "fashion-mnist")
    assert len(datasets.read_fashion_mnist().train[0]) == 30


def test_without_files_and_network_each_cure_is_named(places):
    with pytest.raises(
        ConnectionError,
        match=r"'fashion_mnist' is not on this machine and storage.googleapis.com cannot be reached .*"
        r"Connect to a network; or, on Debian and Ubuntu, run `apt-get install dataset-fashion-mnist`; or .*"
        "or take 'initx_digits'",
    ):
        datasets.read_fashion_mnist()
    assert not places[0].exists()


def test_files_that_are_missing_are_downloaded_to_keras_folder(places, monkeypatch, tmp_path):
    import keras

    arrays = fashion_files.write(tmp_path / "server")
    asked = []

    def get_file(name, origin, cache_dir, cache_subdir):
        asked.append(origin)
        (tmp_path / "server" / name).rename(tmp_path / "keras" / cache_subdir / name)
        assert cache_dir == str(tmp_path / "keras")

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    np.testing.assert_array_equal(datasets.read_fashion_mnist().train[0][..., 0], arrays[IMAGES])
    assert len(asked) == 4
    base = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
    assert set(asked) == {base + name for name in arrays}  # where Keras 3.15.1 has them
    assert len(datasets.read_fashion_mnist().test[0]) == 10
    assert len(asked) == 4


def test_a_folder_of_ones_own_must_hold_all_files(tmp_path):
    folder = tmp_path / "own"
    fashion_files.write(folder)
    assert len(datasets.read_fashion_mnist(folder).train[0]) == 30
    (folder / LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=rf"four files .*/own' without \['{LABELS}'\]. Take another"):
        datasets.read_fashion_mnist(folder)


def cut(data):
    return gzip.compress(data)[:-30]


def not_gzip(data):
    return data


def flipped(data):
    whole = bytearray(gzip.compress(data))
    whole[len(whole) // 2] ^= 255
    return bytes(whole)


DAMAGED = {
    "cut off": (IMAGES, cut, "must be a whole gzip file. Received: .* cannot be decompressed"),
    "not gzip": (LABELS, not_gzip, "must be a whole gzip file"),
    "flipped": (IMAGES, flipped, "must be a whole gzip file"),
    "empty": (LABELS, lambda data: b"", "must begin with the bytes 00 00 08 01 .* Received: the bytes  and"),
    "of labels": (IMAGES, lambda data: gzip.compress(b"\0\0\x08\1" + data[4:]), "must begin with .*08 03"),
    "of floats": (LABELS, lambda data: gzip.compress(b"\0\0\x0d\1" + data[4:]), "bytes 00 00 0d 01"),
    "of other images": (
        IMAGES,
        lambda data: gzip.compress(data[:8] + b"\0\0\0\x0e\0\0\0\x38" + data[16:]),
        r"rows of shape \(28, 28\). Received: .* shape \(30, 14, 56\)",
    ),
    "short": (IMAGES, lambda data: gzip.compress(data[:-1]), "must hold the 23520 bytes .* Received: 23519"),
    "long": (LABELS, lambda data: gzip.compress(data + b"\1"), "must hold the 30 bytes .* Received: 31"),
    "header only": (LABELS, lambda data: gzip.compress(data[:6]), "must be a whole gzip file|must begin"),
    "one less": (
        LABELS,
        lambda data: gzip.compress(fashion_files.idx(np.zeros(29, np.uint8))),
        f"an image for each label of {LABELS}. Received: 30 images and 29 labels",
    ),
    "of letters": (
        LABELS,
        lambda data: gzip.compress(fashion_files.idx(np.arange(30, dtype=np.uint8))),
        "must hold labels from 0 to 9. Received: label 29",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("place", ["keras", "debian"])
def test_a_damaged_file_is_named_with_the_cure(case, place, places):
    name, damage, message = DAMAGED[case]
    folder = places[place == "debian"]
    fashion_files.write(folder)
    path = folder / name
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    cure = "--reinstall dataset-fashion-mnist" if place == "debian" else "Delete the file: without it"
    with pytest.raises(ValueError, match=f"{folder.name}/train-.*{message}.* {cure}"):
        datasets.read_fashion_mnist()


@needs_tfds
def test_tfds_prepares_it_from_the_files_and_then_does_without_them(places, tmp_path):
    arrays = fashion_files.write(places[1])
    prepared, info = datasets.load("fashion_mnist", data_dir=tmp_path / "tfds")
    assert sorted(prepared) == ["test", "train"]
    assert info.splits["train"].num_examples == 30
    assert tuple(info.features["label"].names) == _fashion_images.LABELS
    for path in places[1].iterdir():
        path.unlink()
    half, _ = datasets.load("fashion_mnist", "train[:50%]", tmp_path / "tfds")
    assert len(half) == 15
    pairs = list(prepared["train"].as_numpy_iterator())
    assert all((image.shape, image.dtype) == ((28, 28, 1), np.uint8) for image, _ in pairs)
    ours = sorted((image.tobytes(), int(label)) for image, label in pairs)
    theirs = zip(arrays[IMAGES], arrays[LABELS], strict=True)
    assert ours == sorted((image.tobytes(), int(label)) for image, label in theirs)


@needs_tfds
def test_tfds_without_files_and_network_names_the_cure(places, tmp_path):
    with pytest.raises(ConnectionError, match="'fashion_mnist' is not on .* `apt-get install dataset-fash"):
        datasets.load("fashion_mnist", "train", tmp_path / "tfds")


@needs_tfds
def test_a_damaged_file_leaves_no_prepared_data(places, tmp_path):
    fashion_files.write(places[0])
    (places[0] / IMAGES).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        datasets.load("fashion_mnist", "train", tmp_path / "tfds")
    assert not list(tmp_path.rglob("*.tfrecord*"))
