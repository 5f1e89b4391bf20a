import keras
import numpy as np
import pytest
from keras import ops

from keras_initx import initializers
from keras_initx.initializers import DataFilters, KMeansFilters, PCAFilters

both_laws = pytest.mark.parametrize("law", [PCAFilters(seed=1), KMeansFilters(seed=1)])


@keras.saving.register_keras_serializable(package="mine")
class Examples(DataFilters):
    def filters(self, inputs, units):
        return inputs[:units].T


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


@pytest.fixture
def inputs(rng):
    """Correlated inputs of known, well separated variances, far from the origin."""
    turned = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    return 5 + rng.normal(size=(400, 10)) * 2.0 ** np.arange(10) @ turned


def planted(rng, rows, causes, noise=0.0):
    """Rows of one cause each, at sizes of their own, and the causes as orthonormal rows."""
    directions = np.linalg.qr(rng.normal(size=(causes, causes)))[0]
    inputs = rng.laplace(size=(rows, 1)) * directions[np.arange(rows) % causes]
    return inputs + noise * rng.normal(size=inputs.shape), directions


@pytest.mark.parametrize("units", [1, 4, 10])
def test_pca_filters_are_numpys_singular_vectors_up_to_sign(units, inputs):
    filters = PCAFilters().filters(inputs, units)
    expected = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)[2][:units].T
    assert filters.dtype == np.float64
    np.testing.assert_allclose(np.abs((filters * expected).sum(axis=0)), 1.0, rtol=1e-10)
    largest = np.abs(filters).argmax(axis=0)
    assert (filters[largest, np.arange(units)] > 0).all()


def test_pca_outputs_are_uncorrelated_and_of_falling_variance(inputs):
    covariance = np.cov(inputs @ PCAFilters().filters(inputs, 10), rowvar=False)
    variances = np.diag(covariance)
    assert (np.diff(variances) < 0).all()
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-9 * variances[0])


def test_pca_filters_follow_the_data_where_it_turns(inputs, rng):
    """The law is of the inputs alone: turned inputs have turned filters, shifted ones the same."""
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    filters = PCAFilters().filters(inputs, 3)
    np.testing.assert_allclose(PCAFilters().filters(inputs + 7, 3), filters, atol=1e-9)
    turned = PCAFilters().filters(inputs @ turn, 3)
    np.testing.assert_allclose(np.abs((turned * (turn.T @ filters)).sum(axis=0)), 1.0, rtol=1e-9)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize(("rows", "rank"), [(400, 10), (400, 4), (5, 4), (1, 0)])
def test_pca_columns_are_orthonormal_times_gain_whatever_the_rank(rows, rank, gain, rng):
    inputs = 5 + rng.normal(size=(rows, max(rank, 1))) @ rng.normal(size=(max(rank, 1), 10))
    filters = PCAFilters(gain=gain, seed=1).filters(inputs, 10)
    np.testing.assert_allclose(filters.T @ filters, gain**2 * np.eye(10), atol=1e-10)
    # The directions of the data come first; it is constant along all others.
    stds = (inputs @ filters).std(axis=0)
    assert (stds[:rank] > 1e-3).all()
    np.testing.assert_allclose(stds[rank:], 0, atol=1e-10)


def test_pca_units_beyond_fan_in_are_random_unit_vectors(inputs):
    filters = PCAFilters(seed=1).filters(inputs, 1010)
    np.testing.assert_array_equal(filters[:, :10], PCAFilters().filters(inputs, 10))
    beyond = filters[:, 10:]
    np.testing.assert_allclose(np.linalg.norm(beyond, axis=0), 1.0, rtol=1e-12)
    # Uniform on the sphere: a coordinate's square has mean 1 / 10 and variance 2 (10 - 1) / (10^2 (10 + 2)).
    error = 4 * (18 / 1200 / 1000) ** 0.5
    np.testing.assert_allclose(np.square(beyond).mean(axis=1), 0.1, atol=error)


def test_pca_complement_is_uniformly_distributed():
    """Two columns span the data; a third turns freely in the plane that is left."""
    inputs = np.array([[1, 1, 0, 0], [1, -1, 0, 0], [-2, 0, 0, 0], [0, 3, 0, 0]], "float64")
    thirds = np.array([PCAFilters(seed=seed).filters(inputs, 3)[:, 2] for seed in range(400)])
    np.testing.assert_allclose(thirds[:, :2], 0, atol=1e-12)
    # cos(angle) has mean 0 and variance 1/2, its square mean 1/2 and variance 1/8.
    assert abs(thirds[:, 2].mean()) < 4 * (0.5 / 400) ** 0.5
    assert np.square(thirds[:, 2]).mean() == pytest.approx(0.5, abs=4 * (0.125 / 400) ** 0.5)


