import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

from keras_initx import initializers as initx


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


@pytest.mark.parametrize(
    ("initializer", "shape", "stddev"),
    [
        (initx.SmallInit(seed=1), (300, 1200), math.sqrt(2 / 1500)),
        (initx.SmallInit(seed=1), (1200, 300), math.sqrt(2 / 1500)),
        (initx.SmallInit(width=100, seed=1), (300, 300), math.sqrt(2 / 500)),
        (initx.WangInit(seed=1), (300, 300), 2 / (12 * math.sqrt(300))),
        (initx.WangInit(layers=2, gain=3.0, seed=1), (1200, 300), 3 / math.sqrt(300)),
        (initx.SpectralScaled(seed=1), (300, 600), 1 / math.sqrt(300)),
        (initx.SpectralScaled(gain=2.0, seed=1), (600, 150), 2 / math.sqrt(600) / 2),
        (initx.RandomWalk("linear", seed=1), (300, 300), math.exp(1 / 600) / math.sqrt(300)),
        (
            initx.RandomWalk(seed=1),
            (100, 900),
            math.sqrt(2) * math.exp(1.2 / (100 - 2.4)) / math.sqrt(100),
        ),
        (initx.EdgeOfChaos(seed=1), (300, 300), 1 / math.sqrt(300)),
    ],
)
def test_entries_have_the_normal_law(initializer, shape, stddev):
    values = array(initializer(shape)).ravel()
    # One draw of a fixed seed: under the law a p below 1e-4 has that chance.
    assert stats.kstest(values, stats.norm(scale=stddev).cdf).pvalue > 1e-4
    assert abs(values.var() / stddev**2 - 1) < 4 * math.sqrt(2 / values.size)


def test_attention_kernels_have_the_models_width():
    """d = 128 to 8 heads of 16: the shape (128, 8, 16) has no 128 x 128 to see."""
    attention = layers.MultiHeadAttention(8, 16, kernel_initializer="initx>SmallInit")
    attention.build((None, 5, 128), (None, 5, 128))
    for kernel in (v for v in attention.weights if v.path.endswith("kernel")):
        assert abs(array(kernel).var() * 5 * 128 / 2 - 1) < 4 * math.sqrt(2 / 128**2)


@pytest.mark.parametrize(("inputs", "outputs"), [(400, 400), (200, 800), (800, 200)])
def test_spectral_norm_is_of_the_size_of_the_condition(inputs, outputs):
    """A Gaussian matrix has the norm std * (sqrt(n_in) + sqrt(n_out)), within a few percent at this size."""
    norm = np.linalg.norm(array(initx.SpectralScaled(seed=2)((inputs, outputs))), 2)
    assert 1 <= norm / math.sqrt(outputs / inputs) <= 2.1


@pytest.mark.parametrize(("activation", "width"), [("linear", 10), ("relu", 12)])
def test_random_walk_keeps_the_logarithm_of_the_norm(activation, width):
    """He's law, which keeps the mean square, lets the log norm of a narrow net fall with depth."""

    def drift(initializer):
        rng = np.random.default_rng(3)
        logs = []
        for kernels in array(initializer((60 * 40, width, width))).reshape(60, 40, width, width):
            signal = rng.standard_normal(width)
            for kernel in kernels:
                mask = rng.random(width) < 0.5 if activation == "relu" else 1.0
                before = np.linalg.norm(signal)
                signal = kernel @ (mask * signal)
                if not np.linalg.norm(signal):
                    break
                logs.append(math.log(np.linalg.norm(signal) / before))
        return np.mean(logs), np.std(logs) / math.sqrt(len(logs))

    keras.utils.set_random_seed(4)
    axes = {"input_axes": (1,), "output_axes": (2,)}
    mean, error = drift(initx.RandomWalk(activation, **axes))
    plain, _ = drift(initx.HeScaled(activation=activation, **axes))
    assert abs(mean) < 4 * error + 0.02  # the ReLU gain is a fit
    assert plain < -4 * error


@pytest.mark.parametrize("cls", [initx.SmallInit, initx.WangInit])
@pytest.mark.parametrize("width", [0, -1, 2.5, "8", True])
def test_widths_that_are_no_counts_are_refused(cls, width):
    with pytest.raises(ValueError, match="`width` must be an int of at least 1. Received: width="):
        cls(width=width)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`layers` must be an int of at least 1"):
        initx.WangInit(layers=0)
    with pytest.raises(ValueError, match=r"`activation` must be one of \['linear', 'relu'\]"):
        initx.RandomWalk("tanh")
