"""`read_fashion_mnist`: 70,000 images of clothes, from the original files where a machine has them.

Keras, Debian and the authors distribute the same four files. They have the format IDX, compressed by gzip: a
header of big-endian numbers (the kind of the values, the number of axes, the length of each axis), then the
values.
"""

import gzip
import math
import os
import pathlib
import zlib

import numpy as np

from keras_initx.datasets._labelled_images import LabelledImages
from keras_initx.datasets._reach import check_reachable

__all__ = ["APT_CURE", "find_fashion_mnist", "read_fashion_mnist"]

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
APT_CURE = "or, on Debian and Ubuntu, run `apt-get install dataset-fashion-mnist`; "
_HOST = "storage.googleapis.com"
# The names of the files of a split, for images and for labels.
_SPLITS = {
    split: (f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz") for split in ("train", "t10k")
}
_FILES = [name for names in _SPLITS.values() for name in names]
_UNSIGNED_BYTE = 8  # IDX' number for values of one byte


def read_fashion_mnist(folder: str | os.PathLike[str] | None = None) -> LabelledImages:
    """Returns Fashion-MNIST: images of 28x28 pixels in ten classes, 60,000 to train on and 10,000 held out.

    The four original files are read from the first of these folders that holds all of them:

    1. `datasets/fashion-mnist` in Keras' folder, which is `~/.keras`, or `KERAS_HOME` if it is set. This is
       where `keras.datasets.fashion_mnist.load_data()` puts them.
    2. `/usr/share/datasets/fashion-mnist`, where Debian's package `dataset-fashion-mnist` puts them.

    If neither holds them, they are downloaded to the first. This function needs neither tensorflow-datasets
    nor TensorFlow.

    >>> images = read_fashion_mnist()  # doctest: +SKIP
    >>> images.train[0].shape, images.test[0].shape, images.labels[:2]  # doctest: +SKIP
    ((60000, 28, 28, 1), (10000, 28, 28, 1), ('T-shirt/top', 'Trouser'))

    Args:
        folder: The folder of the four files. None for the folders above.

    Returns:
        The names of the labels and the two splits, in the order of the files. Pixels have values from 0 to
        255.

    Raises:
        ValueError: If a file is cut off or damaged, is not the file that its name says, or does not have as
            many rows as the other file of its split.
        FileNotFoundError: If `folder` does not hold the four files.
        ConnectionError: If the files must be downloaded, and their host cannot be reached within 5 seconds.

    Reference:
        Xiao, Rasul and Vollgraf, 2017, "Fashion-MNIST" (https://arxiv.org/abs/1708.07747); the files are
        under the MIT licence (https://github.com/zalandoresearch/fashion-mnist).
    """
    found = pathlib.Path(folder) if folder is not None else find_fashion_mnist() or _download()
    if missing := _missing(found):
        raise FileNotFoundError(
            f"`folder` must hold the four files of Fashion-MNIST. Received: {str(found)!r} without "
            f"{missing}. Take another folder, or leave `folder` out."
        )
    train, test = (_read_split(found, *names) for names in _SPLITS.values())
    return LabelledImages(LABELS, train, test)


def find_fashion_mnist() -> pathlib.Path | None:
    """Returns the first folder of this machine that holds the four files, or None."""
    return next((folder for folder in (_keras_folder(), DEBIAN) if not _missing(folder)), None)


def _keras_folder() -> pathlib.Path:
    home = os.environ.get("KERAS_HOME")
    return (pathlib.Path(home) if home else pathlib.Path.home() / ".keras") / "datasets" / "fashion-mnist"


def _missing(folder: pathlib.Path) -> list[str]:
    return [name for name in _FILES if not (folder / name).is_file()]


def _download() -> pathlib.Path:
    """Downloads the files to Keras' folder by Keras' own function, and returns the folder."""
    import keras

    check_reachable("fashion_mnist", [_HOST], APT_CURE)
    folder = _keras_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        origin = f"https://{_HOST}/tensorflow/tf-keras-datasets/{name}"
        keras.utils.get_file(
            name, origin, cache_dir=str(folder.parents[1]), cache_subdir="datasets/fashion-mnist"
        )
    return folder


def _read_split(folder: pathlib.Path, images_name: str, labels_name: str) -> tuple[np.ndarray, np.ndarray]:
    images = _read_idx(folder / images_name, (28, 28))
    labels = _read_idx(folder / labels_name, ())
    if len(images) != len(labels):
        raise ValueError(
            f"{folder / images_name} must hold an image for each label of {labels_name}. Received: "
            f"{len(images)} images and {len(labels)} labels. {_cure(folder)}"
        )
    if labels.max(initial=0) >= len(LABELS):
        raise ValueError(
            f"{folder / labels_name} must hold labels from 0 to {len(LABELS) - 1}. Received: label "
            f"{labels.max()}. {_cure(folder)}"
        )
    return images[..., None], labels.astype(np.int32)


def _read_idx(path: pathlib.Path, row: tuple[int, ...]) -> np.ndarray:
    """Reads a file of bytes in the format IDX, whose rows have a shape."""
    axes = 1 + len(row)
    magic = bytes([0, 0, _UNSIGNED_BYTE, axes])
    try:
        with gzip.open(path) as file:
            head, shape = file.read(4), tuple(np.frombuffer(file.read(4 * axes), ">i4").tolist())
            data = file.read()
    except (EOFError, gzip.BadGzipFile, ValueError, zlib.error) as error:
        raise ValueError(
            f"{path} must be a whole gzip file. Received: {path.stat().st_size} bytes that cannot be "
            f"decompressed ({error}). {_cure(path.parent)}"
        ) from error
    if head != magic or shape[1:] != row:
        raise ValueError(
            f"{path} must begin with the bytes {magic.hex(' ')} and hold rows of shape {row}. Received: the "
            f"bytes {head.hex(' ')} and shape {shape}. {_cure(path.parent)}"
        )
    if len(data) != math.prod(shape):
        raise ValueError(
            f"{path} must hold the {math.prod(shape)} bytes that its header announces. Received: {len(data)} "
            f"bytes. {_cure(path.parent)}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape).copy()  # in memory that may be written


def _cure(folder: pathlib.Path) -> str:
    if folder == DEBIAN:
        return "Run `apt-get install --reinstall dataset-fashion-mnist`."
    return "Delete the file: without it, the files are read from another folder or downloaded."
