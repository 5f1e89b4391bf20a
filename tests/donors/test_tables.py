import keras
import numpy as np
import pytest

from keras_initx.donors._tables import fill_new, grid_of, resample, resize_positions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 5)), ((6, 5), (12, 10)), ((3, 3), (3, 3))])
def test_a_larger_map_is_that_of_keras(old, new):
    cells = RNG.normal(size=(*old, 3)).astype("float32")
    # TensorFlow's cubic is Keys' one without antialias; it reads no cell outside in the middle of the map.
    expected = keras.ops.image.resize(cells[None], new, interpolation="bicubic", antialias=True)[0]
    found = resample(cells, new)
    inner = (slice(2 * new[0] // old[0], -2 * new[0] // old[0] or None),) if old != new else ()
    assert found.shape == (*new, 3)
    np.testing.assert_allclose(found[inner], keras.ops.convert_to_numpy(expected)[inner], atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 5)), ((8, 8), (3, 4)), ((5, 7), (2, 2))])
def test_a_map_is_resampled_as_jax_does(old, new):
    jax = pytest.importorskip("jax")
    cells = RNG.normal(size=(*old, 3)).astype("float32")
    expected = jax.image.resize(cells, (*new, 3), method="cubic", antialias=True)
    np.testing.assert_allclose(resample(cells, new), np.asarray(expected), atol=1e-5)


def test_the_tokens_before_the_grid_stay():
    table = RNG.normal(size=(17, 3)).astype("float32")
    found = resize_positions(table, 50, ((4, 4), (7, 7)))
    np.testing.assert_array_equal(found[0], table[0])
    expected = resample(table[1:].reshape(4, 4, 3), (7, 7)).reshape(49, 3)
    np.testing.assert_array_equal(found[1:], expected)


def test_positions_of_a_text():
    table = np.arange(4.0)[:, None]
    assert resize_positions(table, 3, None).ravel().tolist() == [0, 1, 2]
    assert resize_positions(table, 6, None).ravel().tolist() == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("rows", "donor", "grid"),
    [
        (49, 16, ((4, 4), (7, 7))),
        (50, 17, ((4, 4), (7, 7))),
        (51, 18, ((4, 4), (7, 7))),
        (50, 18, None),
        (48, 16, None),
    ],
)
def test_squares_of_a_grid(rows, donor, grid):
    assert grid_of(rows, donor) == grid


OLD = RNG.normal(2, 3, size=(40, 5))


def filled(law, like=None, count=6):
    rows = np.zeros((count, 5))
    rows[:2] = OLD[:2]
    return fill_new(rows, np.arange(2, count), OLD, law, like or {}, np.random.default_rng(1))


def test_new_rows_of_each_law():
    np.testing.assert_array_equal(filled("zeros")[2:], 0)
    np.testing.assert_allclose(filled("mean")[2:], np.tile(OLD.mean(0), (4, 1)))
    found = filled("like", {3: (4,), 5: (7, 9)})
    np.testing.assert_allclose(found[3], OLD[4])
    np.testing.assert_allclose(found[5], OLD[[7, 9]].mean(0))
    np.testing.assert_allclose(found[2], OLD.mean(0))
    for law in ("like", "mean", "normal", "zeros"):
        np.testing.assert_array_equal(filled(law)[:2], OLD[:2])


def test_normal_rows_have_the_mean_and_a_share_of_the_covariance():
    drawn = filled("normal", count=20_002)[2:]
    scale = 1e-5 * np.cov(OLD.T)
    # Means of 20,000 draws: five standard errors. Covariances of as many: 5 sqrt(2 / 20,000) = 5 %.
    np.testing.assert_allclose(drawn.mean(0), OLD.mean(0), atol=5 * np.sqrt(scale.max() / 20_000))
    np.testing.assert_allclose(np.cov(drawn.T), scale, atol=0.05 * scale.max())
