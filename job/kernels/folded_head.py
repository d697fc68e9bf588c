"""SegFormer with its decode head folded: the same logits from less than half the arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

_PROBE = (96, 64)  # pixels: every stage has at least 2 x 3 of them, and height is not width


class CannotFoldError(ValueError):
    """A model's decode head is not the one that folds; the message says what differs."""


class FoldedHead(nn.Module):
    """SegFormer's decode head with one matrix per encoder stage.

    The stock head projects each stage (linear), upsamples it to the first stage's resolution,
    concatenates the stages in reverse, mixes them (1×1 convolution without bias), and applies
    batch normalisation. All but the upsampling act on channels, the upsampling on space, and its
    weights add up to one: so projection, the stage's slice of the mix and the normalisation are
    one matrix, applied at the stage's own resolution. Exact in real arithmetic.

    Source of the head: Xie et al. 2021, SegFormer, https://arxiv.org/abs/2105.15203, section 3.2.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        stages = len(head.linear_projections)
        width = head.linear_fuse.out_channels
        norm = head.batch_norm
        scale = (norm.running_var.double() + norm.eps).rsqrt() * norm.weight.double()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        fuse = head.linear_fuse.weight.detach().double()[:, :, 0, 0]
        self.projections = nn.ModuleList()
        for stage, linear in enumerate(head.linear_projections):
            position = stages - 1 - stage  # the stages are concatenated last one first
            mix = scale[:, None] * fuse[:, position * width : (position + 1) * width]
            weight = mix @ linear.proj.weight.detach().double()
            shift = shift + mix @ linear.proj.bias.detach().double()
            projection = nn.Conv2d(weight.shape[1], width, 1, bias=stage == 0)
            projection.weight = _frozen(weight[:, :, None, None], like=linear.proj.weight)
            self.projections.append(projection)
        # Upsampling leaves a constant as it is, so one bias serves all stages.
        self.projections[0].bias = _frozen(shift, like=norm.bias)
        self.classifier = copy.deepcopy(head.classifier).requires_grad_(False)

    def forward(self, hidden_states: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, classes, H/4, W/4) from the stages' (B, C_i, H_i, W_i) features."""
        first, *others = zip(self.projections, hidden_states, strict=True)
        mixed = first[0](first[1])
        for projection, features in others:
            mixed = mixed + F.interpolate(
                projection(features), size=mixed.shape[2:], mode="bilinear", align_corners=False
            )
        return self.classifier(F.relu_(mixed))


class FoldedSegformer(nn.Module):
    """A SegFormer for inference: the encoder as it is, the decode head folded."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.stages = model.segformer.stages
        self.head = FoldedHead(model.decode_head)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, H/4, W/4) of normalised images (B, 3, H, W)."""
        features: list[torch.Tensor] = []
        for stage in self.stages:
            pixel_values = stage(pixel_values)
            features.append(pixel_values)
        return self.head(features)


@torch.no_grad()
def fold(model: Any, *, tolerance: float = 1e-4) -> FoldedSegformer:
    """Return `model` with its decode head folded, sharing the encoder's weights.

    Args:
        model: a transformers ``SegformerForSemanticSegmentation`` in evaluation mode.
        tolerance: the largest difference to the stock logits on a probe image that is accepted,
            as a share of their largest magnitude. Float32 rounding is about 1e-6.

    Raises:
        CannotFoldError: the model is no SegFormer, its head has other parts than the published
            one, it is in training mode, or the folded logits differ from the stock ones.
    """
    _check_foldable(model)
    folded = FoldedSegformer(model).eval()
    weight = model.decode_head.classifier.weight
    random = torch.Generator().manual_seed(0)
    probe = torch.randn(2, model.config.num_channels, *_PROBE, generator=random)
    probe = probe.to(weight.device, weight.dtype)
    stock = model(pixel_values=probe).logits.double()
    difference = float((folded(probe).double() - stock).abs().max() / stock.abs().max())
    if not difference <= tolerance:
        raise CannotFoldError(
            f"the folded head differs from the stock one by {difference:.1e} of the largest logit, "
            f"more than {tolerance:.1e}; run the model unfolded"
        )
    return folded


def _frozen(value: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.device, like.dtype), requires_grad=False)


def _check_foldable(model: Any) -> None:
    from transformers import SegformerForSemanticSegmentation

    if not isinstance(model, SegformerForSemanticSegmentation):
        raise CannotFoldError(
            f"{type(model).__name__} is not a SegformerForSemanticSegmentation; run it unfolded"
        )
    reason = _obstacle(model.decode_head)
    if model.training:
        reason = "it is in training mode"
    elif not model.config.reshape_last_stage:
        reason = "its last stage is not reshaped to an image"
    if reason:
        raise CannotFoldError(f"the decode head does not fold: {reason}; run the model unfolded")


def _obstacle(head: Any) -> str | None:
    """Say what in a decode head does not fold, if anything."""
    if not isinstance(head.batch_norm, nn.BatchNorm2d):
        return "its normalisation is no BatchNorm2d"
    if head.batch_norm.running_mean is None or not head.batch_norm.affine:
        return "its batch norm has no running statistics, or no weights"
    if not isinstance(head.activation, nn.ReLU):
        return "its activation is not ReLU"
    if head.linear_fuse.kernel_size != (1, 1) or head.linear_fuse.bias is not None:
        return "its fusion is not a 1 by 1 convolution without bias"
    return None
