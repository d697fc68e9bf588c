"""Forward: a model run in each precision, compiled or not, near enough to the stock one."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from job.models.checkpoint import Checkpoint
from job.models.forward import Precision, fast, stock
from job.models.loading import load_model

SHAPE = (1, 3, 96, 96)


@pytest.fixture(scope="module")
def model(model_dir: Path) -> torch.nn.Module:
    return load_model(Checkpoint.from_directory(model_dir))[0].eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.argmax(1) == other.argmax(1)).float().mean())


@pytest.mark.parametrize(
    ("precision", "share"), [("float32", 1.0), ("bfloat16", 0.95), ("float16", 0.99)]
)
@torch.inference_mode()
def test_every_precision_gives_almost_the_same_classes(
    model: torch.nn.Module, pixels: torch.Tensor, precision: Precision, share: float
) -> None:
    forward = fast(model, precision)
    scores = forward.scores(pixels)
    expected = stock(model).scores(pixels)
    assert scores.shape == expected.shape
    assert scores.dtype == getattr(torch, precision)
    assert agreement(scores, expected) >= share
    assert forward.notes == ()
    assert forward.uncompiled is None


@torch.inference_mode()
def test_half_precision_leaves_the_model_as_it_was(
    model: torch.nn.Module, pixels: torch.Tensor
) -> None:
    before = stock(model).scores(pixels)
    fast(model, "bfloat16").scores(pixels)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(stock(model).scores(pixels), before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_a_model_that_does_not_fold_runs_as_it_is_and_says_so(
    model_dir: Path, pixels: torch.Tensor, precision: Precision
) -> None:
    model = load_model(Checkpoint.from_directory(model_dir))[0].eval()
    model.decode_head.activation = torch.nn.GELU()
    forward = fast(model, precision)
    assert "runs unfolded" in forward.notes[0]
    assert "not ReLU" in forward.notes[0]
    assert agreement(forward.scores(pixels), stock(model).scores(pixels)) >= 0.95


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_whatever_folding_runs_into_the_model_runs_as_it_is(
    model_dir: Path, pixels: torch.Tensor, precision: Precision
) -> None:
    def wrapped(model: Any) -> None:
        model.decode_head.classifier = torch.nn.Sequential(model.decode_head.classifier)

    def renamed(model: Any) -> None:
        del model.decode_head.activation

    def raising(model: Any) -> None:
        def refuse(module: Any, inputs: Any) -> None:
            if inputs[0].shape[0] == 2:  # the probe's pictures
                raise TypeError("pictures come one by one")

        model.segformer.register_forward_pre_hook(refuse)

    for change in (wrapped, raising):
        model = load_model(Checkpoint.from_directory(model_dir))[0].eval()
        change(model)
        forward = fast(model, precision)
        assert "runs unfolded: folding it fails" in forward.notes[0]
        assert agreement(forward.scores(pixels), stock(model).scores(pixels)) >= 0.95
    model = load_model(Checkpoint.from_directory(model_dir))[0].eval()
    renamed(model)
    assert "runs unfolded: folding it fails" in fast(model, precision).notes[0]


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@torch.inference_mode()
def test_compiled_code_gives_the_same_classes(model: torch.nn.Module, pixels: torch.Tensor) -> None:
    forward = fast(model, compiled_for=SHAPE)
    assert forward.notes == ()
    assert forward.uncompiled is not None, "for what is no full batch"
    assert agreement(forward.scores(pixels), stock(model).scores(pixels)) >= 0.999


@torch.inference_mode()
def test_without_a_compiler_it_runs_uncompiled_and_says_so(
    model: torch.nn.Module, pixels: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    forward = fast(model, compiled_for=SHAPE)
    assert forward.notes == ("not compiled: there is no C++ compiler on this worker",)
    assert forward.uncompiled is None
    assert agreement(forward.scores(pixels), stock(model).scores(pixels)) >= 0.999
