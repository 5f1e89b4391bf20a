"""Published weight initializers, each registered with Keras as `"initx>ClassName"`."""

import difflib
from typing import Any

import keras

from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._constant import ConstantFill
from keras_initx.initializers._convolutional import ConvOrthogonal, DeltaOrthogonal
from keras_initx.initializers._data_dependent import (
    LSUV,
    ActNormData,
    DataDependent,
    WeightNormData,
    WithinLayer,
)
from keras_initx.initializers._data_filters import DataFilters, KMeansFilters, PCAFilters
from keras_initx.initializers._grad_init import GradInit
from keras_initx.initializers._heads import LabelPrior, PriorBias
from keras_initx.initializers._identity import Dirac, IdentityScaled, ZerO
from keras_initx.initializers._orthogonal import OrthogonalScaled
from keras_initx.initializers._over_model import BetweenLayer, MetaInit, ModelLaw
from keras_initx.initializers._recipes import (
    GatewiseOrthogonal,
    GlorotDepthwise,
    GlorotGates,
    GlorotTransposed,
    HeDepthwise,
    HeTransposed,
    LecunDepthwise,
    LecunTransposed,
)
from keras_initx.initializers._recurrent import IRNN, ChronoBias, UniformGateBias
from keras_initx.initializers._signal import SIREN, EdgeOfChaos, Hyperfan
from keras_initx.initializers._sparse import IDInit, SparseNormal, TanhFixedPoint
from keras_initx.initializers._state_space import HiPPO, HiPPOInput, LRURing, S4DLin, S4DReal, TimeStepBias
from keras_initx.initializers._structured import ICNR, LooksLinear, Sinusoidal
from keras_initx.initializers._variance import GlorotScaled, HeScaled, LecunScaled, RandomScaled
from keras_initx.initializers._width import RandomWalk, SmallInit, SpectralScaled, WangInit

__all__ = [
    "FAMILIES",
    "ICNR",
    "IRNN",
    "LSUV",
    "SIREN",
    "ActNormData",
    "BetweenLayer",
    "ChronoBias",
    "ConstantFill",
    "ConvOrthogonal",
    "DataDependent",
    "DataFilters",
    "DeltaOrthogonal",
    "Dirac",
    "EdgeOfChaos",
    "GatewiseOrthogonal",
    "GlorotDepthwise",
    "GlorotGates",
    "GlorotScaled",
    "GlorotTransposed",
    "GradInit",
    "HeDepthwise",
    "HeScaled",
    "HeTransposed",
    "HiPPO",
    "HiPPOInput",
    "Hyperfan",
    "IDInit",
    "IdentityScaled",
    "KMeansFilters",
    "LRURing",
    "LabelPrior",
    "LecunDepthwise",
    "LecunScaled",
    "LecunTransposed",
    "LooksLinear",
    "MetaInit",
    "ModelLaw",
    "OrthogonalScaled",
    "PCAFilters",
    "PriorBias",
    "RandomScaled",
    "RandomWalk",
    "S4DLin",
    "S4DReal",
    "Sinusoidal",
    "SmallInit",
    "SparseNormal",
    "SpectralScaled",
    "TanhFixedPoint",
    "TimeStepBias",
    "UniformGateBias",
    "WangInit",
    "WeightNormData",
    "WithinLayer",
    "ZerO",
    "get",
    "names",
]

# Every class of the package, by family.
FAMILIES: dict[str, tuple[type[keras.initializers.Initializer], ...]] = {
    "variance": (
        RandomScaled,
        ConstantFill,
        GlorotScaled,
        HeScaled,
        LecunScaled,
        GlorotDepthwise,
        HeDepthwise,
        LecunDepthwise,
        GlorotTransposed,
        HeTransposed,
        LecunTransposed,
        GlorotGates,
        SmallInit,
        WangInit,
        SpectralScaled,
        RandomWalk,
        EdgeOfChaos,
        SIREN,
        Hyperfan,
    ),
    "orthogonal": (OrthogonalScaled, GatewiseOrthogonal, DeltaOrthogonal, ConvOrthogonal),
    "structured": (
        IdentityScaled,
        Dirac,
        ZerO,
        IDInit,
        LooksLinear,
        Sinusoidal,
        TanhFixedPoint,
        ICNR,
    ),
    "sparse": (SparseNormal,),
    "recurrent": (IRNN, ChronoBias, UniformGateBias),
    "head": (PriorBias, LabelPrior),
    "state space": (HiPPO, HiPPOInput, S4DReal, S4DLin, LRURing, TimeStepBias),
    "data-dependent": (LSUV, WithinLayer, WeightNormData, ActNormData, PCAFilters, KMeansFilters),
    "gradient": (BetweenLayer, MetaInit, GradInit),
}


def names() -> list[str]:
    """Returns the registered name of every initializer of the package, sorted.

    >>> names()[:2]
    ['initx>ActNormData', 'initx>BetweenLayer']
    """
    return sorted(f"{PACKAGE}>{cls.__name__}" for family in FAMILIES.values() for cls in family)


def get(identifier: Any) -> Any:
    """Returns the initializer that a name, a config dict, a class or an instance stands for.

    It is `keras.initializers.get` with an error that helps.

    >>> get("initx>LSUV").target_std
    1.0
    >>> get("initx>LSVU")
    Traceback (most recent call last):
    ...
    ValueError: `initializer` must name an initializer. Received: 'initx>LSVU'. Nearest known: 'initx>LSUV'.

    Args:
        identifier: A name of `names()` or of Keras' own initializers, a config dict, a class or an instance.

    Returns:
        An initializer.

    Raises:
        ValueError: If nothing is known by that name; the message lists the nearest.
    """
    try:
        initializer = keras.initializers.get(identifier)
    except (TypeError, ValueError) as error:
        if not isinstance(identifier, str):
            raise
        raise ValueError(
            f"`initializer` must name an initializer. Received: {identifier!r}. "
            f"Nearest known: {_nearest(identifier)}."
        ) from error
    if initializer is None:
        raise ValueError(f"`initializer` must not be None here. Choose one of {names()}.")
    return initializer


def _nearest(name: str) -> str:
    known = names() + [n for n in dir(keras.initializers) if n[0].islower() and n not in ("get", "serialize")]
    bare = {n.removeprefix(f"{PACKAGE}>").lower(): n for n in known}
    word = name.rpartition(">")[2].lower()
    nearest = difflib.get_close_matches(word, bare, n=3, cutoff=0.5)
    return ", ".join(repr(bare[n]) for n in nearest) or ", ".join(map(repr, names()))
