"""The builders that tensorflow-datasets registers: they read what is on every machine that has the extra."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_initx.datasets._digit_images import read_digits
from keras_initx.datasets._pydoc_text import CONFIGS, PydocText, read_pydoc

__all__ = ["InitxDigits", "InitxPydoc"]


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
        digits = read_digits()
        return {"train": self._generate_examples(digits.train), "test": self._generate_examples(digits.test)}

    def _generate_examples(
        self, split: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, (image, label) in enumerate(zip(*split, strict=True)):
            yield row, {"image": image, "label": int(label)}


class InitxPydoc(tfds.core.GeneratorBasedBuilder):
    """Text of Python's standard library, read from its source files where it is installed.

    After `import keras_initx.datasets` it is `tfds.load("initx_pydoc/code")` and
    `tfds.load("initx_pydoc/families")`; it needs no network. What they hold: `read_pydoc`. The text differs
    between releases of Python, so the version names the release: 1.311.7 is that of Python 3.11.7, and what
    one Python has prepared is never taken for that of another.

    Reference:
        The Python Standard Library (https://docs.python.org/3/library/).
    """

    VERSION = tfds.core.Version(
        f"1.{sys.version_info.major}{sys.version_info.minor:02}.{sys.version_info.micro}"
    )
    BUILDER_CONFIGS: list[Any] = [  # noqa: RUF012  as tfds asks for it
        tfds.core.BuilderConfig(name=name, description=description) for name, description in CONFIGS.items()
    ]

    def _info(self) -> Any:
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

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        text = self._read()
        return {"train": self._generate_examples(text.train), "test": self._generate_examples(text.test)}

    def _generate_examples(self, rows: Iterable[tuple[str, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (text, label) in enumerate(rows):
            yield number, {"text": text, "label": label}
