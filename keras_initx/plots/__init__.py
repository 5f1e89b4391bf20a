"""Pictures of what `diagnose` found, and of weights: matplotlib figures, which any backend can save.

Figures are made without pyplot, so that nothing of its state changes: `figure.savefig("signal.png")`.
"""

from keras_initx.plots._histograms import plot_histograms
from keras_initx.plots._over_steps import plot_over_steps, to_png
from keras_initx.plots._signal import plot_jacobian, plot_signal

__all__ = ["plot_histograms", "plot_jacobian", "plot_over_steps", "plot_signal", "to_png"]
