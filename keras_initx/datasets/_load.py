"""Loading a data set of tensorflow-datasets by its name."""

import os
from typing import Any

from keras_initx.extras import require

__all__ = ["load"]

_REACH_SECONDS = 5.0


def load(name: str, split: Any, data_dir: str | os.PathLike[str] | None = None) -> tuple[Any, Any]:
    """Loads a supervised data set by its tensorflow-datasets name, or says within seconds why it cannot.

    >>> import contextlib, io, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     train, info = load("initx_digits", "train", folder)
    >>> len(train), info.features["label"].num_classes
    (1437, 10)

    Args:
        name: `initx_digits`, `initx_pydoc/code`, `initx_pydoc/families`, or any supervised tfds data set
            (`mnist`, `imdb_reviews`, ...).
        split: As in `tfds.load`: a split's name or a list of them.
        data_dir: Where prepared data sets are kept; tfds' own default when None.

    Returns:
        One `tf.data.Dataset` of (example, label) per split, as in `tfds.load`, and its `DatasetInfo`.

    Raises:
        ValueError: If there is no such data set (the message lists the nearest) or it has no labels.
        ConnectionError: If it must be downloaded and its host is not reached within seconds.
        ImportError: If TensorFlow or tensorflow-datasets is absent.
    """
    tfds = _tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"`dataset` must name a tfds data set. Received: {name!r}. {_nearest(tfds, name)}"
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


def _tfds() -> Any:
    # Without TensorFlow tfds prints a banner, and is then half imported.
    modules = ("tensorflow", "tensorflow_datasets", "importlib_resources")
    require(*modules, extra="examples", purpose="A data set of tfds")
    import tensorflow_datasets

    return tensorflow_datasets


def _check_reachable(name: str, hosts: set[str]) -> None:
    import requests

    for host in sorted(hosts):
        try:
            requests.head(f"https://{host}", timeout=_REACH_SECONDS)
        except requests.RequestException as error:
            raise ConnectionError(
                f"The data set {name!r} is not on this machine and {host} cannot be reached to download it. "
                "Connect to a network, or point TFDS_DATA_DIR at a folder where tfds has prepared it on "
                "another machine, or take 'initx_digits' or 'initx_pydoc/code', which need no network."
            ) from error


def _nearest(tfds: Any, name: str) -> str:
    import difflib

    known = tfds.list_builders(with_community_datasets=False)
    nearest = difflib.get_close_matches(name, known, n=3) or ["initx_digits", "mnist", "imdb_reviews"]
    return f"Nearest known: {', '.join(map(repr, nearest))}."
