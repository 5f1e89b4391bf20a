"""The rows of the report of `coordinates`."""

import dataclasses

__all__ = ["OUTPUTS", "CoordinateRow", "Divergence", "Growth", "Slope"]

OUTPUTS = "outputs"  # path of the model's outputs, where no kernel makes them


@dataclasses.dataclass(frozen=True)
class CoordinateRow:
    """The coordinates of one layer after one step.

    Attributes:
        width: The width.
        seed: The seed.
        path: Path of the layer in the smallest model; with `/logits` for the logits of attention; `outputs`
            for the outputs of a model of which no kernel makes them.
        role: Role of the kernel, as in `keras_initx.walk`; `logits` or `outputs` for these.
        step: Number of steps that were taken.
        value: Mean absolute value of the pre-activation.
        change: Mean absolute difference between the pre-activation and the same at step 0.
    """

    width: int
    seed: int
    path: str
    role: str
    step: int
    value: float
    change: float


@dataclasses.dataclass(frozen=True)
class Slope:
    """How the coordinates of one layer grow with the width after one step: as width^slope.

    A slope is None if the size is 0 or not finite at some width.

    Attributes:
        path: Path of the layer, as in `CoordinateRow`.
        role: Role of the layer.
        step: Number of steps that were taken.
        value: Slope of the value: of its logarithm over the logarithm of the width. Mean over the seeds.
        value_error: Its standard error over the seeds; None with one seed.
        value_ratio: The largest value over the smallest, of the means over the seeds at each width.
        change: Slope of the change since the start; None at step 0.
        change_error: Its standard error.
        change_ratio: The largest change over the smallest.
    """

    path: str
    role: str
    step: int
    value: float | None
    value_error: float | None
    value_ratio: float | None
    change: float | None
    change_error: float | None
    change_ratio: float | None


@dataclasses.dataclass(frozen=True)
class Growth:
    """How a kernel grows with the width, as powers of the width, and how it should.

    The size of a kernel is its spectral norm. The law is condition 1 of Yang, Simon and Bernstein, 2023
    (https://arxiv.org/abs/2310.17813): weights and updates have norms of the size sqrt(fan_out / fan_in).

    Attributes:
        path: Path of the kernel, as in `CoordinateRow`.
        role: Its role; `logits` for attention.
        kind: `hidden` if inputs and outputs grow, `output` or `input` if only the one grows, else `fixed`;
            `logits` for attention whose heads grow, `tied` for outputs by a tied embedding.
        law: The power that muP has; None if it is not known, as for attention.
        weights: The power of the norm at the start; None if it is not known.
        updates: The power of the norm of the change in all steps together.
        rate: The power of the factor of its learning rate; None if no report tells.
        head_width: The width of a head in the smallest model, for `logits`.
    """

    path: str
    role: str
    kind: str
    law: float | None = None
    weights: float | None = None
    updates: float | None = None
    rate: float | None = None
    head_width: int | None = None


@dataclasses.dataclass(frozen=True)
class Divergence:
    """A training in which the loss or a coordinate was not finite.

    Attributes:
        width: The width.
        seed: The seed.
        step: The first step after which a number was not finite.
    """

    width: int
    seed: int
    step: int
