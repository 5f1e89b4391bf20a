"""Toy sizes of the backbones of keras_hub: each name with a function that builds it."""

import pytest

T = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
HEADS = T | {"num_heads": 2}
GROUPED = T | {"num_query_heads": 4, "num_key_value_heads": 2}
GEMMA = T | {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
QWEN35 = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 4}
QWEN35 |= {"linear_value_head_dim": 4, "head_dim": 8, "partial_rotary_factor": 0.5}
MIXED = {"num_experts": 3, "top_k": 2}
VISION = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
SQUARE = {"image_shape": (32, 32, 3)}
TEXT = HEADS | {"embedding_dim": 8, "max_sequence_length": 8}
RESNET = {"input_conv_filters": [8], "input_conv_kernel_sizes": [7], "block_type": "bottleneck_block"}
RESNET |= {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
SAM3 = {"hidden_dim": 32, "intermediate_dim": 16, "num_heads": 2, "num_layers": 2}


def hub():
    return pytest.importorskip("keras_hub").models


def of(**options):
    """Builds a backbone whose options hold no other model."""
    return lambda name: getattr(hub(), f"{name}Backbone")(**options)


def resnet(levels=2, **shape):
    many = {"stackwise_num_filters": [64] * levels, "stackwise_num_blocks": [1] * levels}
    strides = {"stackwise_num_strides": [1] + [2] * (levels - 1)}
    return hub().ResNetBackbone(**RESNET | many | strides | shape)


def two_towers(family):
    def build(name):
        options = {} if family == "SigLIP" else {"projection_dim": 8}
        return getattr(hub(), f"{name}Backbone")(
            vision_encoder=getattr(hub(), f"{family}VisionEncoder")(**VISION, **SQUARE),
            text_encoder=getattr(hub(), f"{family}TextEncoder")(**TEXT),
            **options,
        )

    return build


def with_encoder(make, **options):
    """Builds a backbone around an image encoder."""
    return lambda name: getattr(hub(), f"{name}Backbone")(image_encoder=make(), **options)


def mit():
    return hub().MiTBackbone(
        **SQUARE, num_layers=2, hidden_dims=[8, 16], layerwise_depths=[1, 1], layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1], layerwise_patch_sizes=[7, 3], layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
    )  # fmt: skip


def dinov2():
    shapes = {"image_shape": (64, 64, 3), "position_embedding_shape": (64, 64, 3)}
    return hub().DINOV2Backbone(**VISION, **shapes)


def hgnet(image_shape=(32, 32, 3), **options):
    return hub().HGNetV2Backbone(
        depths=[1, 1], embedding_size=4, hidden_sizes=[8, 16], stem_channels=[3, 4, 4], hidden_act="relu",
        use_learnable_affine_block=True, apply_downsample=[False, True], image_shape=image_shape,
        use_lightweight_conv_block=[False, True],
        stackwise_stage_filters=[(4, 4, 8, 1, 2, 3), (8, 4, 16, 1, 2, 3)], **options,
    )  # fmt: skip


def blip2(name):
    models, size = (
        hub(),
        {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "layer_norm_epsilon": 1e-6},
    )
    vision = models.BLIP2VisionEncoder(
        **size, image_size=16, patch_size=8, num_layers=1, use_patch_bias=True, use_class_token=True,
        use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0, initializer_range=0.02,
    )  # fmt: skip
    qformer = models.BLIP2QFormer(
        **size, num_query_tokens=3, num_layers=2, vision_dim=8, cross_attention_frequency=2, dropout=0.0
    )
    language = models.BLIP2CustomOPT(
        **HEADS, max_sequence_length=16, num_query_tokens=3, qformer_hidden_dim=8, dropout=0.0
    )
    return models.BLIP2Backbone(vision_encoder=vision, qformer=qformer, language_model=language)


def d_fine(name):
    encoder = hgnet((64, 64, 3), out_features=["stage1", "stage2"])
    return hub().DFineBackbone(
        backbone=encoder, decoder_in_channels=[8, 8], encoder_hidden_dim=8, num_denoising=0, num_labels=5,
        hidden_dim=8, learn_initial_query=False, num_queries=6, anchor_image_size=(64, 64),
        feat_strides=[4, 8], num_feature_levels=2, encoder_in_channels=[8, 16], encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16, num_encoder_layers=1, hidden_expansion=0.5, depth_multiplier=0.5, eval_idx=-1,
        num_decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=16, decoder_n_points=[2, 2],
        lqe_hidden_dim=4, num_lqe_layers=2, out_features=["stage1", "stage2"], image_shape=(64, 64, 3),
        seed=0,
    )  # fmt: skip


