"""Data-dependent initialization of a whole model, in one forward pass."""

import dataclasses
import functools
import math
import numbers
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

import keras_initx.probe as probe
from keras_initx.data import knows_inputs, refusal, take_batch
from keras_initx.initializers import LSUV, get
from keras_initx.state import check_built, stream_seed, transaction
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["CalibrationReport", "CalibrationRow", "calibrate"]

# Rounding gives constant outputs a spread of about one unit in the last place; below this many of them the
# spread says nothing about the data.
_ZERO_SPREAD = 8 * 2.0**-23
_FROZEN = "frozen: left as it is"


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """What became of one kernel.

    Attributes:
        path: Path of the kernel's layer within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        std_before: Standard deviation of the pre-activation on the batch, all earlier layers calibrated;
            None when it was not measured.
        scale: What kernel and bias were multiplied by.
        std_after: Standard deviation of the rescaled pre-activation, over all calls of the layer.
        iterations: Rescalings, 0 or 1.
        note: Why the kernel was left alone or may be off target; empty when all is well.
    """

    path: str
    role: str
    std_before: float | None = None
    scale: float = 1.0
    std_after: float | None = None
    iterations: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """What `calibrate` did.

    Attributes:
        rows: One row per kernel that the law was to calibrate.
        samples: Rows of data in the batch.
        forward_passes: Forward passes spent.
        seconds: Seconds spent.
    """

    rows: tuple[CalibrationRow, ...]
    samples: int
    forward_passes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dicts, tuples and numbers."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Formats the report as an aligned table."""
        cells = [("path", "role", "std before", "scale", "std after", "note")]
        for row in self.rows:
            numbers = (row.std_before, row.scale, row.std_after)
            before, scale, after = ("-" if n is None else f"{n:.4g}" for n in numbers)
            cells.append((row.path, row.role, before, scale, after, row.note))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells
        ]
        lines.append(
            f"{sum(row.iterations for row in self.rows)} of {len(self.rows)} kernels calibrated on "
            f"{self.samples} rows, {self.forward_passes} forward pass, {self.seconds:.2f} s"
        )
        return "\n".join(line.rstrip() for line in lines)


@dataclasses.dataclass
class _Measurement:
    """Moments of one site's pre-activation over its calls so far, before rescaling."""

    scale: float = 1.0
    std_before: float = 0.0
    constant: bool = True
    calls: int = 0
    mean: float = 0.0
    square: float = 0.0

    def add(self, mean: float, variance: float) -> None:
        self.mean = (self.mean * self.calls + mean) / (self.calls + 1)
        self.square = (self.square * self.calls + variance + mean * mean) / (self.calls + 1)
        self.calls += 1

    @property
    def std_after(self) -> float:
        return self.scale * math.sqrt(max(self.square - self.mean**2, 0.0))


def calibrate(
    model: Any,
    data: Any,
    initializer: Any = None,
    *,
    samples: int = 256,
    redraw: bool = False,
    seed: int | None = None,
) -> CalibrationReport:
    """Rescales every kernel and bias of a model so that its pre-activations have the law's std on data.

    The model runs once, in inference mode. As each layer's pre-activation appears it is rescaled and flows on
    rescaled, so that every later layer is measured on calibrated inputs; when the pass is over, kernels and
    biases are multiplied by the same factors. Dense, convolution (1-D to 3-D, grouped, depthwise, transposed)
    and einsum layers are covered, attention's query, key, value and output each by itself. A layer that runs
    several times in one pass (shared, or in TimeDistributed) is scaled by the first call that varies.

    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, activation="relu")])
    >>> report = calibrate(model, None, "initx>LSUV", seed=1)
    >>> print(f"{report.rows[0].std_after:.3f}")
    1.000

    Args:
        model: A built Keras model, of any form.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset` or other iterable of batches; or
            None for unit-Gaussian input. A tuple (x, y) gives its x.
        initializer: The law for all layers, for example `"initx>LSUV"`. When None, each layer whose own
            `kernel_initializer` is a data-dependent law gets that law; if no layer has one, all get LSUV.
        samples: Rows of data to measure on, from the start of the data: shuffle sorted data first.
        redraw: Whether to draw the law's base (orthonormal for LSUV) before measuring. By default the weights
            that are there are rescaled. Biases are kept and rescaled in both cases.
        seed: Seed of the redraw, one independent stream per path of a layer, and of the Gaussian input. Name
            your layers: Keras numbers unnamed ones anew for each model of a process.

    Returns:
        A report with one row per kernel, in the order in which the layers ran. Layers that could not be
        calibrated are rows with a note, and one warning.

    Raises:
        ValueError: If the model is not built, the data does not fit it, or a pre-activation is not finite.
            The weights are then what they were, as they are after Ctrl-C or any error inside the model.

    Reference:
        Mishkin and Matas, 2016, "All you need is a good init", algorithm 1
        (https://arxiv.org/abs/1511.06422). Deviation: linear layers are scaled once, exactly, instead of
        iterated to a tolerance of 0.1.
    """
    started = time.perf_counter()
    check_built(model)
    if seed is not None and (not isinstance(seed, numbers.Integral) or seed < 0):
        raise ValueError(f"`seed` must be None or an int of at least 0. Received: seed={seed!r}.")
    laws = _laws(model, None if initializer is None else _law(initializer))
    batch = take_batch(model, data, samples, seed)
    notes = {s: s.obstacle or ("" if s.kernel.trainable else _FROZEN) for s in laws}
    measured: dict[KernelSite, _Measurement] = {}
    with transaction() as update:
        enter = _redraw(laws, seed, update) if redraw else None
        observe = _observer(laws, measured)
        sites = [site for site, note in notes.items() if not note]
        try:
            probe.run(model, batch, sites, observe, enter)
        except (TypeError, ValueError) as error:
            # Where the inputs are not known beforehand, data that does not fit shows in the first layer.
            if measured or knows_inputs(model) or probe.TRACED in str(error):
                raise
            raise refusal(model, batch, error) from error
        for site, measurement in measured.items():
            update(site.kernel, functools.partial(_times, measurement.scale))
            # Most biases are zero and stay it; half of the updates are saved by looking.
            if site.bias is not None and ops.convert_to_numpy(ops.copy(site.bias.value)).any():
                update(site.bias, functools.partial(_times, measurement.scale))
    in_call_order = dict.fromkeys([*measured, *notes])
    rows = tuple(_row(site, notes[site], measured.get(site)) for site in in_call_order)
    _warn(rows, notes)
    return CalibrationReport(rows, len(keras.tree.flatten(batch)[0]), 1, time.perf_counter() - started)


