"""Trains a text classifier from several initializations and exports the best one, which takes strings.

The model `decoder` predicts the next character of Python's own source; all others classify texts.

Plain Python turns text into token numbers, so the script runs on any backend. With KERAS_BACKEND=jax or torch
it needs no TensorFlow. After a kill, give the same command again: the run continues after its last finished
epoch, and ends with the same weights as without the interruption.

    python examples/text_classification.py
    python examples/text_classification.py --dataset initx_pydoc/families --model gru
    python examples/text_classification.py --dataset imdb_reviews --length 200 --model transformer
    python examples/text_classification.py --dataset initx_pysource --model decoder --width 128 --depth 4
"""

import argparse
import collections
import json
import os
import pathlib
import string
import time
import zlib
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import decoder
import keras_initx.datasets
import outcome
import training

WIDTH = 64  # of embeddings, recurrent states and attention
SOURCE = "initx_pysource"  # the data set of the decoder
SOURCE_ROWS = 25_600, 2_560  # of it, in an epoch and held out: 400 steps
VOCABULARY = 8000  # the largest number of tokens
LEARNING_RATE = 1e-3
PUNCTUATION = string.punctuation.encode()


class Data(NamedTuple):
    """A data set as token numbers, and the rules that turned its text into them."""

    # Token numbers, (rows, length), and labels: one for a row, or for a decoder the next token at each place.
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    labels: Sequence[str]
    split: str  # "character" or "whitespace"
    vocabulary: list[str]
    examples: list[str]  # held-out texts


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    help_ = f"any text classification data set of tfds; for the decoder {SOURCE}"
    parser.add_argument("--dataset", default="initx_pydoc/code", help=help_)
    parser.add_argument(
        "--length", type=int, default=64, help="the number of tokens that are read of each text"
    )
    parser.add_argument("--width", type=int, default=WIDTH, help="the width of the decoder")
    parser.add_argument("--depth", type=int, default=2, help="the number of blocks of the decoder")
    default = ["initx>GlorotScaled", "initx>OrthogonalScaled", "initx>LSUV"]
    models = ["relu_rnn", "gru", "lstm", "transformer", "decoder"]
    arguments = training.parse(parser, dict.fromkeys(models, default), epochs=4)
    if arguments.length < 1:
        parser.error(f"--length must be at least 1. Received: {arguments.length}.")
    if (arguments.model == "decoder") != (arguments.dataset == SOURCE):
        parser.error(
            f"--model decoder predicts the next character: it needs --dataset {SOURCE}, which fits no other "
            f"model. Received: --model {arguments.model} --dataset {arguments.dataset}."
        )
    return parser, arguments


def read_texts(name: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]], Sequence[str]]:
    """Returns pairs of text and label for training, such pairs held out, and the names of the labels."""
    builder, _, config = name.partition("/")
    if builder == "initx_pydoc":
        text = keras_initx.datasets.read_pydoc(config or "code")
        return list(text.train), list(text.test), text.labels
    train, test, labels = training.read_tfds(name, "Text")
    train, test = ([(text.decode(), label) for text, label in rows] for rows in (train, test))
    return train, test, labels


def tokenize(text: str, split: str) -> list[str]:
    """Splits text as TextVectorization does. In words, only ASCII letters become lower case."""
    if split == "character":
        return list(text)
    words = text.encode().lower().translate(None, PUNCTUATION).split()
    return [word.decode() for word in words]


def learn_vocabulary(texts: Sequence[str], split: str) -> list[str]:
    """Returns the most frequent tokens, without those that hold a NUL: TensorFlow's tables refuse them."""
    counts = collections.Counter(
        token for text in texts for token in tokenize(text, split) if "\0" not in token
    )
    return sorted(counts, key=lambda token: (-counts[token], token))[: VOCABULARY - 2]


def encode(texts: Sequence[str], split: str, vocabulary: Sequence[str], length: int) -> np.ndarray:
    """Returns token numbers as TextVectorization does: 0 is padding, 1 is an unknown token."""
    numbers = {token: number for number, token in enumerate(vocabulary, 2)}
    ids = np.zeros((len(texts), length), "int32")
    for row, text in zip(ids, texts, strict=True):
        tokens = tokenize(text, split)[:length]
        row[: len(tokens)] = [numbers.get(token, 1) for token in tokens]
    return ids


