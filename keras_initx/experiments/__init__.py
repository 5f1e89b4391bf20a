"""Which initialization is best: the same trials over seeds and learning rates, by any runner."""

from keras_initx.experiments._choice import choice
from keras_initx.experiments._compare import compare
from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._curves import Curve
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._ray import Ray
from keras_initx.experiments._rows import ComparisonRow, Difference
from keras_initx.experiments._run_trial import run_trial
from keras_initx.experiments._sequential import Runner, Sequential
from keras_initx.experiments._trial import Trial, TrialResult
from keras_initx.experiments._vectorized import Vectorized

__all__ = [
    "Comparison",
    "ComparisonRow",
    "Curve",
    "Difference",
    "Problem",
    "Ray",
    "Runner",
    "Sequential",
    "Trial",
    "TrialResult",
    "Vectorized",
    "choice",
    "compare",
    "run_trial",
]
