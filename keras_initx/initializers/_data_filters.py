"""Laws that make filters: kernels whose units are directions of the layer's inputs."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_count, check_positive
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed
from keras_initx.initializers._directions import cluster, extend, find_principal, fix_signs, to_unit
from keras_initx.initializers._law import Law, Site
from keras_initx.initializers._orthogonal import draw_orthogonal


class DataFilters(Law, AxisAware):
    """Base of the laws that build a kernel from the inputs of its layer.

    Such a law draws an orthonormal kernel, as every initializer draws one, and has a method `filters`.
    `keras_initx.calibrate` calls `filters` with the inputs that reach the layer on the data. Derive a law of
    your own from this class and register it with Keras.

    >>> class Examples(DataFilters):
    ...     def filters(self, inputs, units):
    ...         return inputs[:units].T
    >>> Examples().filters(np.eye(5), units=2).shape
    (5, 2)

    Args:
        gain: Positive factor of the kernel.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.
    """

    scope = "unit"
    draws_from_inputs = True

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws an orthonormal kernel times gain, which stays until `calibrate` runs.

        Args:
            shape: Shape of the kernel, at least two axes.
            dtype: A float dtype; None for Keras' floatx.

        Returns:
            A kernel of this shape and dtype.
        """
        return draw_orthogonal(self, shape, dtype)

    def filters(self, inputs: np.ndarray, units: int) -> np.ndarray:
        """Returns the kernel as a matrix, a column for each unit.

        Args:
            inputs: The values that the kernel multiplies, float64 of shape (rows, fan_in): one row for each
                position of each example. A row of a convolution is a patch in the order of the kernel's axes.
            units: Number of columns to return.

        Returns:
            float64 of shape (fan_in, units).
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `filters(self, inputs, units)`, which returns a matrix."
        )

    def refuses(self, site: Site) -> str:
        """Returns why a layer cannot take filters: rows of its input do not meet its whole kernel."""
        whole = site.role == "dense" or (site.role == "conv" and site.layer.groups == 1)
        # Code outside of Keras may multiply the kernel with anything.
        return (
            "" if whole and not site.checked else "filters are for dense layers and convolutions of one group"
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class PCAFilters(DataFilters):
    """The leading principal directions of a layer's inputs.

    Law: the columns are the unit vectors along which the centred inputs vary most, times gain. They are
    uncorrelated, and their variance falls from column to column. No other `units` linear features keep more
    of the inputs' variance. Each column has norm gain. An output has the standard deviation and the mean of
    the inputs along its direction; a kernel cannot remove the mean. For outputs of mean 0 and std 1 call
    `calibrate` with `"initx>WithinLayer"` after this law.

    Choose it for a first layer, or for a layer with few units, if there is little training data. Do not
    choose it where all units should matter alike: the last units see little more than noise.

    The inputs may vary in fewer directions than there are units. The units beyond are then random: first
    orthonormal vectors in the rest of the space, whose output is constant on this data but not on other data;
    beyond fan_in, unit vectors drawn uniformly. If two variances are equal, any two orthogonal directions of
    their plane are principal directions.

    >>> inputs = np.random.default_rng(0).normal(size=(500, 6)) * [1, 9, 2, 8, 3, 7]
    >>> filters = PCAFilters(seed=1).filters(inputs, units=3)
    >>> bool(np.allclose(filters.T @ filters, np.eye(3)))
    True
    >>> [round(std) for std in (inputs @ filters).std(axis=0)]
    [9, 8, 7]

    Args:
        gain: Positive norm of each column.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; in `filters`, if the inputs are not a matrix of finite numbers;
            on a call, if the shape has fewer than two axes or `dtype` is not a float.

    Reference:
        Kraehenbuehl, Doersch, Donahue and Darrell, 2016, "Data-dependent initializations of convolutional
        neural networks" (https://arxiv.org/abs/1511.06856), for principal components as filters, in the form
        of the authors' code. The paper's text was not checked. Deviations: the code divides each direction by
        its std, and draws all units Gaussian where there are fewer rows than units. Chosen here: the unit
        norm, the random columns, and the sign, which makes the first of the largest entries positive.
    """

    def filters(self, inputs: np.ndarray, units: int) -> np.ndarray:
        """Returns the leading directions as columns, float64 of shape (fan_in, units).

        Args:
            inputs: The values that the kernel multiplies, of shape (rows, fan_in).
            units: Number of columns to return.
        """
        inputs, units = _check_inputs(inputs, units)
        _, directions = find_principal(inputs - inputs.mean(axis=0))
        columns = fix_signs(directions[:, :units])
        if columns.shape[1] < units:
            generator = _generator(self.seed, (len(columns), units), "beyond")
            columns = extend(columns, units, generator)
        return self.gain * columns


@keras.saving.register_keras_serializable(package=PACKAGE)
class KMeansFilters(DataFilters):
    """Centroids of a spherical k-means on the whitened inputs of a layer.

    Law: the inputs x are centred and whitened: z = V (v + epsilon)^(-1/2) V^T x, where V and v are the
    directions and variances of the principal components, and epsilon counts in units of the mean variance.
    Then unit vectors d are fitted so that each z is near to a multiple of one d; the factor may have either
    sign. Each round assigns z to the d of the largest |d z|. Each d then becomes the direction of d plus the
    sum of its z, each times d z. If the inputs are sparse sums of a few causes, the d are these causes.

    A column of the kernel is gain V (v + epsilon)^(-1/2) V^T d, so that the whitening is part of the kernel.
    Outputs have a std of at most gain, and close to gain where epsilon is small beside the variances. A
    kernel cannot remove the mean of the outputs.

    Choose it for a first layer on images or sounds, where there are more units than principal directions or
    where features should be local. It needs many more rows than units.

    The first centroids are rows. The probability of a row is proportional to the part of its square that the
    earlier centroids do not explain. A centroid without any row is drawn again in the same way. Where nothing
    is left to fit, units get random directions. Directions in which the inputs do not vary get no weight.

    >>> causes = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    >>> inputs = np.random.default_rng(1).laplace(size=(4000, 1)) * causes[np.arange(4000) % 6]
    >>> filters = KMeansFilters(epsilon=1e-6, seed=1).filters(inputs, units=6)
    >>> cosines = np.abs(causes @ filters / np.linalg.norm(filters, axis=0))
    >>> bool(np.all(cosines.max(axis=1) > 0.99))
    True

    Args:
        iterations: Rounds of assignment and update, at least 1.
        epsilon: Positive addition to each variance before the inverse, in units of the mean variance. It
            keeps directions of little variance small, which are mostly noise.
        gain: Positive factor of the columns.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; in `filters`, if the inputs are not a matrix of
            finite numbers, do not vary, or have fewer rows than there are units; on a call, if the shape has
            fewer than two axes or `dtype` is not a float.

    Reference:
        Coates, Lee and Ng, 2011, "An analysis of single-layer networks in unsupervised feature learning"
        (https://proceedings.mlr.press/v15/coates11a.html); Coates and Ng, 2012, "Learning feature
        representations with k-means", for the update and about 10 iterations; Arthur and Vassilvitskii, 2007,
        "k-means++", for the first centroids. The texts were not checked. Public code that follows them was
        checked: it starts from Gaussian centroids and takes the largest d z instead of |d z|. Deviation: the
        papers first normalize the brightness and contrast of each patch; this is not linear, so a kernel
        cannot do it. Chosen here: the first centroids, the default and unit of epsilon, and the treatment of
        centroids without rows.
    """

    def __init__(
        self,
        iterations: int = 10,
        epsilon: float = 0.1,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.iterations = check_count("iterations", iterations)
        self.epsilon = check_positive("epsilon", epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"iterations": self.iterations, "epsilon": self.epsilon}

    def filters(self, inputs: np.ndarray, units: int) -> np.ndarray:
        """Returns the centroids as columns, float64 of shape (fan_in, units).

        Args:
            inputs: The values that the kernel multiplies, of shape (rows, fan_in).
            units: Number of columns to return.
        """
        inputs, units = _check_inputs(inputs, units)
        rows, fan_in = inputs.shape
        received = f"Received: units={units}, inputs (shape={inputs.shape})"
        if units > rows:
            raise ValueError(
                f"`units` must be at most the rows of `inputs` for `KMeansFilters`. {received}. Give "
                "`calibrate` more samples, or take `initx>PCAFilters`, which needs no row for each unit."
            )
        centred = inputs - inputs.mean(axis=0)
        stds, directions = find_principal(centred)
        if not len(stds):
            raise ValueError(
                f"`inputs` must vary from row to row. {received}, all rows equal. Give `calibrate` other "
                "data, or more samples."
            )
        variances = stds**2
        whitening = directions / np.sqrt(variances + self.epsilon * variances.sum() / fan_in)
        generator = _generator(self.seed, (fan_in, units), "centroids")
        # LAPACK may give a direction either sign. A draw in the space of the inputs does not depend on it.
        start = to_unit(directions.T @ generator.standard_normal((fan_in, units)))
        return self.gain * (whitening @ cluster(centred @ whitening, start, self.iterations, generator))


def _check_inputs(inputs: np.ndarray, units: int) -> tuple[np.ndarray, int]:
    inputs, units = np.asarray(inputs, "float64"), check_count("units", units)
    finite = bool(np.isfinite(inputs).all())
    if inputs.ndim != 2 or 0 in inputs.shape or not finite:
        raise ValueError(
            "`inputs` must be a matrix (rows, fan_in) of finite numbers, with at least one of each. "
            f"Received: inputs (shape={inputs.shape}), finite={finite}. Flatten each patch to a row, and "
            "keep the data and the weights before this layer finite."
        )
    return inputs, units


def _generator(
    seed: int | keras.random.SeedGenerator | None, shape: tuple[int, int], label: str
) -> np.random.Generator:
    """Returns NumPy's generator for an initializer's seed, so that all backends draw the same."""
    drawn = call_seed(seed, shape, label)
    if isinstance(drawn, int):
        return np.random.default_rng(drawn)
    return np.random.default_rng(np.asarray(ops.convert_to_numpy(drawn.next())).astype("uint32"))
