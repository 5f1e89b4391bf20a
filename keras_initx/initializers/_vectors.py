"""Embeddings that begin with word vectors from a file."""

import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_initx._types import Initializer, Tensor
from keras_initx._vocabulary import Words, least_rows, words_of
from keras_initx.initializers._base import PACKAGE, Seed, Seeded, call_seed, draw
from keras_initx.initializers._vector_files import VectorTable, checksum_of, read_table

# The words, or a text file with a word in each line.
Vocabulary: TypeAlias = Words | str | os.PathLike[str]

_STDDEV = 0.05  # of rows drawn without a vector to measure; the default of Keras' own RandomNormal


@keras.saving.register_keras_serializable(package=PACKAGE)
class FromVectors(Seeded):
    r"""Pretrained word vectors from a file, for the `embeddings_initializer` of an embedding.

    Law: a row whose word is in the file is the word's vector. The rows of all other words are drawn by
    `missing`: by default from the normal distribution that has, in each dimension, the mean and the standard
    deviation of the vectors that were found. Without a file there are no vectors: `missing` draws all rows,
    by default from N(0, 0.05^2), and a warning says so.

    The config holds the path, the checksum of the file, the vocabulary and the law of missing words, but not
    the vectors. So a saved model is small and loads where the file is gone: the weights are in the model's
    file. Keras draws the weights of a layer before it loads them, hence the warning that a missing file
    gives.

    Choose it for text models with few labels. Do not choose it for a vocabulary of word pieces, unless the
    file holds vectors of these pieces. Words are compared as they are written: most files hold words in lower
    case, so make the vocabulary from texts in lower case.

    A strategy of `keras_initx.initialize` draws embeddings, too: pass `overrides={"embedding": None}` to draw
    them by this initializer.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "glove.txt"
    >>> _ = file.write_text("the 0.5 -1\nof 0.25 2\n")
    >>> initializer = FromVectors(file, ["[UNK]", "of", "the"])
    >>> layer = keras.layers.Embedding(3, 2, embeddings_initializer=initializer)
    >>> layer.build()
    >>> print(ops.convert_to_numpy(layer.embeddings)[1:])
    [[ 0.25  2.  ]
     [ 0.5  -1.  ]]
    >>> initializer.missing_words()
    ['[UNK]']

    Args:
        path: The file: `.npz` with an array `vectors` (words, dimension) and an array of texts `words`;
            `.npz` or `.npy` with vectors alone, in the order of the vocabulary; word2vec, as `.bin` or as a
            text with a header (also fastText's `.vec`); or a GloVe text, with any other suffix. Of a word
            that occurs twice, the first vector counts. None for no file.
        vocabulary: The word of each row: words, the path of a text file with a word in each line, or a layer
            with `get_vocabulary`, such as `TextVectorization`, `StringLookup` or a tokenizer of keras_hub. A
            mapping of words to their rows has the numbers from 0 on, each once.
            The words for padding and for unknown words, which such a layer puts first, count as words. An
            empty string is a row without a word; at the end of the vocabulary, the table may lack such rows.
            A layer with `max_tokens` gets these up to `max_tokens`. None takes the vectors in the order of
            the file.
        missing: The initializer of the rows without a vector: a name, such as `"zeros"`, a config or an
            instance. It draws a whole table, of which these rows are taken. None draws a normal distribution
            with the moments of the vectors that were found.
        checksum: SHA-256 of the file, 64 hexadecimal digits. None takes the file as it is now. A config has
            it, and so can be used without the file.
        seed: Rules the draw of missing words, unless `missing` has a seed of its own. None draws new values
            at each call, ruled by `keras.utils.set_random_seed`; an int repeats the values for a shape; a
            `keras.random.SeedGenerator` advances from call to call.

    Raises:
        ValueError: If an argument is none of these, or the file is not there and no checksum was given; on a
            call, if the file has another checksum or is malformed, if the rows or the dimension of the shape
            do not fit the vocabulary and the vectors, or if `dtype` is not a float.

    Reference:
        Kim, 2014, "Convolutional neural networks for sentence classification"
        (https://arxiv.org/abs/1408.5882), starts from word2vec and draws the missing words with the variance
        of the vectors; AllenNLP (https://github.com/allenai/allennlp/pull/185) with their mean and standard
        deviation. Deviation: here each dimension has its own moments, as in Hewitt, 2021, "Initializing new
        word embeddings for pretrained language models"
        (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), without the covariances. Formats: Mikolov et
        al., 2013 (https://arxiv.org/abs/1310.4546); Pennington, Socher and Manning, 2014
        (https://nlp.stanford.edu/projects/glove/).
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        vocabulary: Vocabulary | None = None,
        *,
        missing: Initializer | None = None,
        checksum: str | None = None,
        seed: Seed = None,
    ) -> None:
        super().__init__(seed)
        self.path = None if path is None else os.fspath(path)
        self.vocabulary = None if vocabulary is None else _read_vocabulary(vocabulary)
        self.missing = keras.initializers.get(missing)
        # A checksum tells that the file was there: the config of a saved model does not need the file.
        if self.path is not None and checksum is None:
            checksum = checksum_of(_existing("path", self.path))
        self.checksum = checksum

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns the table as a tensor of this shape and float dtype (None: Keras' floatx).

        Args:
            shape: (rows, dimension). With (dimension, rows), as in the `reverse_embeddings` of a
                `ReversibleEmbedding` without tied weights, the table is transposed.
            dtype: A float dtype.
        """
        shape, table = tuple(shape), self._table()
        if table is not None and len(shape) == 2 and shape[0] == table.vectors.shape[1] != shape[1]:
            return ops.transpose(self(shape[::-1], dtype))
        self._warn(table)
        if table is None:
            return draw(lambda dtype: self._draw_missing(shape, dtype, 0.0, _STDDEV), dtype)
        self._check(shape, table)
        _check_range(table.vectors[: shape[0]], dtype)
        found = table.found[: shape[0], None]

        def sample(dtype: str) -> Tensor:
            # A copy: a backend may share an array's memory, and this table is kept for other draws.
            vectors = ops.convert_to_tensor(table.vectors[: shape[0]].astype(dtype))
            if found.all():
                return vectors
            return ops.where(found, vectors, self._draw_missing(shape, dtype, *_moments(table)))

        return draw(sample, dtype)

    @property
    def remark(self) -> str:
        """How many words of the vocabulary the file has; the report of `initialize` shows it."""
        table = self._table()
        if table is None:
            return "no file of vectors: `missing` drew all rows"
        words = list(self._words(table))
        return f"{sum(found for _, found in words)} of {len(words)} words have vectors" if words else ""

    def missing_words(self) -> list[str]:
        """Returns the words of the vocabulary without a vector, in the order of their rows.

        Without a file, these are all words.
        """
        return [word for word, found in self._words(self._table()) if not found]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "path": self.path,
            "vocabulary": None if self.vocabulary is None else list(self.vocabulary),
            "missing": keras.saving.serialize_keras_object(self.missing),
            "checksum": self.checksum,
        } | super().get_config()

    def _words(self, table: VectorTable | None) -> Iterator[tuple[str, bool]]:
        """Yields each word and whether it has a vector."""
        found = np.zeros(len(self.vocabulary or ()), bool) if table is None else table.found
        return ((word, bool(own)) for word, own in zip(self.vocabulary or (), found, strict=False) if word)

    def _table(self) -> VectorTable | None:
        """The rows from the file; None if there is no file."""
        if self.path is None or self.checksum is None or not pathlib.Path(self.path).is_file():
            return None
        path = pathlib.Path(self.path)
        if (found := checksum_of(path)) != self.checksum:
            raise ValueError(
                f"`checksum` must be the SHA-256 of the file. Received: checksum={self.checksum!r}, "
                f"path={self.path!r} with {found!r}: the file has changed. Put the old file back, or make a "
                "new `FromVectors`. To load a saved model, which has its weights, move the changed file."
            )
        return read_table(path.resolve(), self.checksum, self.vocabulary)

    def _warn(self, table: VectorTable | None) -> None:
        text = ""
        if self.path is None:
            text = "`FromVectors` has no `path`, so `missing` drew all rows. Give a file and a vocabulary."
        elif table is None:
            text = (
                f"`FromVectors` does not find {self.path!r}, so `missing` drew all rows. If you load a saved "
                "model, all is well: its weights replace these rows. If not, put the file back."
            )
        elif words := list(self._words(table)):
            absent = [word for word, found in words if not found]
            # The file is of another language, or writes its words in another case.
            if 2 * len(absent) > len(words):
                text = (
                    f"`FromVectors` found {len(words) - len(absent)} of {len(words)} words in {self.path!r}; "
                    f"not {absent[:5]}. Words must be written as in the file, mostly in lower case."
                )
        if text:
            warnings.warn(text, stacklevel=3)

    def _check(self, shape: tuple[int, ...], table: VectorTable) -> None:
        """Raises ValueError unless the table has this shape, but for empty strings at its end."""
        rows, dimension = table.vectors.shape
        if len(shape) != 2 or shape[1] != dimension:
            raise ValueError(
                "`shape` must be (rows, dimension of the vectors). Received: "
                f"shape={shape}, path={self.path!r} with vectors of {dimension} numbers. Build the embedding "
                f"with output_dim={dimension}, or take another file."
            )
        least = rows if self.vocabulary is None else least_rows(self.vocabulary)
        if not least <= shape[0] <= rows:
            named = "vectors in the file" if self.vocabulary is None else "words in the vocabulary"
            raise ValueError(
                f"`vocabulary` must have a word for each row. Received: shape={shape}, {least} {named}. "
                f"Build the embedding with input_dim={least}. If a layer such as `TextVectorization` numbers "
                "the words, pass this layer as `vocabulary`: it has words for padding and unknown words. An "
                "empty string is a row without a word."
            )

    def _draw_missing(self, shape: tuple[int, ...], dtype: str, mean: Any, stddev: Any) -> Tensor:
        """Draws a whole table by the law of missing words."""
        seed = call_seed(self.seed, shape)
        if self.missing is None:
            normal = keras.random.normal(shape, dtype=dtype, seed=seed)
            return ops.convert_to_tensor(mean, dtype) + ops.convert_to_tensor(stddev, dtype) * normal
        law = self.missing
        # Keras fixes the seed of an initializer when it is made. A new one follows our seed.
        if isinstance(law, keras.initializers.Initializer):
            config = law.get_config()
            if config.get("seed", 0) is None:
                law = type(law).from_config(config | {"seed": seed})
        return law(shape, dtype=dtype)


