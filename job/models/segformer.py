"""SegFormer for inference: the same logits from less than half the arithmetic, channels last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers.activations import GELUActivation

from job.errors import CannotFoldError
from job.models import segformer_numba as one_core

_PROBE = (96, 64)  # pixels: every stage has at least 2 x 3 of them, and height is not width
# Matrix products are twice as fast when this divides the columns of the result: 160, not 150.
_MULTIPLE = 16
_QUERIES = 2048  # at a time: their scores stay in a core's cache
_BAND = 1024  # pixels at a time, likewise: the head's widest features


class FoldedSegformer(nn.Module):
    """A SegFormer whose decode head is folded and whose features stay (B, H, W, C) throughout.

    Linear layers, normalisations and 1×1 convolutions want channels last, and convolutions take
    them as well: nothing is transposed on the way. The encoder shares the stock model's weights.

    Source: Xie et al. 2021, SegFormer, https://arxiv.org/abs/2105.15203, sections 3.1 and 3.2.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.stages = nn.ModuleList(_Stage(stage) for stage in model.segformer.stages)
        self.head = FoldedHead(model.decode_head)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, H/4, W/4) of normalised images (B, 3, H, W)."""
        dtype = self.head.classifier.weight.dtype
        features = pixel_values.to(dtype, memory_format=torch.channels_last).permute(0, 2, 3, 1)
        pyramid = []
        for stage in self.stages:
            features = stage(features)
            pyramid.append(features)
        return self.head(pyramid)


class _Stage(nn.Module):
    """Overlapping patches of what came before, blocks over them, a normalisation."""

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.patches = stage.patch_embeddings.proj
        self.patch_norm = stage.patch_embeddings.layer_norm
        self.blocks = nn.ModuleList(_Block(block) for block in stage.blocks)
        self.norm = stage.layer_norm

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = _normed(_convolved(self.patches, features), self.patch_norm)
        for block in self.blocks:
            features = block(features)
        return _normed(features, self.norm)


class _Block(nn.Module):
    """Attention to a coarser grid of keys and values, then the Mix-FFN, each added to its input."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention, ffn = block.attention, block.mlp
        self.norm_before, self.norm_after = block.layernorm_before, block.layernorm_after
        self.heads = attention.num_attention_heads
        self.query, self.key, self.value = attention.q_proj, attention.k_proj, attention.v_proj
        self.out = attention.o_proj
        reduction = getattr(attention, "sequence_reduction", None)
        self.reduction = reduction.sequence_reduction if reduction else nn.Identity()
        self.reduction_norm = reduction.layer_norm if reduction else nn.Identity()
        self.expand, self.depthwise = ffn.fc1, ffn.dwconv.dwconv
        self.activation, self.contract = ffn.activation_fn, ffn.fc2
        self.is_gelu = isinstance(ffn.activation_fn, GELUActivation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = features + self._attended(_normed(features, self.norm_before))
        return features + self.contract(self._mixed(_normed(features, self.norm_after)))

    def _mixed(self, features: torch.Tensor) -> torch.Tensor:
        if self.is_gelu and one_core.fits(features):
            expanded = F.linear(features, self.expand.weight)
            return one_core.depthwise_gelu(expanded, self.expand.bias, self.depthwise)
        mixed: torch.Tensor = self.activation(_convolved(self.depthwise, self.expand(features)))
        return mixed

    def _attended(self, features: torch.Tensor) -> torch.Tensor:
        coarse = _normed(_convolved(self.reduction, features), self.reduction_norm)
        query, key, value = (
            layer(of).flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, of in ((self.query, features), (self.key, coarse), (self.value, coarse))
        )
        return self.out(attend(query, key, value).transpose(1, 2).reshape(features.shape))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Do what :func:`attend_reference` does, rounded to the dtype of the queries on the way.

    On CPUs torch's own kernel is no faster in bfloat16 than in float32; plain matrix products are.
    """
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(query, key, value)
    scale, across = query.shape[-1] ** -0.5, key.transpose(2, 3)
    if one_core.fits(query):
        parts = [
            one_core.softmax_(part @ across, scale) @ value for part in query.split(_QUERIES, 2)
        ]
    else:
        parts = [(part @ across).softmax(-1) @ value for part in (query * scale).split(_QUERIES, 2)]
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def attend_reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Softmax attention, plainly: softmax(QKᵀ / √C) V, in float64.

    Args:
        query: (B, heads, queries, C).
        key: (B, heads, keys, C).
        value: (B, heads, keys, C).

    Returns:
        (B, heads, queries, C) float64.
    """
    scores = query.double() @ key.double().transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ value.double()


def _normed(features: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    if isinstance(norm, nn.LayerNorm) and one_core.fits(features):
        return one_core.layer_norm(features, norm)
    normed: torch.Tensor = norm(features)
    return normed


def _convolved(convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """A convolution of (B, H, W, C) features, which is how memory holds a channels-last tensor."""
    convolved: torch.Tensor = convolution(features.permute(0, 3, 1, 2))
    return convolved.permute(0, 2, 3, 1).contiguous()


class FoldedHead(nn.Module):
    """SegFormer's decode head with one matrix per encoder stage, and one for upsampling.

    The stock head projects each stage (linear), upsamples it to the first stage's resolution,
    concatenates the stages in reverse, mixes them (1×1 convolution without bias), and applies
    batch normalisation. All but the upsampling act on channels, the upsampling on space, and its
    weights add up to one: so projection, the stage's slice of the mix and the normalisation are
    one matrix, applied at the stage's own resolution. Upsampling is linear along each axis: a
    matrix for the columns of every stage, and one for the rows of all stages together, which
    adds them up as well. Exact in real arithmetic.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        stages = len(head.linear_projections)
        width = head.linear_fuse.out_channels
        norm = head.batch_norm
        scale = (norm.running_var.double() + norm.eps).rsqrt() * norm.weight.double()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        fuse = head.linear_fuse.weight.detach().double()[:, :, 0, 0]
        projections = []
        for stage, linear in enumerate(head.linear_projections):
            position = stages - 1 - stage  # the stages are concatenated last one first
            mix = scale[:, None] * fuse[:, position * width : (position + 1) * width]
            weight = mix @ linear.proj.weight.detach().double()
            shift = shift + mix @ linear.proj.bias.detach().double()
            projections.append(_linear(weight, None, like=linear.proj.weight))
        # Upsampling leaves a constant as it is, so one bias serves all stages: the coarsest has
        # the fewest pixels to add it to.
        projections[-1].bias = _frozen(shift, like=norm.bias)
        self.finest, self.coarser = projections[0], nn.ModuleList(projections[1:])
        self.classes = head.classifier.out_channels
        spare = -self.classes % _MULTIPLE
        self.classifier = _linear(
            F.pad(head.classifier.weight.detach()[:, :, 0, 0], (0, 0, 0, spare)),
            F.pad(head.classifier.bias.detach(), (0, spare)),
            like=head.classifier.weight,
        )
        self._upsamplings: dict[Any, tuple[list[torch.Tensor], torch.Tensor]] = {}

    def forward(self, pyramid: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, classes, H, W) from the stages' (B, H_i, W_i, C_i) features."""
        first, *rest = pyramid
        others = [layer(features) for layer, features in zip(self.coarser, rest, strict=True)]
        if one_core.fits(first):
            scores = self._in_bands(first, others)
        else:
            scores = self._at_once(self.finest(first), others)
        return scores[..., : self.classes].permute(0, 3, 1, 2)

    def _in_bands(self, first: torch.Tensor, others: Sequence[torch.Tensor]) -> torch.Tensor:
        """A few rows at a time, which stay in a core's cache from projection to classifier."""
        images, rows, columns, channels = first.shape
        projection, classifier = self.finest.weight, self.classifier
        scores = first.new_empty(images, rows, columns, classifier.out_features)
        band = max(1, _BAND // columns)
        for image in range(images):
            upsampling = one_core.Upsampling([stage[image] for stage in others], rows, columns)
            for start in range(0, rows, band):
                part = first[image, start : start + band].reshape(-1, channels)
                mixed = torch.mm(part, projection.T)
                upsampling.add_relu_(mixed.view(-1, columns, projection.shape[0]), start)
                out = scores[image, start : start + band].view(-1, classifier.out_features)
                torch.addmm(classifier.bias, mixed, classifier.weight.T, out=out)
        return scores

    def _at_once(self, first: torch.Tensor, others: Sequence[torch.Tensor]) -> torch.Tensor:
        images, rows, columns, width = first.shape
        along_columns, along_rows = self._upsampling(first, others)
        stretched = [
            torch.matmul(matrix, coarse).reshape(images, coarse.shape[1], columns * width)
            for matrix, coarse in zip(along_columns, others, strict=True)
        ]
        # In place: the largest tensors there are would cost as much to allocate as to compute.
        mixed = first.reshape(images, rows, columns * width)
        mixed.baddbmm_(along_rows.expand(images, -1, -1), torch.cat(stretched, 1)).relu_()
        scores: torch.Tensor = self.classifier(mixed.reshape(images, rows, columns, width))
        return scores

    def _upsampling(
        self, first: torch.Tensor, others: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """For each stage a matrix (W, W_i); for all together one of (1, H, sum of H_i)."""
        _, rows, columns, _ = first.shape
        sizes = [tuple(coarse.shape[1:3]) for coarse in others]
        key = (rows, columns, *sizes, first.dtype, first.device)
        if key not in self._upsamplings:
            along_rows = [_upsampling_matrix(height, rows, first) for height, _ in sizes]
            self._upsamplings[key] = (
                [_upsampling_matrix(width, columns, first) for _, width in sizes],
                torch.cat(along_rows, 1)[None],
            )
        return self._upsamplings[key]


@torch.inference_mode(False)
def _upsampling_matrix(coarse: int, fine: int, like: torch.Tensor) -> torch.Tensor:
    """(fine, coarse): the weights of torch's linear interpolation along one axis."""
    exact = torch.float64 if like.dtype == torch.float64 else torch.float32
    each = torch.eye(coarse, dtype=exact)[None]
    weights = F.interpolate(each, size=fine, mode="linear", align_corners=False)[0].T
    return weights.contiguous().to(like.device, like.dtype)


@torch.no_grad()
def fold(model: Any, *, tolerance: float = 1e-4) -> FoldedSegformer:
    """Return `model` with its decode head folded, sharing the encoder's weights.

    Args:
        model: a transformers ``SegformerForSemanticSegmentation`` in evaluation mode.
        tolerance: the largest difference to the stock logits on a probe image that is accepted,
            as a share of their largest magnitude. Float32 rounding is about 1e-6.

    Raises:
        CannotFoldError: the model is no SegFormer, its head has other parts than the published
            one, it is in training mode, folding it fails in any other way, or the folded logits
            differ from the stock ones.
    """
    try:
        _check_foldable(model)
        folded = FoldedSegformer(model).eval()
        difference = _difference(model, folded)
    except CannotFoldError:
        raise
    except Exception as error:  # whatever a head of other parts runs into, it runs unfolded
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CannotFoldError(f"folding it fails ({reason}); run the model unfolded") from error
    if not difference <= tolerance:
        raise CannotFoldError(
            f"the folded head differs from the stock one by {difference:.1e} of the largest logit, "
            f"more than {tolerance:.1e}; run the model unfolded"
        )
    return folded


def _difference(model: Any, folded: FoldedSegformer) -> float:
    """How far logits of a probe image are apart, as a share of the largest."""
    weight = model.decode_head.classifier.weight
    random = torch.Generator().manual_seed(0)
    probe = torch.randn(2, model.config.num_channels, *_PROBE, generator=random)
    probe = probe.to(weight.device, weight.dtype)
    stock = model(pixel_values=probe).logits.double()
    return float((folded(probe).double() - stock).abs().max() / stock.abs().max())


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, like: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = _frozen(weight, like)
    if bias is not None:
        layer.bias = _frozen(bias, like)
    return layer


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
