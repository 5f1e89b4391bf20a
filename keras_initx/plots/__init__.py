"""Pictures of the reports of `diagnose`, `compare` and `coordinates`, and of weights, as matplotlib figures.

Any backend can save the figures: `figure.savefig("signal.png")`. They are made without pyplot, so that the
state of pyplot does not change.
"""

from keras_initx.plots._coordinates import plot_coordinates
from keras_initx.plots._curves import plot_curves
from keras_initx.plots._finals import plot_finals
from keras_initx.plots._histograms import plot_histograms
from keras_initx.plots._over_steps import plot_over_steps, to_png
from keras_initx.plots._rates import plot_rates
from keras_initx.plots._signal import plot_jacobian, plot_signal

__all__ = [
    "plot_coordinates",
    "plot_curves",
    "plot_finals",
    "plot_histograms",
    "plot_jacobian",
    "plot_over_steps",
    "plot_rates",
    "plot_signal",
    "to_png",
]
