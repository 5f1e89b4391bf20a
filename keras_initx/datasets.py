"""Data sets for the examples: one that needs no network, and a loader that says so when one is needed."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
import sklearn.datasets
import tensorflow_datasets as tfds

__all__ = ["InitxDigits", "load"]

_REACH_SECONDS = 5.0


class InitxDigits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits, 8x8 pixels, as scikit-learn ships them: 1,437 to train on, 360 held out.

    After `import keras_initx.datasets` it is `tfds.load("initx_digits")`; it needs no network.

    Reference:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI repository
        (https://doi.org/10.24432/C50P49), the test part, as in `sklearn.datasets.load_digits`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            description="Handwritten digits of 8x8 pixels with values from 0 to 16.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        # The file is not shuffled: a fixed permutation gives both splits the same mixture.
        order = np.random.default_rng(0).permutation(1797)
        return {
            "train": self._generate_examples(order[:1437]),
            "test": self._generate_examples(order[1437:]),
        }

    def _generate_examples(self, rows: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        digits = sklearn.datasets.load_digits()
        for row in map(int, rows):
            image = digits.images[row].astype(np.uint8)[..., None]
            yield row, {"image": image, "label": int(digits.target[row])}


def load(name: str, split: Any, data_dir: str | os.PathLike[str] | None = None) -> tuple[Any, Any]:
    """Loads a supervised data set by its tensorflow-datasets name, or says within seconds why it cannot.

    >>> import contextlib, io, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     train, info = load("initx_digits", "train", folder)
    >>> len(train), info.features["label"].num_classes
    (1437, 10)

    Args:
        name: `initx_digits`, or any supervised tfds data set (`mnist`, `cifar10`, ...).
        split: As in `tfds.load`: a split's name or a list of them.
        data_dir: Where prepared data sets are kept; tfds' own default when None.

    Returns:
        One `tf.data.Dataset` of (example, label) per split, as in `tfds.load`, and its `DatasetInfo`.

    Raises:
        ValueError: If there is no such data set (the message lists the nearest) or it has no labels.
        ConnectionError: If it must be downloaded and its host is not reached within seconds.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"`dataset` must name a tfds data set. Received: {name!r}. {_nearest(name)}"
        ) from error
    if builder.info.supervised_keys is None:
        raise ValueError(
            f"`dataset` must have labels. Received: {name!r}, which tfds lists without supervised keys. "
            "Choose another, for example 'initx_digits'."
        )
    # Without this look, tfds retries a download without a network for minutes.
    if not builder.data_path.exists():
        _check_reachable(name, {url.split("/")[2] for url in builder.url_infos or () if "//" in url})
        builder.download_and_prepare()
    return builder.as_dataset(split=split, as_supervised=True), builder.info


def _check_reachable(name: str, hosts: set[str]) -> None:
    for host in sorted(hosts):
        try:
            requests.head(f"https://{host}", timeout=_REACH_SECONDS)
        except requests.RequestException as error:
            raise ConnectionError(
                f"The data set {name!r} is not on this machine and {host} cannot be reached to download it. "
                "Connect to a network, or point TFDS_DATA_DIR at a folder where tfds has prepared it on "
                "another machine, or take 'initx_digits', which needs no network."
            ) from error


def _nearest(name: str) -> str:
    import difflib

    known = tfds.list_builders(with_community_datasets=False)
    nearest = difflib.get_close_matches(name, known, n=3) or ["initx_digits", "mnist", "cifar10"]
    return f"Nearest known: {', '.join(map(repr, nearest))}."