def test_pca_signs_do_not_hang_on_rounding():
    """Of two entries of equal size, rounding says which is larger; the sign follows the first."""
    for epsilon in (1e-15, -1e-15):
        inputs = np.array([[1.0 + epsilon, -1.0], [-1.0, 1.0 + epsilon]])
        assert PCAFilters().filters(inputs, 1)[0, 0] > 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.999), (0.02, 0.99)])
def test_kmeans_finds_planted_directions(seed, noise, least, rng):
    inputs, causes = planted(rng, 6000, 8, noise)
    filters = KMeansFilters(epsilon=1e-6, seed=seed).filters(inputs, 8)
    cosines = np.abs(causes @ (filters / np.linalg.norm(filters, axis=0)))
    assert cosines.max(axis=1).min() > least
    assert sorted(cosines.argmax(axis=1)) == list(range(8))


def test_kmeans_unmixes_causes_of_unequal_sizes(rng):
    """Whitening makes causes orthogonal and alike, however they were mixed and shifted."""
    causes = rng.laplace(size=(6000, 1)) * np.eye(6)[np.arange(6000) % 6]
    mixed = causes * 3.0 ** np.arange(6) @ rng.normal(size=(6, 6)) + 3
    outputs = mixed @ KMeansFilters(epsilon=1e-12, seed=1).filters(mixed, 6)
    correlations = np.abs(np.corrcoef(outputs.T, causes.T)[:6, 6:])
    assert correlations.max(axis=1).min() > 0.99
    assert sorted(correlations.argmax(axis=1)) == list(range(6))


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_kmeans_outputs_have_std_gain_where_whitening_is_not_damped(gain, inputs):
    filters = KMeansFilters(epsilon=1e-9, gain=gain, seed=1).filters(inputs, 30)
    np.testing.assert_allclose((inputs @ filters).std(axis=0), gain, rtol=1e-3)
    damped = KMeansFilters(epsilon=0.1, gain=gain, seed=1).filters(inputs, 30)
    assert ((inputs @ damped).std(axis=0) <= gain * (1 + 1e-9)).all()


def test_kmeans_gives_no_weight_to_directions_without_variance(rng):
    inputs = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 8)) + 2
    filters = KMeansFilters(seed=1).filters(inputs, 20)
    unseen = np.linalg.svd(inputs - inputs.mean(axis=0))[2][3:]
    np.testing.assert_allclose(unseen @ filters, 0, atol=1e-12)
    assert (inputs @ filters).std(axis=0).min() > 0.1


def test_kmeans_units_differ_even_where_the_data_has_fewer_directions_than_units(rng):
    inputs, _ = planted(rng, 500, 3)
    inputs -= inputs.mean(axis=0)
    filters = KMeansFilters(seed=1).filters(inputs, 12)
    filters /= np.linalg.norm(filters, axis=0)
    assert np.isfinite(filters).all()
    assert (np.abs(filters.T @ filters) - np.eye(12)).max() < 1 - 1e-9


def test_kmeans_fit_does_not_get_worse_by_iterating(rng):
    """The objective: what the nearest centroid leaves of each whitened row."""
    white = rng.normal(size=(500, 6)) ** 3
    fits = []
    for iterations in (1, 3, 30):
        law = KMeansFilters(iterations=iterations, epsilon=1e-9, seed=1)
        centred = white - white.mean(axis=0)
        whitened = centred @ np.linalg.inv(np.linalg.cholesky(centred.T @ centred / 500)).T
        columns = law.filters(whitened, 12)  # whitening again is the identity
        fits.append(np.square(whitened @ columns).max(axis=1).sum())
    assert fits[0] < fits[1] <= fits[2]


@both_laws
@pytest.mark.parametrize("units", [3, 15])
def test_filters_depend_on_seed_and_data_alone(law, units, inputs):
    first = law.filters(inputs, units)
    assert first.shape == (10, units)
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(type(law)(seed=1).filters(inputs.copy(), units), first)
    if units > 10 or isinstance(law, KMeansFilters):
        assert abs(type(law)(seed=2).filters(inputs, units) - first).max() > 1e-3


@both_laws
def test_without_seed_filters_follow_set_random_seed_and_a_generator_advances(law, inputs):
    cls = type(law)
    keras.utils.set_random_seed(3)
    first, second = cls().filters(inputs, 15), cls().filters(inputs, 15)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(cls().filters(inputs, 15), first)
    assert abs(first - second).max() > 1e-3
    advancing = cls(seed=keras.random.SeedGenerator(1))
    assert abs(advancing.filters(inputs, 15) - advancing.filters(inputs, 15)).max() > 1e-3
    again = cls(seed=keras.random.SeedGenerator(1))
    np.testing.assert_array_equal(
        again.filters(inputs, 15), cls(seed=keras.random.SeedGenerator(1)).filters(inputs, 15)
    )


