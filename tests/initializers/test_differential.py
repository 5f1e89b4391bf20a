"""Against Keras, `torch.nn.init` and `jax.nn.initializers`, wherever they have the initializer."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_initx import initializers as initx
from keras_initx.fans import compute_fans

SHAPE = (300, 500)
CONV = (3, 3, 20, 40)
N = {"normal": 3.0, "truncated_normal": 2.37, "uniform": 1.8}  # kurtosis


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def assert_same_law(ours, theirs, kurtosis=3.0):
    """Two samples of one law: variances within 4 standard errors of their ratio, and Kolmogorov-Smirnov."""
    ours, theirs = np.ravel(ours), np.ravel(theirs)
    error = math.sqrt((kurtosis - 1) * (1 / ours.size + 1 / theirs.size))
    assert abs(math.log(ours.var() / theirs.var())) < 4 * error
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


KERAS = {
    "glorot_uniform": (initx.GlorotScaled(seed=1), "uniform"),
    "glorot_normal": (initx.GlorotScaled(distribution="truncated_normal", seed=1), "truncated_normal"),
    "he_normal": (initx.HeScaled(distribution="truncated_normal", seed=1), "truncated_normal"),
    "he_uniform": (initx.HeScaled(distribution="uniform", seed=1), "uniform"),
    "lecun_normal": (initx.LecunScaled(seed=1), "truncated_normal"),
    "lecun_uniform": (initx.LecunScaled(distribution="uniform", seed=1), "uniform"),
}


def compute_variance(initializer, shape):
    fans = compute_fans(shape)
    n = fans.fan_in if initializer.mode == "fan_in" else (fans.fan_in + fans.fan_out) / 2
    return (2 if initializer.activation == "relu" else 1) / n


@pytest.mark.parametrize("shape", [SHAPE, CONV])
@pytest.mark.parametrize("name", KERAS)
def test_keras_namesake_has_the_same_law_and_support(name, shape):
    initializer, distribution = KERAS[name]
    ours, theirs = array(initializer(shape)), array(keras.initializers.get(name)(shape))
    assert_same_law(ours, theirs, N[distribution])
    end = math.sqrt(3) if distribution == "uniform" else 2 / 0.87962566103423978
    # Of n points the largest is within some 10 / n of the end, in units of the distribution function.
    # The end is the law's, not Keras' own: on torch its truncated normals pass it now and then.
    assert 0.99 < abs(ours).max() / (end * math.sqrt(compute_variance(initializer, shape))) < 1 + 1e-6


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("ours", ["normal", "truncated_normal", "uniform"])
def test_variance_scaling_has_the_same_law(ours, mode):
    theirs = "untruncated_normal" if ours == "normal" else ours
    theirs = keras.initializers.VarianceScaling(3.0, mode, theirs)
    ours_ = initx.RandomScaled(math.sqrt(3), mode=mode, distribution=ours, seed=2)
    assert_same_law(array(ours_(CONV)), array(theirs(CONV)), N[ours])


@pytest.mark.parametrize("shape", [(5, 5), (7, 8), (8, 7), (7, 8, 8), (3, 3, 4, 40)])
def test_orthogonal_flattens_and_scales_as_in_keras(shape):
    for kernel in (initx.OrthogonalScaled(2.0, seed=3)(shape), keras.initializers.Orthogonal(2.0)(shape)):
        values = np.linalg.svd(array(kernel).reshape(-1, shape[-1]), compute_uv=False)
        np.testing.assert_allclose(values, 2.0, atol=1e-5)


def test_identity_and_constant_are_those_of_keras():
    for shape in [(4, 4), (3, 5), (5, 3)]:
        ours, theirs = initx.IdentityScaled(2.0)(shape), keras.initializers.Identity(2.0)(shape)
        np.testing.assert_array_equal(array(ours), array(theirs))
    np.testing.assert_array_equal(
        array(initx.ConstantFill(3.0)(SHAPE)), array(keras.initializers.Constant(3.0)(SHAPE))
    )


def in_torch(fill, shape, transpose=True):
    """A kernel that torch.nn.init fills, in Keras' order of axes."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    rank = len(shape)
    order = (rank - 1, rank - 2, *range(rank - 2))
    tensor = torch.empty([shape[axis] for axis in order])
    fill(torch.nn.init, tensor)
    return np.transpose(tensor.numpy().astype("float64"), (*range(2, rank), 1, 0))


