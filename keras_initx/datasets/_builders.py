"""Builders of tensorflow-datasets for `initx_digits`, `initx_pydoc` and `initx_pysource`.

To define a builder registers its name. They read files that every machine with the extra `examples` has.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_initx.datasets._digit_images import read_digits
from keras_initx.datasets._labelled_images import examples
from keras_initx.datasets._pydoc_text import CONFIGS, PydocText, read_pydoc
from keras_initx.datasets._source_text import read_pysource, windows

__all__ = ["InitxDigits", "InitxPydoc", "InitxPysource"]

# tensorflow-datasets finds prepared data by name and version, and wants three numbers.
_PYTHON = f"1.{sys.version_info.major}{sys.version_info.minor:02}.{sys.version_info.micro}"


class InitxDigits(tfds.core.GeneratorBasedBuilder):
    """The builder of `initx_digits`: scikit-learn's handwritten digits, 8x8 pixels.

    1,437 images are to train on, 360 are held out. After `import keras_initx.datasets`,
    `tfds.load("initx_digits")` loads them. They need no network.

    Reference:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI repository
        (https://doi.org/10.24432/C50P49), the test part, as in `sklearn.datasets.load_digits`.
    """

    VERSION = tfds.core.Version("1.0.0")

    # The names and arguments of the methods are those that tensorflow-datasets calls.
    def _info(self) -> tfds.core.DatasetInfo:
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

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        digits = read_digits()
        return {"train": self._generate_examples(digits.train), "test": self._generate_examples(digits.test)}

    def _generate_examples(
        self, split: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from examples(split)


class InitxPydoc(tfds.core.GeneratorBasedBuilder):
    """The builder of `initx_pydoc`: text of Python's standard library, read from its source files.

    After `import keras_initx.datasets`, `tfds.load("initx_pydoc/code")` and
    `tfds.load("initx_pydoc/families")` load it. It needs no network. `code` holds lines of docstrings and of
    source, to be told apart. `families` holds sentences of docstrings, labelled by the family of their
    module. `read_pydoc` describes both.

    The text differs between releases of Python, so the version names the release: version 1.311.7 is the text
    of Python 3.11.7. So tensorflow-datasets never takes the prepared text of one Python for another's.

    Reference:
        The Python Standard Library (https://docs.python.org/3/library/).
    """

    VERSION = tfds.core.Version(_PYTHON)
    BUILDER_CONFIGS: list[Any] = [  # noqa: RUF012  tensorflow-datasets reads a list
        tfds.core.BuilderConfig(name=name, description=description) for name, description in CONFIGS.items()
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Text of Python's standard library.",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=self._read().labels)}
            ),
            supervised_keys=("text", "label"),
            homepage="https://docs.python.org/3/library/",
        )

    def _read(self) -> PydocText:
        return read_pydoc(self.builder_config.name)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        text = self._read()
        return {"train": self._generate_examples(text.train), "test": self._generate_examples(text.test)}

    def _generate_examples(self, rows: Iterable[tuple[str, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (text, label) in enumerate(rows):
            yield number, {"text": text, "label": label}


class InitxPysource(tfds.core.GeneratorBasedBuilder):
    """The builder of `initx_pysource`: characters of Python's own source and documentation.

    After `import keras_initx.datasets`, `tfds.load("initx_pysource")` loads it. It needs no network. In an
    example, `ids` are the numbers of 128 characters, and `next` the numbers of the characters that follow
    each of them. `read_pysource` describes the text, the splits and the numbers. As for `initx_pydoc`, the
    version names the release of Python.

    Reference:
        The Python Standard Library (https://docs.python.org/3/library/).
    """

    VERSION = tfds.core.Version(_PYTHON)
    LENGTH = 128

    def _info(self) -> tfds.core.DatasetInfo:
        ids = tfds.features.Tensor(shape=(self.LENGTH,), dtype=np.int32)
        return self.dataset_info_from_configs(
            description="Characters of the source files of Python's standard library, as numbers.",
            features=tfds.features.FeaturesDict({"ids": ids, "next": ids}),
            supervised_keys=("ids", "next"),
            homepage="https://docs.python.org/3/library/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        text = read_pysource()
        return {"train": self._generate_examples(text.train), "test": self._generate_examples(text.test)}

    def _generate_examples(self, ids: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (row, following) in enumerate(zip(*windows(ids, self.LENGTH), strict=True)):
            yield number, {"ids": row, "next": following}
