"""Tiny models: configurations and image processors of every family that works."""

from collections.abc import Callable
from typing import Any

import transformers

# Configurations take the options of their parents as well, which their signatures do not tell.


def _segformer(labels: int) -> Any:
    return transformers.SegformerConfig(  # type: ignore[call-arg]
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 2, 4],
        decoder_hidden_size=32,
        num_labels=labels,
    )


def _upernet(labels: int) -> Any:
    backbone = transformers.ConvNextConfig(  # type: ignore[call-arg]
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 12, 16, 20],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.UperNetConfig(  # type: ignore[call-arg]
        backbone_config=backbone,
        hidden_size=16,
        pool_scales=[1, 2],
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        num_labels=labels,
    )


def _vit(kind: type[Any], labels: int) -> Any:
    return kind(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        out_indices=[1, 2, 3, 4],
        pool_scales=[1, 2],
        use_auxiliary_head=False,
        num_labels=labels,
    )


def _dpt(labels: int) -> Any:
    return transformers.DPTConfig(  # type: ignore[call-arg]
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        num_labels=labels,
    )


def _mobilevit(labels: int) -> Any:
    return transformers.MobileViTConfig(  # type: ignore[call-arg]
        image_size=64,
        hidden_sizes=[8, 12, 16],
        neck_hidden_sizes=[4, 8, 8, 12, 12, 16, 16],
        num_attention_heads=2,
        aspp_out_channels=16,
        num_labels=labels,
    )


def _mobilevitv2(labels: int) -> Any:
    return transformers.MobileViTV2Config(  # type: ignore[call-arg]
        image_size=64,
        width_multiplier=0.25,
        base_attn_unit_dims=[16, 16, 16],
        n_attn_blocks=[1, 1, 1],
        aspp_out_channels=16,
        num_labels=labels,
    )


def _mobilenet(labels: int) -> Any:
    return transformers.MobileNetV2Config(  # type: ignore[call-arg]
        image_size=64, depth_multiplier=0.25, depth_divisible_by=4, min_depth=4, num_labels=labels
    )


_FIXED = {"size": {"height": 32, "width": 32}, "do_center_crop": False, "do_resize": True}
_CROPPED = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
BUILDS: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "segformer": (
        _segformer,
        {
            "image_processor_type": "SegformerImageProcessor",
            "size": {"height": 64, "width": 96},
        },
    ),
    "upernet": (
        _upernet,
        {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 64}},
    ),
    "beit": (
        lambda labels: _vit(transformers.BeitConfig, labels),
        {"image_processor_type": "BeitImageProcessor", **_FIXED},
    ),
    "data2vec-vision": (
        lambda labels: _vit(transformers.Data2VecVisionConfig, labels),
        {"image_processor_type": "BeitImageProcessor", **_FIXED},
    ),
    "dpt": (
        _dpt,
        {"image_processor_type": "DPTImageProcessor", "size": {"height": 32, "width": 32}},
    ),
    "mobilenet_v2": (_mobilenet, {"image_processor_type": "MobileNetV2ImageProcessor", **_CROPPED}),
    "mobilevit": (_mobilevit, {"image_processor_type": "MobileViTImageProcessor", **_CROPPED}),
    "mobilevitv2": (_mobilevitv2, {"image_processor_type": "MobileViTImageProcessor", **_CROPPED}),
}