TORCH = {
    "xavier_uniform": (lambda t, w: t.xavier_uniform_(w), initx.GlorotScaled(seed=1), 1.8),
    "xavier_normal": (
        lambda t, w: t.xavier_normal_(w, 2.0),
        initx.GlorotScaled(2.0, distribution="normal"),
        3,
    ),
    "kaiming_normal": (lambda t, w: t.kaiming_normal_(w, nonlinearity="relu"), initx.HeScaled(seed=1), 3),
    "kaiming_fan_out": (
        lambda t, w: t.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"),
        initx.HeScaled(mode="fan_out", distribution="uniform", seed=1),
        1.8,
    ),
    "leaky slope": (
        lambda t, w: t.kaiming_normal_(w, a=0.3, nonlinearity="leaky_relu"),
        initx.HeScaled(activation=keras.layers.LeakyReLU(0.3), seed=1),
        3,
    ),
    "default of its layers": (
        lambda t, w: t.kaiming_uniform_(w, a=math.sqrt(5)),
        initx.RandomScaled(3**-0.5, distribution="uniform", seed=1),
        1.8,
    ),
}


@pytest.mark.parametrize("shape", [SHAPE, CONV])
@pytest.mark.parametrize("name", TORCH)
def test_torch_has_the_same_law(name, shape):
    fill, initializer, kurtosis = TORCH[name]
    assert_same_law(array(initializer(shape)), in_torch(fill, shape), kurtosis)


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 3, 5, 5), (3, 5, 6, 4), (3, 3, 3, 4, 4)])
def test_dirac_is_that_of_torch_for_odd_fields(shape):
    np.testing.assert_array_equal(array(initx.Dirac()(shape)), in_torch(lambda t, w: t.dirac_(w), shape))


def test_dirac_with_groups_is_that_of_torch():
    ours = initx.Dirac(layout={"kind": "conv", "groups": 3})((3, 3, 4, 12))
    np.testing.assert_array_equal(array(ours), in_torch(lambda t, w: t.dirac_(w, groups=3), (3, 3, 4, 12)))


def test_orthogonal_entries_have_torchs_law():
    ours = [array(initx.OrthogonalScaled(seed=seed)((40, 20))) for seed in range(40)]
    theirs = [in_torch(lambda t, w: t.orthogonal_(w), (40, 20)) for _ in range(1)]
    # Entries of one matrix are nearly independent: their law is that of a coordinate on the sphere in 40.
    law = stats.beta(39 / 2, 39 / 2, loc=-1, scale=2)
    assert stats.kstest(np.array(ours)[:, 0, 0], law.cdf).pvalue > 1e-4
    assert stats.ks_2samp(np.ravel(ours), np.ravel(theirs)).pvalue > 1e-4


def test_sparse_differs_from_torchs_by_design():
    """Ours counts the weights into a unit, torch's zeros a fraction of those out of an input."""
    ours = array(initx.SparseNormal(nonzeros=30, seed=6)((300, 200)))
    theirs = in_torch(lambda t, w: t.sparse_(w, sparsity=0.9, std=1.0), (300, 200))
    assert ((ours != 0).sum(0) == 30).all()
    assert ((theirs != 0).sum(1) == 20).all()
    assert_same_law(ours[ours != 0], theirs[theirs != 0])


def in_jax(build, shape):
    jax = pytest.importorskip("jax")
    return np.asarray(build(jax.nn.initializers)(jax.random.key(7), shape), "float64")


