"""Strategies: initializers for a whole model, which know each layer's fans, neighbors and place in it."""

from keras_initx.strategies._adapters import LoRA, OrthogonalLoRA
from keras_initx.strategies._autoinit import AutoInit
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._from_model import FromModel
from keras_initx.strategies._initialize import initialize, resolve
from keras_initx.strategies._low_rank import LoftQ, OLoRA, PiSSA
from keras_initx.strategies._mimetic import Mimetic
from keras_initx.strategies._names import STRATEGIES
from keras_initx.strategies._plan import Draw, Plan, Strategy, WholePlan, describe
from keras_initx.strategies._report import InitReport, InitRow
from keras_initx.strategies._residual import Fixup, ReZero, SkipInit, ZeroResidual
from keras_initx.strategies._spectral import Spectral
from keras_initx.strategies._transformer import DeepNorm, GPT2Residual, TFixup
from keras_initx.strategies._width import MuP, ZeroHead

__all__ = [
    "STRATEGIES",
    "AutoInit",
    "ByRole",
    "DeepNorm",
    "Draw",
    "Fixup",
    "FromModel",
    "GPT2Residual",
    "InitReport",
    "InitRow",
    "LoRA",
    "LoftQ",
    "Mimetic",
    "MuP",
    "OLoRA",
    "OrthogonalLoRA",
    "PiSSA",
    "Plan",
    "ReZero",
    "SkipInit",
    "Spectral",
    "Strategy",
    "TFixup",
    "WholePlan",
    "ZeroHead",
    "ZeroResidual",
    "describe",
    "initialize",
    "resolve",
]
