"""The table of strategies by name, which `initialize` and the command line read."""

from keras_initx.strategies._adapters import LoRA, OrthogonalLoRA
from keras_initx.strategies._autoinit import AutoInit
from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._from_model import FromModel
from keras_initx.strategies._low_rank import LoftQ, OLoRA, PiSSA
from keras_initx.strategies._mimetic import Mimetic
from keras_initx.strategies._plan import Strategy
from keras_initx.strategies._residual import Fixup, ReZero, SkipInit, ZeroResidual
from keras_initx.strategies._spectral import Spectral
from keras_initx.strategies._transformer import DeepNorm, GPT2Residual, TFixup
from keras_initx.strategies._width import MuP, ZeroHead

__all__ = ["STRATEGIES"]

STRATEGIES: dict[str, type[Strategy]] = {
    "AutoInit": AutoInit,
    "by_role": ByRole,
    "DeepNorm": DeepNorm,
    "Fixup": Fixup,
    "FromModel": FromModel,
    "GPT2Residual": GPT2Residual,
    "LoftQ": LoftQ,
    "LoRA": LoRA,
    "Mimetic": Mimetic,
    "MuP": MuP,
    "OLoRA": OLoRA,
    "OrthogonalLoRA": OrthogonalLoRA,
    "PiSSA": PiSSA,
    "ReZero": ReZero,
    "SkipInit": SkipInit,
    "Spectral": Spectral,
    "TFixup": TFixup,
    "ZeroHead": ZeroHead,
    "ZeroResidual": ZeroResidual,
}
