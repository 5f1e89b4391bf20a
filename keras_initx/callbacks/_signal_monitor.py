"""Writes the report of `diagnose` to TensorBoard during training, and checks limits on it."""

import inspect
import os
import posixpath
import warnings
from collections.abc import Mapping
from typing import Any

from keras_initx._types import Arrays, Data, Loss, Patterns
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
    """Writes the findings of `keras_initx.diagnose` to TensorBoard, from before the first training step on.

    Each kernel has one scalar per quantity, `<quantity>/<number>_<path>`; the whole model has
    `model/<quantity>`. The Custom Scalars page draws all kernels of one quantity in one chart. Two images,
    `signal_by_depth/...`, show the standard deviations of pre-activations and of gradients over depth and
    steps. Step 0 is the initialization, step e the state after e epochs; with `every=n`, step k is the state
    after k batches. The files go into the folder `signal` within `log_dir`, so that TensorBoard shows this
    callback as a run of its own.

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
        log_dir: A local folder, which is made if it is missing, or a URL such as `gs://bucket/runs`.
        data: Data to examine the model on; Keras does not show the data of `fit` to callbacks. An array; a
            dict, tuple or list of arrays; a `tf.data.Dataset` or another iterable of batches; or None to draw
            unit Gaussian inputs. A pair (x, y) brings its targets.
        targets: Labels, as `fit` takes them. None for the labels in `data`.
        loss: Loss of targets and outputs. None for the loss that the model was compiled with. Without
            targets, gradients are those of a random linear function of the outputs.
        every: `"epoch"`, or a number of batches: how often to write.
        limits: Arguments of `SignalReport.check`, such as `{"max_gain": 3.0}`. If limits are given, every
            verdict counts as broken, too, unless `allow` or `max_verdicts` in the dict permits the verdict.
            None for no limits.
        on_break: Reaction to a broken limit: `"warn"`, or `"stop"`, which warns and ends the training.
        images: Whether to draw the two images, which needs matplotlib. None draws them where matplotlib is
            installed.
        include: Patterns of paths, or roles, of the kernels to report on. None means all.
        exclude: Patterns or roles of kernels to leave out of the report.
        samples: Number of rows of data to use.
        training: Whether the model runs as in training: with dropout, and with the statistics of the batch in
            normalizations.
        jacobian: Whether to compute the singular values of the Jacobian of the outputs with respect to the
            inputs, too, at the first row and in inference mode.
        try_cures: Whether to try the cure of each verdict, which takes several times as long.
        seed: Seed of drawn inputs, of dropout and of the random linear function, the same at each step so
            that steps can be compared. None takes an unseeded one.

    Attributes:
        reports: The reports by step.

    Raises:
        ValueError: If an argument is out of its range, or `images` is True and matplotlib is missing. When
            training starts, if the data does not fit the model.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        data: Data | None,
        targets: Arrays | None = None,
        loss: Loss | None = None,
        *,
        every: str | int = "epoch",
        limits: Mapping[str, Any] | None = None,
        on_break: str = "warn",
        images: bool | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        samples: int = 64,
        training: bool = True,
        jacobian: bool = False,
        try_cures: bool = False,
        seed: int | None = 0,
    ) -> None:
        super().__init__(log_dir, every)
        self.log_dir = posixpath.join(self.log_dir, "signal")
        check_choice("on_break", on_break, _BROKEN)
        if images:
            require("matplotlib", extra="plots", purpose="`images=True`")
        _check_limits(limits)
        self._limits, self._on_break = limits, on_break
        self._images = is_installed("matplotlib") if images is None else images
        self._arguments: dict[str, Any] = {
            "data": data,
            "targets": targets,
            "loss": loss,
            "include": include,
            "exclude": exclude,
            "samples": samples,
            "training": training,
            "jacobian": jacobian,
            "try_cures": try_cures,
            "seed": seed,
        }
        self.reports: dict[int, SignalReport] = {}

    def _prepare(self, again: bool) -> None:
        del again
        # A model that starts at step 0 has a history of its own; one that goes on keeps its reports.
        if not self._step:
            self.reports = {}

    def _write(self, writer: EventWriter) -> None:
        report = diagnose(self.model, **self._arguments)
        if not self.reports:
            writer.layout({"signal": {name: [f"^{name}/.*"] for name in _ROWS}})
        self.reports[self._step] = report
        # With leading zeros, TensorBoard's order by name is the order by depth.
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
        from keras_initx import plots  # imports matplotlib, which is optional

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
        # All processes must stop alike: the others would wait forever for a process that stopped alone.
        if self._on_break == "stop" and largest(broken):
            self.model.stop_training = True


def _check_limits(limits: object) -> None:
    """Raises ValueError unless `limits` are arguments that `SignalReport.check` takes."""
    if limits is None:
        return
    known = sorted(set(inspect.signature(SignalReport.check).parameters) - {"self"})
    if not isinstance(limits, Mapping) or not set(limits) <= set(known):
        raise ValueError(f"`limits` must be a dict with keys of {known}. Received: limits={limits!r}.")
    # An empty report breaks no limit, but `check` still refuses values out of range: at once, not at step 0.
    SignalReport((), (), 0.0, "", 0, None, None, None, (), None, 0.0).check(**limits)
