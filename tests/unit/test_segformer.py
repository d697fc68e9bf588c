"""The folded decode head: the stock head's logits, or a reason why a model does not fold."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
)

from job.errors import CannotFoldError
from job.models.segformer import attend, attend_reference, fold


def small_segformer(**changes: Any) -> SegformerForSemanticSegmentation:
    """A small SegFormer whose every parameter and running statistic matters."""
    config: dict[str, Any] = {
        "depths": [1, 2, 1, 1],
        "hidden_sizes": [8, 16, 20, 24],
        "num_attention_heads": [1, 2, 2, 3],
        "decoder_hidden_size": 28,
        "num_labels": 11,
    }
    model = SegformerForSemanticSegmentation(SegformerConfig(**(config | changes))).eval()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=random) * 0.3)
    return model


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """CPU threads of torch: with one, kernels of our own stand in for some of its."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 64), (3, 3, 96, 32), (2, 3, 33, 47), (1, 3, 37, 130), (1, 3, 32, 32)]
)
@torch.inference_mode()
def test_the_folded_model_gives_the_stock_logits(
    shape: tuple[int, ...], activation: str, threads: int
) -> None:
    model = small_segformer(hidden_act=activation)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    stock, folded = model(pixel_values=images).logits, fold(model)(images)
    assert folded.shape == stock.shape
    assert float((folded - stock).abs().max() / stock.abs().max()) < 1e-5


@torch.inference_mode()
def test_bfloat16_moves_the_logits_by_its_own_rounding(threads: int) -> None:
    model = small_segformer()
    images = torch.randn(2, 3, 61, 96, generator=torch.Generator().manual_seed(4))
    exact = fold(model)(images)
    rounded = fold(model).to(torch.bfloat16)(images)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).abs().max() / exact.abs().max()) < 0.03


# Of the published sizes, at 512 x 512: heads, queries, keys and channels of a head. Then odd ones.
ATTENTIONS = [
    (1, 1, 16_384, 256, 32),
    (1, 5, 1_024, 256, 64),
    (2, 8, 256, 256, 32),
    (3, 2, 2_049, 35, 32),
    (1, 1, 1, 1, 8),
]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-6), (torch.bfloat16, 0.02), (torch.float16, 0.003)],
    ids=["float32", "bfloat16", "float16"],
)
@pytest.mark.parametrize("sizes", ATTENTIONS)
@torch.inference_mode()
def test_attention_is_that_of_the_reference(
    sizes: tuple[int, ...], dtype: torch.dtype, tolerance: float, threads: int
) -> None:
    images, heads, queries, keys, channels = sizes
    random = torch.Generator().manual_seed(6)
    query, key, value = (
        torch.randn(images, rows, heads, channels, generator=random).to(dtype).transpose(1, 2)
        for rows in (queries, keys, keys)
    )
    found, exact = attend(query, key, value), attend_reference(query, key, value)
    assert found.dtype == dtype
    assert found.shape == exact.shape == query.shape
    assert float((found.double() - exact).abs().max() / exact.abs().max()) < tolerance


@torch.inference_mode()
def test_folding_is_exact_but_for_rounding() -> None:
    model = small_segformer().double()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(5)).double()
    torch.testing.assert_close(
        fold(model, tolerance=1e-12)(images),
        model(pixel_values=images).logits,
        rtol=1e-11,
        atol=1e-11,
    )


@torch.inference_mode()
def test_folding_halves_the_arithmetic_of_segformer_b0() -> None:
    config = SegformerConfig(num_labels=150)  # type: ignore[call-arg]  # its parent's
    model = SegformerForSemanticSegmentation(config).eval()
    counted = []
    for network in (model, fold(model)):
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 128, 128))
        counted.append(counter.get_total_flops())
    assert counted[1] < counted[0] / 2


def test_folding_leaves_the_model_as_it_was_and_shares_its_encoder() -> None:
    model = small_segformer()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    encoder = {id(parameter) for parameter in model.segformer.parameters()}
    assert encoder < {id(parameter) for parameter in folded.parameters()}
    assert not folded.training
    # Outside inference mode, too: the folded weights are ordinary parameters.
    assert folded(torch.randn(1, 3, 32, 32)).shape == (1, 11, 8, 8)


def with_batch_norm(norm: nn.Module) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.decode_head.batch_norm = norm

    return change


def with_gelu(model: Any) -> None:
    model.decode_head.activation = nn.GELU()


def with_wide_fusion(model: Any) -> None:
    model.decode_head.linear_fuse = nn.Conv2d(112, 28, 3, padding=1, bias=False)


def with_fusion_bias(model: Any) -> None:
    model.decode_head.linear_fuse = nn.Conv2d(112, 28, 1)


def with_something_added(model: Any) -> None:
    model.decode_head.register_forward_hook(lambda module, inputs, logits: logits + 1)


def with_weights_that_are_no_numbers(model: Any) -> None:
    model.decode_head.classifier.weight.data.fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_batch_norm(nn.Identity()), "no BatchNorm2d"),
        (with_batch_norm(nn.BatchNorm2d(28, track_running_stats=False)), "no running statistics"),
        (with_batch_norm(nn.BatchNorm2d(28, affine=False)), "no weights"),
        (with_gelu, "not ReLU"),
        (with_wide_fusion, "not a 1 by 1"),
        (with_fusion_bias, "without bias"),
        (lambda model: model.train(), "training mode"),
        (with_something_added, "differs from the stock one"),
        (with_weights_that_are_no_numbers, "differs from the stock one"),
    ],
)
def test_a_head_that_is_not_the_published_one_is_refused(
    change: Callable[[Any], None], reason: str
) -> None:
    model = small_segformer()
    change(model)
    with pytest.raises(CannotFoldError, match=reason):
        fold(model)


def test_other_models_are_refused() -> None:
    with pytest.raises(CannotFoldError, match="Linear is not a Segformer"):
        fold(nn.Linear(2, 2))
    with pytest.raises(CannotFoldError, match="SegformerForImageClassification is not"):
        fold(SegformerForImageClassification(small_segformer().config))
    with pytest.raises(CannotFoldError, match="not reshaped"):
        fold(small_segformer(reshape_last_stage=False))