JAX = {
    "variance_scaling geometric": (
        lambda j: j.variance_scaling(2.0, "fan_geo_avg", "normal"),
        initx.RandomScaled(math.sqrt(2), mode="fan_geom", seed=1),
        3,
    ),
    "he_normal": (lambda j: j.he_normal(), initx.HeScaled(distribution="truncated_normal", seed=1), 2.37),
    "lecun_uniform": (lambda j: j.lecun_uniform(), initx.LecunScaled(distribution="uniform", seed=1), 1.8),
    "glorot_uniform": (lambda j: j.glorot_uniform(), initx.GlorotScaled(seed=1), 1.8),
}


@pytest.mark.parametrize("shape", [SHAPE, CONV])
@pytest.mark.parametrize("name", JAX)
def test_jax_has_the_same_law(name, shape):
    build, initializer, kurtosis = JAX[name]
    assert_same_law(array(initializer(shape)), in_jax(build, shape), kurtosis)


def test_jax_batch_axes_are_ours():
    theirs = in_jax(
        lambda j: j.variance_scaling(1.0, "fan_avg", "normal", in_axis=1, out_axis=2, batch_axis=0),
        (9, 60, 80),
    )
    ours = initx.RandomScaled(mode="fan_avg", seed=8, input_axes=(1,), output_axes=(2,))((9, 60, 80))
    assert_same_law(array(ours), theirs)


@pytest.mark.parametrize("shape", [(3, 4, 8), (3, 3, 4, 8), (3, 3, 3, 4, 4)])
def test_delta_orthogonal_is_zero_where_jaxs_is_and_orthonormal_at_the_centre(shape):
    for kernel in (
        in_jax(lambda j: j.delta_orthogonal(), shape),
        array(initx.DeltaOrthogonal(seed=9)(shape)),
    ):
        centre = kernel[(1,) * (len(shape) - 2)]
        np.testing.assert_allclose(centre @ centre.T, np.eye(4), atol=1e-5)
        assert math.isclose((kernel**2).sum(), (centre**2).sum(), rel_tol=1e-9)


# What Keras' own tests ask of its initializers, asked of ours.


@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (3, 5, 4), (3, 3, 5, 4), (2, 2, 2, 3, 4)])
@pytest.mark.parametrize(
    "cls", [initx.RandomScaled, initx.GlorotScaled, initx.HeScaled, initx.LecunScaled, initx.ConstantFill]
)
def test_any_rank_gives_a_tensor_of_the_shape_and_of_its_fans(cls, shape):
    values = array(cls()(shape))
    assert values.shape == shape
    assert np.isfinite(values).all()


@pytest.mark.parametrize("cls", [initx.RandomScaled, initx.OrthogonalScaled, initx.SparseNormal])
def test_two_instances_of_one_int_seed_agree_and_of_two_generators_do_not(cls):
    np.testing.assert_array_equal(array(cls(seed=1337)((9, 8))), array(cls(seed=1337)((9, 8))))
    generator = keras.random.SeedGenerator(1337)
    first, second = cls(seed=generator), cls(seed=generator)
    assert abs(array(first((9, 8))) - array(second((9, 8)))).max() > 0


@pytest.mark.parametrize("seed", ["seven", 1.5, [1], object()])
@pytest.mark.parametrize("cls", [initx.HeScaled, initx.OrthogonalScaled, initx.ChronoBias, initx.LRURing])
def test_seeds_that_are_none_are_refused(cls, seed):
    with pytest.raises(ValueError, match="`seed` "):
        cls(seed=seed)


def test_set_random_seed_makes_unseeded_draws_repeat():
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(11)
        initializer = initx.HeScaled()
        draws.append([array(initializer((8, 9))), array(initializer((8, 9)))])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert abs(draws[0][0] - draws[0][1]).max() > 0
