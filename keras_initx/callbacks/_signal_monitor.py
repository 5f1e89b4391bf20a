"""The report of `diagnose` in TensorBoard, from before the first step on, and limits to it."""

import inspect
import os
import posixpath
import warnings
from collections.abc import Mapping
from typing import Any

from keras_initx.callbacks._processes import largest
from keras_initx.callbacks._stepped import Stepped
from keras_initx.checks import check_choice
from keras_initx.diagnostics import SignalError, SignalReport, diagnose
from keras_initx.extras import is_installed, require
from keras_initx.summaries import EventWriter

__all__ = ["SignalMonitor"]

_ROWS = (
    *("preactivation_std", "activation_std", "forward_gain", "backward_gain", "gradient_std"),
    *("update_ratio", "dead", "saturated", "nonfinite", "correlation"),
)
_MODEL = ("forward_gain", "backward_gain", "chi_1", "loss")
_MAPS = {
    "preactivation_std": "standard deviation of pre-activations",
    "gradient_std": "standard deviation of gradients",
}
_BROKEN = ("stop", "warn")


class SignalMonitor(Stepped):
    """Writes what `keras_initx.diagnose` finds to TensorBoard: at step 0, before training, and then on.

    Scalars are `<quantity>/<number>_<path>`, one for each kernel, and `model/<quantity>`. The Custom Scalars
    page draws all kernels of one quantity in one chart. Two images, `signal_by_depth/...`, show standard
    deviations of pre-activations and gradients over depth and steps. Steps are those of `WeightHistograms`.
    The files go into the folder `signal` within `log_dir`, so that each callback has a run of its own.

    >>> import keras, numpy as np, tempfile
    >>> x, y = np.ones((8, 3)) * np.arange(8)[:, None], np.zeros((8, 1))
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monitor = SignalMonitor(folder, (x, y), images=False)
    ...     history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
    >>> sorted(monitor.reports)
    [0, 1, 2]

    Args:
        log_dir: As in `WeightHistograms`.
        data: As in `keras_initx.diagnose`: `fit` does not show its data to callbacks.
        targets: As in `keras_initx.diagnose`.
        loss: As in `keras_initx.diagnose`.
        every: `"epoch"`, or a number of batches.
        limits: What `SignalReport.check` takes, such as `{"max_gain": 3.0}`, by which any verdict breaks
            unless `allow` or `max_verdicts` says otherwise; None for no limits.
        on_break: What happens when a limit breaks: `"warn"`, or `"stop"`, which ends the training, too.
        images: Whether to draw the images, for which matplotlib is needed; None for where it is installed.
        options: What else `keras_initx.diagnose` takes, such as `samples`; `seed` is 0 and `try_cures` False
            unless given.

    Attributes:
        reports: The reports by step.

    Raises:
        ValueError: If an argument has no meaning, or matplotlib is missing; when training starts, if the data
            does not fit the model.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        data: Any,
        targets: Any = None,
        loss: Any = None,
        *,
        every: str | int = "epoch",
        limits: Mapping[str, Any] | None = None,
        on_break: str = "warn",
        images: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, every)
        self.log_dir = posixpath.join(self.log_dir, "signal")
        check_choice("on_break", on_break, _BROKEN)
        if images:
            require("matplotlib", extra="plots", purpose="`images=True`")
        _check_limits(limits)
        self._limits, self._on_break = limits, on_break
        self._images = is_installed("matplotlib") if images is None else images
        given = {"data": data, "targets": targets, "loss": loss, "seed": 0, "try_cures": False}
        self._arguments = given | options
        self.reports: dict[int, SignalReport] = {}

    def _prepare(self, again: bool) -> None:
        del again
        if not self._step:
            self.reports = {}

    def _write(self, writer: EventWriter) -> None:
        report = diagnose(self.model, **self._arguments)
        if not self.reports:
            writer.layout({"signal": {name: [f"^{name}/.*"] for name in _ROWS}})
        self.reports[self._step] = report
        digits = len(str(max(len(report.rows) - 1, 0)))
        for number, row in enumerate(report.rows):
            for name in _ROWS:
                if (value := getattr(row, name)) is not None:
                    writer.scalar(f"{name}/{number:0{digits}d}_{row.path}", value, self._step)
        for name in _MODEL:
            if (value := getattr(report, name)) is not None:
                writer.scalar(f"model/{name}", value, self._step)
        writer.scalar("model/verdicts", len(report.verdicts), self._step)
        if self._images:
            self._draw(writer)
        self._check(report)

    def _draw(self, writer: EventWriter) -> None:
        from keras_initx import plots

        for name, label in _MAPS.items():
            picture = plots.plot_over_steps(self.reports, name, label)
            writer.image(f"signal_by_depth/{name}", plots.to_png(picture), self._step)

    def _check(self, report: SignalReport) -> None:
        if self._limits is None:
            return
        broken = False
        try:
            report.check(**self._limits)
        except SignalError as error:
            warnings.warn(f"Step {self._step}: {error}", stacklevel=2)
            broken = True
        # A process that stopped alone would leave the others waiting for it.
        if self._on_break == "stop" and largest(broken):
            self.model.stop_training = True


def _check_limits(limits: Any) -> None:
    """Has a report of nothing refuse what is no limit."""
    if limits is None:
        return
    known = sorted(set(inspect.signature(SignalReport.check).parameters) - {"self"})
    if not isinstance(limits, Mapping) or not set(limits) <= set(known):
        raise ValueError(f"`limits` must be a dict with keys of {known}. Received: limits={limits!r}.")
    SignalReport((), (), 0.0, "", 0, None, None, None, (), None, 0.0).check(**limits)
