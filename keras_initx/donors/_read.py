"""Reads a donor: the model, and the values of its weights."""

import os
from pathlib import Path

import keras
import numpy as np

from keras_initx._types import Model
from keras_initx.walk import KernelSite, Weight

__all__ = ["check_donor", "is_adapter", "read_donor", "value_of"]

_CURES = {
    ".h5": "A file of weights does not tell the layers: build the donor, call donor.load_weights(path), and "
    "pass the donor.",
    "": "A SavedModel does not tell the layers: pass the .keras file that its model was saved in.",
}


def check_donor(donor: object) -> Model | Path:
    """Returns a donor: a model, or the path of a file. Raises ValueError for anything else."""
    if isinstance(donor, keras.layers.Layer):
        if not donor.built or not donor.weights:
            raise ValueError(
                f"`donor` must be built and have weights. Received: {type(donor).__name__} `{donor.name}`, "
                f"built={donor.built}. Call it on one batch first."
            )
        return donor
    if not isinstance(donor, str | os.PathLike):
        raise ValueError(
            "`donor` must be a built Keras model or the path of a .keras file. Received: donor of type "
            f"{type(donor).__name__}."
        )
    path = Path(donor)
    if path.suffix != ".keras":
        suffix = ".h5" if path.suffix in (".h5", ".hdf5") else ""
        raise ValueError(
            "`donor` must be a built Keras model or the path of a .keras file. Received: "
            f"donor={str(donor)!r}. {_CURES[suffix]}"
        )
    if not path.exists():
        raise ValueError(f"`donor` must be a file that exists. Received: donor={str(donor)!r}.")
    return path


def read_donor(donor: Model | Path) -> Model:
    """Returns the donor's model."""
    return keras.saving.load_model(donor, compile=False) if isinstance(donor, Path) else donor


def is_adapter(weight: KernelSite | Weight) -> bool:
    """Whether a weight is a factor of LoRA, which counts as a part of the kernel beside it."""
    return bool(getattr(weight.layer, "lora_enabled", False)) and weight.kernel.name.startswith("lora_")


def value_of(weight: KernelSite | Weight) -> np.ndarray:
    """Returns the value of a donor's weight. The value of a LoRA-enabled kernel has the adapters in it."""
    layer, variable = weight.layer, weight.kernel
    if getattr(layer, "quantization_mode", None):
        raise ValueError(
            f"`donor` must not be quantized. Received: a donor whose `{weight.path}` is of "
            f"{layer.quantization_mode}. Pass the model from before `quantize`."
        )
    value = variable.value
    if getattr(layer, "lora_enabled", False):
        merged = {"_kernel": "kernel", "_embeddings": "embeddings"}
        own = next((name for name in merged if getattr(layer, name, None) is variable), None)
        value = getattr(layer, merged[own]) if own else value
    # NumPy has no bfloat16.
    if (
        keras.backend.is_float_dtype(variable.dtype)
        and keras.backend.standardize_dtype(variable.dtype) != "float64"
    ):
        value = keras.ops.cast(value, "float32")
    return keras.ops.convert_to_numpy(value)