@both_laws
def test_inputs_are_left_as_they_are_and_need_not_be_float64(law, inputs):
    kept = inputs.copy()
    expected = law.filters(inputs, 5)
    np.testing.assert_array_equal(inputs, kept)
    half = law.filters(inputs.astype("float32"), 5)
    assert half.dtype == np.float64
    np.testing.assert_allclose(half, expected, atol=1e-4 * abs(expected).max())


@both_laws
def test_spread_of_float32_rounding_counts_as_none(law, rng):
    """A repeated feature differs from its copy by rounding alone; no unit may be spent on that."""
    inputs = rng.normal(size=(500, 3)).astype("float32")
    inputs = np.concatenate([inputs, inputs @ np.float32([[0.1], [0.3], [0.7]])], axis=1)
    filters = law.filters(inputs, 3)
    assert (inputs @ filters).std(axis=0).min() > 0.1


@pytest.mark.parametrize("cls", [PCAFilters, KMeansFilters, Examples])
def test_base_draw_is_orthonormal(cls):
    kernel = array(cls(gain=2.0, seed=1)((3, 3, 4, 8))).reshape(36, 8)
    np.testing.assert_allclose(kernel.T @ kernel, 4 * np.eye(8), atol=1e-5)


def test_a_law_of_ones_own_is_a_subclass_that_saves_and_loads(tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, kernel_initializer="mine>Examples")]
    )
    model.save(tmp_path / "model.keras")
    law = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert type(law) is Examples
    np.testing.assert_array_equal(law.filters(np.eye(4), 3), np.eye(4)[:, :3])


def test_the_base_is_public_but_no_initializer_by_name():
    assert initializers.DataFilters is DataFilters
    assert "initx>DataFilters" not in initializers.names()
    with pytest.raises(
        NotImplementedError, match=r"`DataFilters` must define `filters\(self, inputs, units\)`"
    ):
        DataFilters().filters(np.eye(3), 2)


def test_config_holds_the_arguments():
    config = keras.initializers.serialize(KMeansFilters(iterations=3, epsilon=0.5, gain=2.0, seed=1))
    assert config["registered_name"] == "initx>KMeansFilters"
    assert config["config"].items() >= {"iterations": 3, "epsilon": 0.5, "gain": 2.0, "seed": 1}.items()
    assert keras.initializers.get(config).get_config() == config["config"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: KMeansFilters(iterations=0),
            "`iterations` must be an int of at least 1. Received: iterations=0",
        ),
        (
            lambda: KMeansFilters(epsilon=0.0),
            "`epsilon` must be a positive, finite number. Received: epsilon=0.0",
        ),
    ],
)
def test_arguments_outside_their_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@both_laws
@pytest.mark.parametrize(
    ("inputs", "units", "message"),
    [
        (np.ones(4), 2, r"`inputs` must be a matrix .*Received: inputs \(shape=\(4,\)\)"),
        (np.ones((0, 4)), 2, r"`inputs` must be a matrix .*Received: inputs \(shape=\(0, 4\)\)"),
        (np.full((5, 4), np.nan), 2, r"of finite numbers.*finite=False. Flatten each patch to a row"),
        (np.ones((5, 4)), 0, r"`units` must be an int of at least 1. Received: units=0"),
        (np.ones((5, 4)), 2.5, r"`units` must be an int of at least 1. Received: units=2.5"),
    ],
)
def test_inputs_that_are_no_matrix_are_refused(law, inputs, units, message):
    with pytest.raises(ValueError, match=message):
        law.filters(inputs, units)


def test_kmeans_needs_a_row_for_each_unit(rng):
    message = (
        r"`units` must be at most the rows of `inputs` for `KMeansFilters`. Received: units=6, inputs "
        r"\(shape=\(5, 4\)\). Give `calibrate` more samples, or take `initx>PCAFilters`"
    )
    with pytest.raises(ValueError, match=message):
        KMeansFilters().filters(rng.normal(size=(5, 4)), 6)


def test_kmeans_needs_inputs_that_vary():
    message = (
        r"`inputs` must vary from row to row. Received: units=2, inputs \(shape=\(5, 4\)\), all rows equal"
    )
    with pytest.raises(ValueError, match=message):
        KMeansFilters().filters(np.full((5, 4), 3.0), 2)
