"""Exports a text model that was trained on any backend, as a SavedModel that takes strings.

    KERAS_BACKEND=tensorflow python examples/export_text.py saved_models/pydoc-code

This command reads `saved_models/pydoc-code.keras`, a model that takes token numbers, and
`saved_models/pydoc-code.json`, the rules that turn text into token numbers. It writes the next version in the
folder `saved_models/pydoc-code`.
"""

import importlib.util
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_initx as initx


def vectorizer(tokens: dict, length: int) -> keras.layers.TextVectorization:
    """Returns the layer that does in TensorFlow the work of `text_classification.encode`."""
    return keras.layers.TextVectorization(
        standardize=None if tokens["split"] == "character" else "lower_and_strip_punctuation",
        split=tokens["split"],
        vocabulary=tokens["vocabulary"],
        output_sequence_length=length,
        name="token_ids",
    )


def export(target: pathlib.Path) -> initx.saved_model.ExportedModel:
    """Puts the vectorization before the model and exports both as one model."""
    tokens = json.loads(target.with_name(f"{target.name}.json").read_text())
    model = keras.models.load_model(target.with_name(f"{target.name}.keras"))
    text = keras.Input((), dtype="string", name="text")
    ids = vectorizer(tokens, model.input_shape[1])(text)
    whole = keras.Model(text, {"probabilities": model(ids)}, name=model.name)
    # Warm-up requests are messages of TensorFlow Serving, which the extra `serve` installs.
    rows = np.array(tokens["examples"]) if importlib.util.find_spec("tensorflow_serving") else None
    # A decoder has probabilities at each place of a text, and labels name the columns of one row.
    labels = tokens["labels"] if len(model.output_shape) == 2 else None
    return initx.export(whole, target, labels=labels, warmup=rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(f"Exported: {export(pathlib.Path(sys.argv[1]))}")
    except (OSError, ValueError) as error:
        print(f"{error}\nRun examples/text_classification.py first.", file=sys.stderr)
        sys.exit(2)
