"""Published weight initializers, each registered with Keras as `"initx>ClassName"`."""

import difflib
from collections.abc import Iterable
from typing import Any

import keras

from keras_initx.initializers._adapter_laws import EVA, AdapterLaw, LoRAGA, explained
from keras_initx.initializers._base import PACKAGE, default_config
from keras_initx.initializers._class_means import ClassMeans
from keras_initx.initializers._constant import ConstantFill
from keras_initx.initializers._convolutional import ConvOrthogonal, DeltaOrthogonal
from keras_initx.initializers._data_dependent import (
    LSUV,
    DataDependent,
    WithinLayer,
)
from keras_initx.initializers._data_filters import DataFilters, KMeansFilters, PCAFilters
from keras_initx.initializers._depthwise import GlorotDepthwise, HeDepthwise, LecunDepthwise
from keras_initx.initializers._gatewise import GatewiseOrthogonal, GlorotGates
from keras_initx.initializers._grad_init import GradInit
from keras_initx.initializers._head_law import Head, HeadLaw
from keras_initx.initializers._head_rows import HeadRows, read_targets, read_weights
from keras_initx.initializers._heads import LabelPrior, PriorBias
from keras_initx.initializers._hyperfan import Hyperfan
from keras_initx.initializers._identity import Dirac, IdentityScaled, ZerO
from keras_initx.initializers._law import (
    Law,
    Site,
    Task,
    is_bias_initializer,
    is_law,
    makes_heads,
    needs_of,
)
from keras_initx.initializers._linear_probe import LinearProbe
from keras_initx.initializers._normalized import ActNormData, WeightNormData
from keras_initx.initializers._orthogonal import OrthogonalScaled
from keras_initx.initializers._over_model import BetweenLayer, MetaInit, ModelLaw
from keras_initx.initializers._recurrent import IRNN, ChronoBias, UniformGateBias
from keras_initx.initializers._signal import SIREN, EdgeOfChaos
from keras_initx.initializers._sparse import IDInit, SparseNormal, TanhFixedPoint
from keras_initx.initializers._state_space import HiPPO, HiPPOInput, S4DLin, S4DReal
from keras_initx.initializers._structured import ICNR, LooksLinear, Sinusoidal
from keras_initx.initializers._time_scales import LRURing, TimeStepBias
from keras_initx.initializers._transposed import GlorotTransposed, HeTransposed, LecunTransposed
from keras_initx.initializers._variance import GlorotScaled, HeScaled, LecunScaled, RandomScaled
from keras_initx.initializers._vectors import FromVectors
from keras_initx.initializers._width import RandomWalk, SmallInit, SpectralScaled, WangInit

__all__ = [
    "EVA",
    "FAMILIES",
    "ICNR",
    "IRNN",
    "LSUV",
    "SIREN",
    "ActNormData",
    "AdapterLaw",
    "BetweenLayer",
    "ChronoBias",
    "ClassMeans",
    "ConstantFill",
    "ConvOrthogonal",
    "DataDependent",
    "DataFilters",
    "DeltaOrthogonal",
    "Dirac",
    "EdgeOfChaos",
    "FromVectors",
    "GatewiseOrthogonal",
    "GlorotDepthwise",
    "GlorotGates",
    "GlorotScaled",
    "GlorotTransposed",
    "GradInit",
    "HeDepthwise",
    "HeScaled",
    "HeTransposed",
    "Head",
    "HeadLaw",
    "HeadRows",
    "HiPPO",
    "HiPPOInput",
    "Hyperfan",
    "IDInit",
    "IdentityScaled",
    "KMeansFilters",
    "LRURing",
    "LabelPrior",
    "Law",
    "LecunDepthwise",
    "LecunScaled",
    "LecunTransposed",
    "LinearProbe",
    "LoRAGA",
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
    "Site",
    "SmallInit",
    "SparseNormal",
    "SpectralScaled",
    "TanhFixedPoint",
    "Task",
    "TimeStepBias",
    "UniformGateBias",
    "WangInit",
    "WeightNormData",
    "WithinLayer",
    "ZerO",
    "default_config",
    "explained",
    "get",
    "is_bias_initializer",
    "is_law",
    "is_none",
    "makes_heads",
    "names",
    "nearest",
    "needs_of",
    "read_targets",
    "read_weights",
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
    "head": (PriorBias, LabelPrior, LinearProbe, ClassMeans),
    "embedding": (FromVectors,),
    "adapter": (EVA, LoRAGA),
    "state space": (HiPPO, HiPPOInput, S4DReal, S4DLin, LRURing, TimeStepBias),
    "data-dependent": (LSUV, WithinLayer, WeightNormData, ActNormData, PCAFilters, KMeansFilters),
    "gradient": (BetweenLayer, MetaInit, GradInit),
}