def sam(name):
    import keras_hub

    encoder = hub().ViTDetBackbone(**VITDET | {"image_shape": (32, 32, 3)})
    prompt = keras_hub.layers.SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_channels=16
    )
    decoder = keras_hub.layers.SAMMaskDecoder(
        num_layers=1, hidden_size=8, intermediate_dim=16, num_heads=2, embedding_dim=8,
        num_multimask_outputs=3, iou_head_depth=2, iou_head_hidden_dim=8,
    )  # fmt: skip
    return hub().SAMBackbone(image_encoder=encoder, prompt_encoder=prompt, mask_decoder=decoder)


def sam3(name):
    from keras_hub import layers

    shape = {"image_shape": (56, 56, 3), "patch_size": 14}
    return hub().SAM3PromptableConceptBackbone(
        vision_encoder=layers.SAM3VisionEncoder(
            **shape, **SAM3, fpn_hidden_dim=32, fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3), window_size=2, global_attn_indexes=[1],
        ),
        text_encoder=layers.SAM3TextEncoder(vocabulary_size=50, embedding_dim=32, **SAM3),
        geometry_encoder=layers.SAM3GeometryEncoder(**SAM3, roi_size=3),
        detr_encoder=layers.SAM3DetrEncoder(**SAM3),
        detr_decoder=layers.SAM3DetrDecoder(**shape, **SAM3, num_queries=5),
        mask_decoder=layers.SAM3MaskDecoder(num_upsampling_stages=3, hidden_dim=32, num_heads=2),
    )  # fmt: skip


def diffusion(name):
    models = hub()
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    vae = VAEBackbone([32, 32, 32, 32], [1, 1, 1, 1], [32, 32, 32, 32], [1, 1, 1, 1], sampler_method="mode")
    text = {**T, "embedding_dim": 8, "num_heads": 2, "max_sequence_length": 12}
    clips = [
        models.CLIPTextEncoder(**text, intermediate_output_index=0, name=n) for n in ("clip_l", "clip_g")
    ]
    return models.StableDiffusion3Backbone(
        mmdit_patch_size=2, mmdit_hidden_dim=16, mmdit_num_layers=2, mmdit_num_heads=2, mmdit_position_size=8,
        mmdit_qk_norm=None, mmdit_dual_attention_indices=None, vae=vae, clip_l=clips[0], clip_g=clips[1],
        image_shape=(64, 64, 3),
    )  # fmt: skip


