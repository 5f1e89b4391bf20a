"""Models that others wrote: each kernel is known, and the table of classes and the trace tell the same.

The whole lists run by hand with `-m slow`.
"""

import keras
import pytest

from support import hub_table
from support.table_and_trace import assert_all_alike

SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
APPLICATIONS = [name for name in dir(keras.applications) if name[0].isupper()]
QUICK = ("Bert", "Gemma", "Mixtral", "MobileNet", "MobileNetV5", "SwinTransformer")
# Kernels that no product, convolution or lookup takes, by the end of their path.
LOGITS = ("reverse_embeddings",)  # a backbone makes no logits
POSITIONS = ("position_embedding/embeddings",)  # added without a lookup
UNSEEN = {
    "BASNet": ("res_net_backbone/conv1_conv",),  # another stem takes its place
    "DepthAnything": (  # the first stage has no map to fuse with
        "neck/fusion_stage_0/residual_layer1/convolution1",
        "neck/fusion_stage_0/residual_layer1/convolution2",
    ),
    "SAM": ("no_mask_embed/embeddings",),  # added without a lookup
    # They join the sequence without a lookup.
    "SAM3PromptableConcept": tuple(
        f"{name}/embeddings" for name in ("cls_embed", "presence_token", "query_embed")
    ),
}
# Weights without fans, by the end of their path.
LOOSE = {
    "DINOV2": ("mask_token",),  # for masked patches, which the model does not get here
    "DINOV3": ("mask_token",),
    "DepthAnything": ("mask_token",),
    "DebertaV3": ("rel_embedding/rel_embedding",),  # normalized, then multiplied by two kernels
    "XLNet": ("mask_emb",),  # for masked tokens
}
# Kernels that take no input but numbers of the model's own: the trace takes their product for another form of
# the weight.
ENCODED = {
    "SAM3PromptableConcept": ("reference_points/embeddings",),
    "XLNet": ("rel_attn/encoding",),
}
READING = "it reads a value while it runs, which a run without values does not have"
LENGTHS = "it runs on no length of text that the trace tries"
NOT_TRACED = {
    "jax": {
        "DFine": "with 64-bit numbers on, JAX refuses its indices",
        "SAM": "JAX cannot trace it: the branches of its `cond` differ",
        "StableDiffusion3": LENGTHS,
    },
    "tensorflow": {"SAM3PromptableConcept": LENGTHS, "StableDiffusion3": READING},
    "torch": {
        "DFine": READING,
        "Flux": READING,
        "NASNetMobile": "Keras does not build it on torch",
        "SAM3PromptableConcept": "it needs torchvision",
        "StableDiffusion3": READING,
    },
}


@pytest.fixture(autouse=True)
def _no_draws(monkeypatch):
    """The values do not matter here, and the largest model has 350 million."""

    def zeros(self, shape, dtype=None, **_):
        return keras.ops.zeros(shape, dtype)

    for name in ("GlorotUniform", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"):
        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", zeros)


def marked(names):
    not_traced = NOT_TRACED.get(keras.backend.backend(), {})
    for name in names:
        marks = [] if name in QUICK else [pytest.mark.slow]
        if name in not_traced:
            marks.append(pytest.mark.xfail(reason=not_traced[name], strict=True))
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", marked(APPLICATIONS))
def test_each_kernel_of_an_application_is_known_to_table_and_trace(name):
    size = SIZES.get(name, 32)
    build = getattr(keras.applications, name)
    assert_all_alike(build(weights=None, input_shape=(size, size, 3), classes=10))


@pytest.mark.parametrize("name", marked(hub_table.BACKBONES))
def test_each_kernel_of_a_backbone_is_known_to_table_and_trace(name):
    unseen = (*LOGITS, *POSITIONS, *UNSEEN.get(name, ()))
    encoded = ENCODED.get(name, ())
    assert_all_alike(hub_table.backbone(name), unseen, (*LOOSE.get(name, ()), *unseen), encoded)


def test_each_backbone_of_keras_hub_is_in_the_table():
    models = pytest.importorskip("keras_hub").models
    names = {name.removesuffix("Backbone") for name in dir(models) if name.endswith("Backbone")}
    assert names - {"", "FeaturePyramid"} == set(hub_table.BACKBONES)  # two have no layers of their own
