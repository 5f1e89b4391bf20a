"""The starts of low-rank adapters (LoRA): factors made from kernels, and adapters as plain LoRA."""

from keras_initx.adapters._bases import Start, began, given_back, is_less
from keras_initx.adapters._enable import enable_lora
from keras_initx.adapters._factors import Factors, loftq, olora, pissa
from keras_initx.adapters._plain import PlainLoRA, as_plain
from keras_initx.adapters._quantize import MODES, rounding
from keras_initx.adapters._svd import leading_svd

__all__ = [
    "MODES", "Factors", "PlainLoRA", "Start", "as_plain", "began", "enable_lora", "given_back", "is_less",
    "leading_svd", "loftq", "olora", "pissa", "rounding",
]  # fmt: skip