MOBILE = {
    "stackwise_expansion": [[16, 24]], "stackwise_num_blocks": [2], "stackwise_num_filters": [[8, 8]],
    "stackwise_kernel_size": [[3, 5]], "stackwise_num_strides": [[2, 1]],
    "stackwise_se_ratio": [[None, 0.25]],
    "stackwise_activation": [["relu", "hard_swish"]], "stackwise_padding": [[1, 2]], "output_num_filters": 16,
    "depthwise_filters": 8, "depthwise_stride": 2, "depthwise_residual": False, "last_layer_filter": 16,
    "squeeze_and_excite": 0.5,
}  # fmt: skip
MOBILE5 = {
    "stackwise_block_types": [["er"], ["uir", "mqa"]], "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[16], [16, 16]], "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]], "stackwise_exp_ratios": [[4.0], [2.0, 1.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]], "stackwise_dw_kernel_sizes": [[0], [5, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]], "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]], "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 2]], "stackwise_key_dims": [[0], [0, 8]],
    "stackwise_value_dims": [[0], [0, 8]], "stackwise_kv_strides": [[0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False]], "use_msfa": False, "num_features": 16,
}  # fmt: skip
EFFICIENT = {
    "stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [1, 2], "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16], "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25], "stackwise_strides": [1, 2],
    "stackwise_block_types": ["fused", "unfused"], "stackwise_width_coefficients": [1.0, 1.0],
    "stackwise_depth_coefficients": [1.0, 1.0], "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False], "num_features": 16, "input_shape": (32, 32, 3),
}  # fmt: skip
GEMMA3N = {
    "text_vocab_size": 50, "text_hidden_size": 8, "num_hidden_layers": 2, "pad_token_id": 0,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": [16, 16],
    "hidden_activation": "gelu_approximate", "layer_types": ["full_attention", "sliding_attention"],
    "sliding_window": 4, "rope_theta": 10000.0, "max_position_embeddings": 32,
    "vocab_size_per_layer_input": 50, "hidden_size_per_layer_input": 2, "altup_num_inputs": 2,
    "laurel_rank": 2,
}  # fmt: skip
T5GEMMA = {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in {
        "hidden_dim": 8, "intermediate_dim": 16, "num_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "layer_types": ["full_attention", "sliding_attention"],
    }.items()
} | {"vocabulary_size": 50, "sliding_window": 4, "cross_attention_hidden_size": 8}  # fmt: skip
VITDET = {
    "hidden_size": 16, "num_layers": 2, "intermediate_dim": 16, "num_heads": 2, "patch_size": 8,
    "global_attention_layer_indices": [1], "num_output_channels": 8, "window_size": 2, **SQUARE,
}  # fmt: skip
FLUX = {
    "input_channels": 8, "hidden_size": 16, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1,
    "depth_single_blocks": 1, "axes_dim": [2, 2, 4], "theta": 10000, "use_bias": True, "image_shape": (6,
    8), "text_shape": (4, 8),
    "image_ids_shape": (6, 3), "text_ids_shape": (4, 3), "y_shape": (16,),
}  # fmt: skip
MOONSHINE = {
    "vocabulary_size": 50, "filter_dim": 8, "encoder_num_layers": 1, "decoder_num_layers": 1, "hidden_dim": 8,
    "intermediate_dim": 16, "encoder_num_heads": 2, "decoder_num_heads": 2,
}  # fmt: skip
BACKBONES = {
    "Albert": of(**HEADS, embedding_dim=4, max_sequence_length=12),
    "BASNet": with_encoder(lambda: resnet(4, image_shape=(None, None, 3)), num_classes=1,
                           projection_filters=8,
                           **SQUARE),
    "BLIP2": blip2,
    **dict.fromkeys(("Bart", "Bert", "DistilBert", "GPT2", "OPT", "Roberta", "XLMRoberta"),
                    of(**HEADS, max_sequence_length=12)),
    "Bloom": of(**HEADS),
    "CLIP": two_towers("CLIP"),
    "CSPNet": of(stem_filters=8, stem_kernel_size=3, stem_strides=1, stackwise_depth=[1, 2],
                 stackwise_strides=[1, 2], stackwise_num_filters=[8, 16], block_type="dark_block",
                 stage_type="dark", **SQUARE),
    "DFine": d_fine,
    "DINOV2": of(**VISION, **SQUARE, position_embedding_shape=(32, 32, 3)),
    "DINOV3": of(**VISION, **SQUARE),
    "DebertaV3": of(**HEADS, max_sequence_length=12, bucket_size=8),
    "DeepLabV3": with_encoder(lambda: resnet(4, **SQUARE), spatial_pyramid_pooling_key="P5",
                              low_level_feature_key="P2", upsampling_size=8, dilation_rates=[2, 3],
                              projection_filters=4, **SQUARE),
    "DeiT": of(**VISION | {"patch_size": (8, 8)}, **SQUARE),
    "DenseNet": of(stackwise_num_repeats=[1, 2], growth_rate=4, **SQUARE),
    "DepthAnything": with_encoder(dinov2, reassemble_factors=[1, 0.5], neck_hidden_dims=[4, 8],
                                  fusion_hidden_dim=8, head_hidden_dim=4, head_in_index=-1,
                                  feature_keys=["stage1", "stage2"]),
    "ESM": of(**HEADS),
    "ESM2": of(**HEADS),
    "EdRec": of(vocab_size=50, num_layers_enc=1, num_layers_dec=1, hidden_dim=8, intermediate_dim=16,
                num_heads=2),
    "EfficientNet": of(**EFFICIENT),
    "Electra": of(vocab_size=50, num_layers=2, num_heads=2, hidden_dim=8, embedding_dim=4,
                  intermediate_dim=16, max_sequence_length=12),
    "FNet": of(**T, max_sequence_length=12),
    "Falcon": of(**T, num_attention_heads=2),
    "Flux": of(**FLUX),
    "GPTNeoX": of(**HEADS, rotary_percentage=0.5),
    "Gemma": of(**GEMMA),
    "Gemma3": of(**GEMMA, image_size=16),
    "Gemma3n": of(**GEMMA3N),
    "Gemma4": of(**GEMMA, image_size=16),
    "GptOss": of(**GROUPED, **MIXED),
    "HGNetV2": lambda name: hgnet(),
    **dict.fromkeys(("Llama", "Llama3", "Mistral", "Phi3", "Qwen", "Qwen2"), of(**GROUPED)),
    "MetaCLIP2": two_towers("MetaCLIP2"),
    "MiT": lambda name: mit(),
    "Mixtral": of(**GROUPED, **MIXED),
    "MobileNet": of(**MOBILE, **SQUARE),
    "MobileNetV5": of(**MOBILE5, **SQUARE),
    "Moonshine": of(**MOONSHINE),
    "PARSeq": with_encoder(
        lambda: hub().ViTBackbone(image_shape=(16, 16, 3), patch_size=(8, 8), num_layers=1, num_heads=2,
                                  hidden_dim=8, mlp_dim=16, use_class_token=False),
        vocabulary_size=20, max_label_length=5, decoder_hidden_dim=8, num_decoder_layers=1,
        num_decoder_heads=2, decoder_mlp_dim=16),
    "PaliGemma": of(**GEMMA, image_size=16, vit_patch_size=8, vit_num_heads=2, vit_hidden_dim=8,
                    vit_num_layers=1),
    "Qwen3": of(**GROUPED, head_dim=4),
    "Qwen3Moe": of(**GROUPED, **MIXED, moe_intermediate_dim=8, head_dim=4),
    "Qwen3_5": of(**GROUPED, **QWEN35, layer_types=["linear_attention", "full_attention"]),
    "Qwen3_5Moe": of(**{k: v for k, v in GROUPED.items() if k != "intermediate_dim"}, **QWEN35, **MIXED,
                     moe_intermediate_dim=8, shared_expert_intermediate_size=8,
                     layer_types=["linear_attention", "full_attention"]),
    "QwenMoe": of(**GROUPED, **MIXED, moe_intermediate_dim=8, shared_expert_intermediate_dim=8),
    "RWKV7": of(hidden_size=16, head_size=8, num_layers=2, vocabulary_size=50, intermediate_dim=16,
                gate_lora=4, mv_lora=4, aaa_lora=4, decay_lora=4),
    "ResNet": of(**RESNET, **SQUARE),
    "RetinaNet": with_encoder(lambda: resnet(4, **SQUARE), min_level=3, max_level=5, use_p5=False, **SQUARE),
    "RoformerV2": of(**HEADS, head_size=4),
    "SAM": sam,
    "SAM3PromptableConcept": sam3,
    "SegFormer": with_encoder(mit, projection_filters=8),
    "SigLIP": two_towers("SigLIP"),
    **dict.fromkeys(("SmolLM3", "SmolLM"), of(
        **T, num_attention_heads=4, num_key_value_heads=2, attention_bias=False, attention_dropout=0.0,
        rope_layer_enabled_list=[True, False], layer_types=["full_attention"] * 2, mlp_bias=False,
        layer_norm_epsilon=1e-5, max_position_embeddings=32, rope_theta=10000.0, partial_rotary_factor=1.0)),
    "StableDiffusion3": diffusion,
    "SwinTransformer": of(**SQUARE, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4),
    "T5": of(**HEADS),
    "T5Gemma": of(**T5GEMMA),
    "T5Gemma2": of(**T5GEMMA),
    "VGG": of(stackwise_num_repeats=[1, 2], stackwise_num_filters=[4, 8], **SQUARE),
    "ViT": of(image_shape=(16, 16, 3), patch_size=(8, 8), num_layers=2, num_heads=2, hidden_dim=8,
              mlp_dim=16),
    "ViTDet": of(**VITDET),
    "VideoPrism": of(num_frames=2, patch_size=8, hidden_dim=8, intermediate_dim=16, num_heads=2,
                     num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=0, **SQUARE),
    "Whisper": of(**HEADS, num_mels=8, max_encoder_sequence_length=16, max_decoder_sequence_length=12),
    "XLNet": of(**HEADS),
    "Xception": of(stackwise_conv_filters=[[4, 8], [8, 8]], stackwise_pooling=[True, False], **SQUARE),
}  # fmt: skip


def backbone(name):
    return BACKBONES[name](name)