# What other libraries call them by.
_AUTHORS = {"kaiming": "he", "msra": "he", "xavier": "glorot"}
# What `keras.initializers` holds beside names.
_NO_NAMES = ("deserialize", "get", "serialize")


def names() -> list[str]:
    """Returns the registered name of every initializer of the package, sorted.

    >>> names()[:2]
    ['initx>ActNormData', 'initx>BetweenLayer']
    """
    return sorted(f"{PACKAGE}>{cls.__name__}" for family in FAMILIES.values() for cls in family)


def get(identifier: Any) -> Any:
    """Returns the initializer that a name, a config dict, a class or an instance stands for.

    It is `keras.initializers.get` with an error that helps, and takes this package's names without `initx>`,
    which a shell would read as "write to a file".

    >>> get("LSUV"), get("initx>LSUV"), get("he_normal").__class__.__name__
    (LSUV(), LSUV(), 'HeNormal')
    >>> get("LSVU")
    Traceback (most recent call last):
    ...
    ValueError: `initializer` must name an initializer. Received: 'LSVU'. Nearest known: 'LSUV'.

    Args:
        identifier: A name of `names()`, with or without `initx>`, or of Keras' own initializers; a config
            dict, a class or an instance.

    Returns:
        An initializer.

    Raises:
        ValueError: If nothing is known by that name; the message lists the nearest.
    """
    if isinstance(identifier, str) and f"{PACKAGE}>{identifier}" in names():
        identifier = f"{PACKAGE}>{identifier}"
    try:
        initializer = keras.initializers.get(identifier)
    except (TypeError, ValueError) as error:
        if not isinstance(identifier, str):
            raise
        raise ValueError(
            f"`initializer` must name an initializer. Received: {identifier!r}. "
            f"Nearest known: {', '.join(map(repr, nearest(identifier))) or names()}."
        ) from error
    if initializer is None:
        raise ValueError(f"`initializer` must not be None here. Choose one of {names()}.")
    return initializer


def is_none(identifier: Any) -> bool:
    """Tells whether an initializer is None or the word none, which is None at the command line.

    >>> is_none("none"), is_none("zeros")
    (True, False)

    Args:
        identifier: What `get` takes, or None.
    """
    return identifier is None or (isinstance(identifier, str) and identifier.lower() == "none")


def nearest(name: str, more: Iterable[str] = ()) -> list[str]:
    """Returns the known names that a misspelt one may stand for, the best first; an empty list for none.

    >>> nearest("he_norml")[0], nearest("kaiming_normal")[0], nearest("by_rol", ["by_role"])
    ('he_normal', 'he_normal', ['by_role'])

    Args:
        name: What was written.
        more: Further names to choose from.
    """
    prefix = f"{PACKAGE}>" if ">" in name else ""
    own = {known.partition(">")[2]: prefix + known.partition(">")[2] for known in names()}
    keras_own = [n for n in dir(keras.initializers) if n[0].islower() and n not in _NO_NAMES]
    known = own | {n: n for n in (*keras_own, *more)}
    folded = {n.lower(): n for n in known}
    word = name.rpartition(">")[2].lower()
    for authors, theirs in _AUTHORS.items():
        word = word.replace(authors, theirs)
    return [known[folded[n]] for n in difflib.get_close_matches(word, folded, n=3, cutoff=0.55)]