def _check_range(vectors: np.ndarray, dtype: str | None) -> None:
    """Raises ValueError if a dtype cannot hold some number of the vectors."""
    largest, dtype = float(np.abs(vectors).max(initial=0.0)), dtype or keras.config.floatx()
    if not keras.backend.is_float_dtype(dtype):
        return
    with np.errstate(over="ignore"):
        held = bool(ops.isfinite(ops.cast(largest, dtype)))
    if not held:
        raise ValueError(
            f"`dtype` must hold the vectors of the file. Received: dtype={dtype!r}, and numbers up to "
            f"{largest:g}. Build the embedding with dtype='float32' or 'mixed_float16'."
        )


def _moments(table: VectorTable) -> tuple[Any, Any]:
    """Returns the mean and the standard deviation of the vectors in each dimension."""
    if table.found.sum() < 2:  # one vector has no deviation
        return 0.0, _STDDEV
    # The other rows are zero. `numpy.std` would take the memory of two more tables in float64.
    count, vectors = table.found.sum(), table.vectors
    mean = vectors.sum(axis=0, dtype="float64") / count
    square = np.einsum("ij,ij->j", vectors, vectors, dtype="float64") / count
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))


def _read_vocabulary(vocabulary: object) -> tuple[str, ...]:
    """Returns the word of each row."""
    if isinstance(vocabulary, str | os.PathLike):
        text = _existing("vocabulary", os.fspath(vocabulary)).read_text("utf-8-sig")
        return tuple(text.removesuffix("\n").split("\n"))
    words = words_of(vocabulary)
    if words is None:
        raise ValueError(
            "`vocabulary` must be a sequence of words in the order of the rows, a mapping of words to their "
            "rows, the path of a text file with a word in each line, or a layer with `get_vocabulary`. "
            f"Received: vocabulary of type {type(vocabulary).__name__}."
        )
    return words


def _existing(name: str, path: str) -> pathlib.Path:
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"`{name}` must be an existing file. Received: {name}={path!r}, seen from "
            f"{str(pathlib.Path.cwd())!r}."
        )
    return pathlib.Path(path)
