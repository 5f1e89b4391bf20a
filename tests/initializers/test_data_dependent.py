import keras
import numpy as np
import pytest
from keras import initializers as keras_initializers
from keras import ops

from keras_initx import initializers
from keras_initx.initializers import LSUV, ActNormData, DataDependent, WeightNormData, WithinLayer

# Each law with the mean and std that it promises; None where it promises nothing of the mean.
LAWS = [
    (LSUV(target_std=0.5), None, 0.5),
    (LSUV(target_std=3.0, remove_mean=True), 0.0, 3.0),
    (WithinLayer(), 0.0, 1.0),
    (WithinLayer(beta=0.1), 0.1, 1.0),
    (WeightNormData(), 0.0, 1.0),
    (ActNormData(), 0.0, 1.0),
]


@keras.saving.register_keras_serializable(package="mine")
class HalfSpread(DataDependent):
    scope = "unit"

    def rescale(self, mean, std):
        return 0.5 / std, -0.5 * mean / std


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def statistics(law, outputs):
    """What `calibrate` measures for a law, in the form that the law takes it."""
    if law.scope == "unit":
        return outputs.mean(axis=0), outputs.std(axis=0)
    return float(outputs.mean()), float(outputs.std())


@pytest.fixture
def layer(rng):
    """Inputs, kernel and bias of a dense layer whose units differ much in mean and size."""
    return (
        rng.normal(2.0, 3.0, (300, 12)),
        rng.normal(size=(12, 7)) * 10.0 ** np.arange(-3, 4),
        np.arange(7.0),
    )


@pytest.mark.parametrize(("law", "mean", "std"), [*LAWS, (HalfSpread(), 0.0, 0.5)])
def test_rescaled_kernel_and_bias_bring_the_outputs_to_the_target(law, mean, std, layer):
    inputs, kernel, bias = layer
    outputs = inputs @ kernel + bias
    scale, shift = law.rescale(*statistics(law, outputs))
    rescaled = inputs @ (kernel * scale) + (scale * bias + shift)
    np.testing.assert_allclose(rescaled, scale * outputs + shift, rtol=1e-9, atol=1e-9)
    after = statistics(law, rescaled)
    np.testing.assert_allclose(after[1], std, rtol=1e-9)
    if mean is not None:
        np.testing.assert_allclose(after[0], mean, atol=1e-9)


@pytest.mark.parametrize(("law", "mean", "std"), LAWS)
def test_scale_and_shift_come_in_the_form_of_the_statistics(law, mean, std):
    given = (np.array([3.0, -1.0]), np.array([2.0, 0.1])) if law.scope == "unit" else (3.0, 2.0)
    for value in law.rescale(*given):
        assert type(value) is type(given[0])
        assert np.shape(value) == np.shape(given[0])


def test_lsuv_keeps_the_mean_unless_told_to_remove_it():
    assert LSUV(target_std=3.0).rescale(5.0, 2.0) == (1.5, 0.0)
    assert LSUV(target_std=3.0, remove_mean=True).rescale(5.0, 2.0) == (1.5, -7.5)


@pytest.mark.parametrize("law", [WithinLayer(), WeightNormData(), ActNormData()])
def test_what_the_bias_was_does_not_matter_to_a_law_of_each_unit(law, layer):
    inputs, kernel, bias = layer
    results = []
    for start in (bias, 0 * bias):
        scale, shift = law.rescale(*statistics(law, inputs @ kernel + start))
        results.append((scale, scale * start + shift))
    np.testing.assert_allclose(*(scale for scale, _ in results), rtol=1e-9)
    np.testing.assert_allclose(*(bias for _, bias in results), rtol=1e-6, atol=1e-9)


def test_weight_norm_is_its_equations_in_the_plain_parametrization(layer):
    """t = v x / |v|, g = 1 / std(t), b = -mean(t) / std(t), with nothing of the plain form in it."""
    inputs, v, _ = layer
    lengths = np.linalg.norm(v, axis=0)
    t = inputs @ (v / lengths)
    g, b = 1 / t.std(axis=0), -t.mean(axis=0) / t.std(axis=0)
    scale, shift = WeightNormData().rescale(*statistics(WeightNormData(), inputs @ v))
    np.testing.assert_allclose(scale * v, g * v / lengths, rtol=1e-9)
    np.testing.assert_allclose(shift, b, rtol=1e-9)


@pytest.mark.parametrize(
    ("law", "std"),
    [
        (WithinLayer(gain=2.0, seed=1), 2.0 / 400**0.5),
        (HalfSpread(gain=2.0, seed=1), 2.0 / 400**0.5),
        (WeightNormData(seed=1), 0.05),
        (ActNormData(gain=2.0, seed=1), 0.1),
    ],
)
def test_base_draw_is_normal_with_the_documented_std(law, std):
    draw = array(law((400, 300)))
    # Four standard errors of a std and of a mean over 120000 entries.
    assert draw.std() == pytest.approx(std, rel=4 / (2 * draw.size) ** 0.5)
    assert abs(draw.mean()) < 4 * std / draw.size**0.5
    assert np.mean((draw / draw.std()) ** 4) == pytest.approx(3.0, abs=4 * (24 / draw.size) ** 0.5)


def test_lsuv_draws_an_orthonormal_base():
    kernel = array(LSUV(target_std=3.0, gain=2.0, seed=1)((20, 8)))
    np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), 2.0, rtol=1e-5)


@pytest.mark.parametrize(("law", "mean", "std"), LAWS)
def test_config_names_the_law_and_holds_no_data(law, mean, std):
    config = keras_initializers.serialize(law)
    assert config["registered_name"] == f"initx>{type(law).__name__}"
    own = {LSUV: {"target_std", "remove_mean"}, WithinLayer: {"beta"}}.get(type(law), set())
    assert set(config["config"]) == {"gain", "layout", "seed", "input_axes", "output_axes"} | own
    given = (3.0, 2.0)
    assert keras_initializers.get(config).rescale(*given) == law.rescale(*given)


def test_a_law_of_ones_own_is_a_subclass_that_saves_and_loads(tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, kernel_initializer="mine>HalfSpread")]
    )
    model.save(tmp_path / "model.keras")
    law = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert type(law) is HalfSpread
    assert law.scope == "unit"
    assert law.rescale(3.0, 2.0) == (0.25, -0.75)


def test_the_base_is_public_but_no_initializer_by_name():
    assert initializers.DataDependent is DataDependent
    assert DataDependent.scope == "layer"
    assert "initx>DataDependent" not in initializers.names()
    with pytest.raises(
        NotImplementedError, match=r"`DataDependent` must define `rescale\(self, mean, std\)`"
    ):
        DataDependent().rescale(0.0, 1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LSUV(target_std=0),
            "`target_std` must be a positive, finite number. Received: target_std=0",
        ),
        (lambda: WithinLayer(beta=float("nan")), "`beta` must be a finite number. Received: beta=nan"),
        (lambda: WithinLayer(beta="0"), "`beta` must be a finite number. Received: beta='0'"),
        (lambda: WithinLayer(beta=True), "`beta` must be a finite number. Received: beta=True"),
    ],
)
def test_arguments_outside_their_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
