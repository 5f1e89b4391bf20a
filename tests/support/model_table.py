"""Models that others wrote: of each family of keras.applications, and backbones of keras_hub."""

import keras
import pytest

slow = pytest.mark.slow
# Smallest legal size of an image, and how many residual branches the papers draw.
APPLICATIONS = {
    "VGG16": (32, 0),
    "ResNet50": (32, 16),
    "ResNet50V2": (32, 16),
    "InceptionV3": (75, 0),
    "Xception": (71, 12),
    "MobileNet": (32, 0),
    "MobileNetV2": (32, 10),
    "MobileNetV3Small": (32, 6),
    "EfficientNetB0": (32, 9),
    "EfficientNetV2B0": (32, 15),
    "ConvNeXtTiny": (32, 18),
    "DenseNet121": (32, 0),
    "NASNetMobile": (32, None),
    "InceptionResNetV2": (75, 40),
}
HEAVY = (
    "InceptionV3",
    "ConvNeXtTiny",
    "DenseNet121",
    "NASNetMobile",
    "InceptionResNetV2",
    "Xception",
    "VGG16",
    "EfficientNetB0",
    "EfficientNetV2B0",
)
# Those that are initialized, saved and loaded in the fast suite.
LIGHT = ("MobileNet",)


def light_elsewhere(name: str) -> tuple:
    """Marks of a test that needs each application once: JAX compiles for minutes what others just run."""
    return (slow,) if name in HEAVY else () if name in LIGHT else (pytest.mark.tensorflow,)


def few_elsewhere(names, *kept: str) -> list:
    """Parameters of a test of backbones. On JAX, which compiles each for half a minute, a few will do."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.tensorflow) for name in names]


HIDDEN = 8
TRANSFORMER = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": HIDDEN, "intermediate_dim": 16}
BACKBONES = {
    "Bert": ({**TRANSFORMER, "num_heads": 2, "max_sequence_length": 12}, 4),
    "GPT2": ({**TRANSFORMER, "num_heads": 2, "max_sequence_length": 12}, 4),
    "Llama": ({**TRANSFORMER, "num_query_heads": 4, "num_key_value_heads": 2}, 4),
    "Gemma": ({**TRANSFORMER, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4}, 4),
    "T5": ({**TRANSFORMER, "num_heads": 2}, 10),
    "Whisper": (
        TRANSFORMER
        | {
            "num_heads": 2,
            "num_mels": 8,
            "max_encoder_sequence_length": 16,
            "max_decoder_sequence_length": 12,
        },
        10,
    ),
    "ViT": (
        {"image_shape": (16, 16, 3), "patch_size": (4, 4), "num_layers": 2, "num_heads": 2}
        | {"hidden_dim": HIDDEN, "mlp_dim": 16},
        4,
    ),
    "ResNet": (
        {"input_conv_filters": [8], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 64]}
        | {"stackwise_num_blocks": [2, 2], "stackwise_num_strides": [1, 2], "block_type": "bottleneck_block"}
        | {"image_shape": (32, 32, 3)},
        4,
    ),
}
# What the trace cannot tell of them: tokens of a class, and tables in layers that make them from no input.
NOTED = {"T5": {"embeddings"}}


def application(name):
    size, _ = APPLICATIONS[name]
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=10)


def backbone(name):
    models = pytest.importorskip("keras_hub").models
    options, _ = BACKBONES[name]
    return getattr(models, f"{name}Backbone")(**options)
