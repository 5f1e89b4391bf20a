"""Predicts with an exported SavedModel and TensorFlow alone, without a Keras model and without keras_initx.

python examples/predict.py saved_models/digits
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import sklearn.datasets
import tensorflow as tf


def main(folder: pathlib.Path) -> None:
    versions = sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal())
    if not versions:
        sys.exit(f"{folder} holds no exported version; run examples/image_classification.py first.")
    model = tf.saved_model.load(str(folder / str(versions[-1])))
    predict = model.signatures["serving_default"]
    digits = sklearn.datasets.load_digits()
    held_out = np.random.default_rng(0).permutation(1797)[1437:][:8]  # the split of keras_initx.datasets
    images = tf.constant(digits.images[held_out, :, :, None], tf.float32)
    probabilities = predict(image=images)["probabilities"]
    print(f"{folder}/{versions[-1]} answers for eight held-out digits:")
    for row, label in zip(probabilities.numpy(), digits.target[held_out], strict=True):
        print(f"  predicted {row.argmax()} with probability {row.max():.2f}, labelled {label}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
