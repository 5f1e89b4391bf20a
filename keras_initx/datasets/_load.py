"""`load`: a data set of tensorflow-datasets by its name, with errors that come within seconds."""

import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow_datasets

from keras_initx.datasets._fashion_images import APT_CURE, find_fashion_mnist, read_fashion_mnist
from keras_initx.datasets._labelled_images import examples
from keras_initx.datasets._reach import check_reachable
from keras_initx.extras import require

__all__ = ["load"]


def load(
    name: str, split: str | Sequence[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> "tuple[Any, tensorflow_datasets.core.DatasetInfo]":
    """Loads a supervised data set by its tensorflow-datasets name.

    If the data set is not on this machine, `load` downloads it. If its host cannot be reached, an error tells
    so within seconds. `fashion_mnist` is prepared without a download where `read_fashion_mnist` finds its
    files: in Keras' folder, or as Debian's package `dataset-fashion-mnist`.

    >>> import contextlib, io, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     train, info = load("initx_digits", "train", folder)
    >>> len(train), info.features["label"].num_classes
    (1437, 10)

    Args:
        name: The name of the data set: `initx_digits`, `initx_pydoc/code`, `initx_pydoc/families`,
            `initx_pysource`, or any data set of tensorflow-datasets that has labels, such as `fashion_mnist`
            or `imdb_reviews`.
        split: The name of a split, such as `"train"` or `"train[:10%]"`, or a list of names; None for all
            splits.
        data_dir: The folder of prepared data sets; None for the default of tensorflow-datasets.

    Returns:
        A `tf.data.Dataset` of pairs (example, label), and the `DatasetInfo`. For a list of splits, a list of
        data sets; for None, a dict of data sets by the names of their splits.

    Raises:
        ValueError: If the data set does not exist (the message lists names that are near), or has no labels;
            or if a file of `fashion_mnist` is damaged.
        ConnectionError: If the data set must be downloaded, and its host cannot be reached within 5 seconds.
        ImportError: If TensorFlow or tensorflow-datasets is not installed.
    """
    tfds = _tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"`name` must be a data set of tensorflow-datasets. Received: {name!r}. {_nearest(tfds, name)}"
        ) from error
    if builder.info.supervised_keys is None:
        raise ValueError(
            f"The data set `name` must have labels. Received: {name!r}, which tensorflow-datasets lists "
            "without supervised keys. Choose another, for example 'initx_digits'."
        )
    if not builder.data_path.exists():
        _prepare(builder)
    return builder.as_dataset(split=split, as_supervised=True), builder.info


def _prepare(builder: "tensorflow_datasets.core.DatasetBuilder") -> None:
    """Writes a data set to its folder, `fashion_mnist` from the files of this machine if there are any."""
    is_fashion = builder.name == "fashion_mnist"
    if is_fashion and find_fashion_mnist():
        images = read_fashion_mnist()
        # tensorflow-datasets calls this method for the rows. Its own would download them.
        builder._split_generators = lambda _: {"train": examples(images.train), "test": examples(images.test)}
    else:
        # Without this check, tensorflow-datasets tries a download again and again, for minutes without a
        # network.
        hosts = {url.split("/")[2] for url in builder.url_infos or () if "//" in url}
        check_reachable(builder.name, hosts, APT_CURE if is_fashion else "")
    builder.download_and_prepare()


def _tfds() -> ModuleType:
    """Returns the module `tensorflow_datasets`; raises ImportError if it cannot be imported."""
    # Without TensorFlow, importing it prints a banner, and leaves a half of the module in `sys.modules`.
    modules = ("tensorflow", "tensorflow_datasets", "importlib_resources")
    require(*modules, extra="examples", purpose="A data set of tfds")
    import tensorflow_datasets

    return tensorflow_datasets


def _nearest(tfds: ModuleType, name: str) -> str:
    """Returns a sentence with the known names that are nearest to a name."""
    import difflib

    known = tfds.list_builders(with_community_datasets=False)
    nearest = difflib.get_close_matches(name, known, n=3) or ["initx_digits", "mnist", "imdb_reviews"]
    return f"Nearest known: {', '.join(map(repr, nearest))}."