def load_data(name: str, length: int) -> Data:
    if name == SOURCE:
        return load_source(length)
    train, test, labels = read_texts(name)
    split = "character" if name in ("initx_pydoc", "initx_pydoc/code") else "whitespace"
    vocabulary = learn_vocabulary([text for text, _ in train], split)

    def arrays(rows: list[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
        texts, numbers = zip(*rows, strict=True)
        return encode(texts, split, vocabulary, length), np.array(numbers, "int32")

    return Data(arrays(train), arrays(test), labels, split, vocabulary, [text for text, _ in test[:8]])


def load_source(length: int) -> Data:
    """Returns rows of characters, taken evenly from the whole text, and the character that follows each."""
    text = keras_initx.datasets.read_pysource()

    def some(ids: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        inputs, following = keras_initx.datasets.windows(ids, length)
        rows = np.linspace(0, len(inputs), min(most, len(inputs)), endpoint=False).astype(int)
        return inputs[rows], following[rows]

    train, test = some(text.train, SOURCE_ROWS[0]), some(text.test, SOURCE_ROWS[1])
    examples = ["".join(text.vocabulary[number] for number in row) for row in test[0][:8]]
    # Padding and unknown characters have the numbers that `encode` gives them.
    return Data(train, test, text.vocabulary, "character", list(text.vocabulary[2:]), examples)


def build_model(
    data: Data,
    kind: str,
    initializer: str,
    jit_compile: bool | str = "auto",
    width: int = WIDTH,
    depth: int = 2,
) -> keras.Model:
    """Returns a compiled model from token numbers to probabilities.

    All kernels except the embeddings have the initializer. The width and the depth are the decoder's.
    """
    length, tokens = data.train[0].shape[1], len(data.vocabulary) + 2
    if kind == "decoder":
        body = decoder.build(width, depth, length=length, tokens=tokens, initializer=initializer)
        inputs = body.input
        outputs = keras.layers.Softmax(dtype="float32", name="probabilities")(body.output)
    else:
        inputs = keras.Input((length,), dtype="int32", name="ids")
        head = keras.layers.Dense(
            len(data.labels), "softmax", kernel_initializer=initializer, dtype="float32", name="probabilities"
        )
        outputs = head(encode_text(inputs, kind, tokens, initializer))
    # The name holds a checksum of the vocabulary: with another vocabulary the checkpoint is refused.
    model = keras.Model(
        inputs, outputs, name=f"{kind}_{zlib.crc32(json.dumps(data.vocabulary).encode()):08x}"
    )
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def encode_text(inputs: keras.KerasTensor, kind: str, tokens: int, initializer: str) -> keras.KerasTensor:
    """Turns token numbers into one vector for each text, by a recurrent layer or by attention."""
    x = keras.layers.Embedding(tokens, WIDTH, mask_zero=True, name="embedding")(inputs)
    if kind == "transformer":
        return encode_by_attention(inputs, x, initializer)
    layer = {"relu_rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[kind]
    options = {"activation": "relu"} if kind == "relu_rnn" else {}
    return layer(
        WIDTH, kernel_initializer=initializer, recurrent_initializer=initializer, name=kind, **options
    )(x)


def encode_by_attention(
    inputs: keras.KerasTensor, x: keras.KerasTensor, initializer: str
) -> keras.KerasTensor:
    """Applies two Transformer blocks with normalization before each branch, and takes the mean."""
    x = x + decoder.embed_positions(inputs, WIDTH)
    for name in ("block1", "block2"):
        x = decoder.block(x, name, 4, 2 * WIDTH, "relu", initializer)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.layers.GlobalAveragePooling1D(name="mean")(x)


def save(model: keras.Model, data: Data, target: pathlib.Path) -> None:
    """Saves the model, and beside it the rules for token numbers. Under TensorFlow it also exports both."""
    target.parent.mkdir(parents=True, exist_ok=True)
    training.replace(target.with_name(f"{target.name}.keras"), model.save)
    tokens = {key: getattr(data, key) for key in ("labels", "split", "vocabulary", "examples")}
    target.with_name(f"{target.name}.json").write_text(json.dumps(tokens))
    if keras.backend.backend() == "tensorflow":
        import export_text

        print(f"Exported: {export_text.export(target)}")
    else:
        print("TensorFlow turns it into a SavedModel, on this machine or another one:")
        print(f"    export KERAS_BACKEND=tensorflow\n    python examples/export_text.py {target}")


def main(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    training.check(arguments)
    policy = training.set_up_device(arguments)
    data = load_data(arguments.dataset, arguments.length)
    dataset = arguments.dataset.replace("/", "-")
    size, chance = "", 1 / len(data.labels)
    if arguments.model == "decoder":
        size = f"-{arguments.width}x{arguments.depth}"
        chance = np.bincount(data.test[1].ravel()).max() / data.test[1].size  # always the space
    folder = arguments.runs / f"{dataset}-{arguments.model}{size}-{policy}-seed{arguments.seed}"
    models, records = training.compare(
        arguments,
        folder,
        data,
        lambda initializer: build_model(
            data, arguments.model, initializer, arguments.jit_compile, arguments.width, arguments.depth
        ),
    )
    best = outcome.show(records, chance, arguments.dataset, folder)
    target = arguments.saved_models / dataset.removeprefix("initx_")
    print(f"Saving the model from {best}: {target}.keras")
    save(models[best], data, target)
    print(f"{time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    parser, arguments = parse_arguments()
    training.run(parser, lambda: main(arguments))