def _law(initializer: Any) -> LSUV:
    law = get(initializer)
    if not isinstance(law, LSUV):
        raise ValueError(
            "`initializer` must be a data-dependent law, one of ['initx>LSUV']. "
            f"Received: {initializer!r}, which needs no data."
        )
    return law


def _laws(model: Any, law: LSUV | None) -> dict[KernelSite, LSUV]:
    """The law of each site that is to be calibrated."""
    sites = [site for site in iter_kernels(model, trace=False) if len(site.kernel.shape) > 1]  # no scales
    if law is None:
        own = {site: site.initializer for site in sites if isinstance(site.initializer, LSUV)}
        if own:
            return own
        law = LSUV()
    return dict.fromkeys(sites, law)


def _redraw(
    laws: dict[KernelSite, LSUV], seed: int | None, update: Callable[[Any, Callable], None]
) -> Callable[[KernelSite], None]:
    """Returns what draws a site's base the first time that its layer runs."""
    drawn: set[int] = set()

    def enter(site: KernelSite) -> None:
        if id(site.kernel) in drawn:
            return
        drawn.add(id(site.kernel))
        law = laws[site]
        own_seed = law.seed if seed is None else seed
        config = law.get_config()
        config["seed"] = (
            stream_seed(int(own_seed), site.path) if isinstance(own_seed, numbers.Integral) else own_seed
        )
        if site.axes:
            config["input_axes"], config["output_axes"] = site.axes
        base = law.from_config(config)
        update(site.kernel, lambda value: base(value.shape, site.kernel.dtype))

    return enter


def _observer(
    laws: dict[KernelSite, LSUV], measured: dict[KernelSite, _Measurement]
) -> Callable[[KernelSite, Any], Any]:
    """Returns what measures a pre-activation, fixes the site's scale at its first call, and rescales."""

    def observe(site: KernelSite, output: Any) -> Any:
        mean, variance = probe.mean_and_variance(output)
        if not math.isfinite(variance):
            raise ValueError(
                f"`data` must keep every pre-activation finite. Received: mean={mean}, variance={variance} "
                f"at `{site.path}` (kernel shape {tuple(site.kernel.shape)}). Smaller weights, or float32 in "
                "place of half precision, keep it finite; the weights are unchanged."
            )
        measurement = measured.setdefault(site, _Measurement())
        std = math.sqrt(variance)
        if measurement.constant and std > _ZERO_SPREAD * math.hypot(mean, std):
            measurement.scale, measurement.std_before = laws[site].rescale(mean, std)[0], std
            measurement.constant = False
        measurement.add(mean, variance)
        return _times(measured[site].scale, output)

    return observe


def _times(scale: float, tensor: Any) -> Any:
    """Multiplies in at least float32: a scale can lie outside the range of half precision."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype in ("bfloat16", "float16"):
        return ops.cast(ops.cast(tensor, "float32") * scale, dtype)
    return tensor * scale


def _row(site: KernelSite, note: str, measurement: _Measurement | None) -> CalibrationRow:
    if measurement is None:
        return CalibrationRow(site.path, site.role, note=note or "the data never reached it")
    if measurement.constant:
        note = "zero variance: its output is constant on this data"
    elif not math.isclose(measurement.std_after, measurement.scale * measurement.std_before, rel_tol=1e-3):
        note = f"ran {measurement.calls} times; scaled by the first call that varies"
    return CalibrationRow(
        path=site.path,
        role=site.role,
        std_before=measurement.std_before,
        scale=measurement.scale,
        std_after=measurement.std_after,
        iterations=0 if measurement.constant else 1,
        note=note,
    )


def _warn(rows: tuple[CalibrationRow, ...], notes: dict[KernelSite, str]) -> None:
    told = [f"`{row.path}`: {row.note}" for row in rows if row.note and row.note != _FROZEN]
    if told:
        warnings.warn(
            f"{len(told)} of {len(notes)} kernels are not calibrated to their target: {'; '.join(told)}.",
            stacklevel=3,
        )
