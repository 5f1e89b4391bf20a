"""The starts of low-rank adapters (LoRA): factors made from kernels, and adapters as plain LoRA."""

from keras_initx.adapters._enable import enable_lora
from keras_initx.adapters._factors import Factors, loftq, olora, pissa
from keras_initx.adapters._plain import PlainLoRA, Start, as_plain
from keras_initx.adapters._quantize import MODES, rounding
from keras_initx.adapters._svd import leading_svd

__all__ = [
    "MODES", "Factors", "PlainLoRA", "Start", "as_plain", "enable_lora", "leading_svd", "loftq", "olora",
    "pissa", "rounding",
]  # fmt: skip
