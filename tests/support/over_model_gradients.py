"""What the laws over a whole model measure on one fixed model; as a script, prints it for a comparison."""

import functools
import json
import sys

import keras
import numpy as np
from keras import layers

from keras_initx.calibration._plan import Job
from keras_initx.calibration._search import make_task
from keras_initx.calibration._settings import Settings
from keras_initx.initializers import _grad_init, _over_model
from keras_initx.losses import choose_loss
from keras_initx.walk import iter_kernels

MEASURES = {
    "rates": _over_model._rates,
    "quotient": functools.partial(_over_model._quotient, epsilon=1e-5),
    "smooth quotient": functools.partial(_over_model._quotient, epsilon=1e-2),
    "after sgd": functools.partial(_grad_init._after, rate=0.1, adam=False),
    "after adam": functools.partial(_grad_init._after, rate=1e-3, adam=True),
    "norm sgd": functools.partial(_grad_init._norm, adam=False),
    "norm adam": functools.partial(_grad_init._norm, adam=True),
}


def build():
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="tanh", name="conv"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(12, activation="gelu", name="hidden"),
            layers.Dense(5, name="head"),
        ]
    )
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights([0.5 + 0.3 * w**2 if w.ndim == 1 else 0.3 * w for w in drawn])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def task_of(model, x, y, loss=None):
    sites = [site for site in iter_kernels(model, trace=False) if len(site.kernel.shape) > 1]
    objective = choose_loss(model, y, loss, "GradInit")
    return make_task(Job(model, x, y, Settings(), objective), sites, [])


def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(30, 8, 8, 1)).astype("float32"), rng.integers(0, 5, 30)


def measure():
    task = task_of(build(), *data())
    scales = np.linspace(0.8, 1.2, len(task.weights))
    found = {name: keras.tree.flatten(task.compile(function)(scales)) for name, function in MEASURES.items()}
    return {
        name: np.concatenate([np.ravel(part) for part in parts]).tolist() for name, parts in found.items()
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()))
