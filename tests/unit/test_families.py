"""Families: each gives the maps of plain transformers, however saved; others are named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    SegformerForSemanticSegmentation,
)

from job import Checkpoint, SemanticSegmentationPredictor, predict_sequential
from job.errors import ModelError
from job.models.families import FAMILIES, Family
from job.models.forward import fast, stock
from job.models.info import ModelInfo
from job.models.loading import load_model
from job.models.processors import load_image_processor
from job.outputs.palette import palette
from tests.conftest import make_model, picture
from tests.tiny_models import BUILDS

SIZES = [(64, 64), (33, 80), (90, 41)]


# Every family with as many classes as its kernels and heads tell apart; the types of weights and
# the counts of classes between them.
TABLE = [
    ("segformer", "float32", 1),
    ("segformer", "float16", 2),
    ("segformer", "bfloat16", 19),
    ("segformer", "bfloat16", 150),
    ("segformer", "float32", 300),
    ("segformer", "bfloat16", 1),
    ("upernet", "bfloat16", 19),
    ("upernet", "float32", 1),
    ("beit", "float16", 150),
    ("beit", "bfloat16", 1),
    ("data2vec-vision", "bfloat16", 300),
    ("data2vec-vision", "float32", 2),
    ("dpt", "bfloat16", 150),
    ("dpt", "float16", 1),
    ("mobilenet_v2", "bfloat16", 19),
    ("mobilenet_v2", "float16", 150),
    ("mobilevit", "float16", 19),
    ("mobilevit", "bfloat16", 1),
    ("mobilevitv2", "bfloat16", 2),
    ("mobilevitv2", "float32", 300),
    ("mobilevitv2", "float16", 1),
]


def save_tiny(directory: Path, family: str, dtype: str, classes: int) -> Path:
    """A tiny random model of a family, its weights in a type, whose maps have structure."""
    build, settings = BUILDS[family]
    torch.manual_seed(classes)
    model = AutoModelForSemanticSegmentation.from_config(build(classes), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                parameter.normal_(0, 1.2 * parameter[0].numel() ** -0.5)
    model.eval()
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    model.config.save_pretrained(directory)
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    shown = [Image.fromarray(picture(seed, *SIZES[0])) for seed in range(3)]
    inputs = processor(images=shown, return_tensors="pt")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(**inputs)  # else features of deep networks fade away
        model.eval()
        typical = model(**inputs).logits.median(3).values.median(2).values[0]
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.shape == (classes,) and "auxiliary" not in name:
                parameter.sub_(typical)  # of the head: no class wins everywhere
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    return directory


def plain_transformers(directory: Path, images: list[Image.Image]) -> list[np.ndarray]:
    """The maps of transformers alone, in float32, as its documentation has it."""
    model = AutoModelForSemanticSegmentation.from_pretrained(directory, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    maps = []
    for image in images:
        with torch.no_grad():
            outputs = model(**processor(images=[image], return_tensors="pt"))
        size = (image.height, image.width)
        if model.config.num_labels == 1:
            logits = F.interpolate(outputs.logits, size=size, mode="bilinear", align_corners=False)
            maps.append((logits.sigmoid() > 0.5)[0, 0].long().numpy())
        else:
            segmented = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
            maps.append(segmented[0].numpy())
    return maps


def differing(directory: Path, *, reference: bool, images: list[Image.Image]) -> tuple[int, int]:
    """Pixels that differ from plain transformers, and how many classes its maps have."""
    predictor = SemanticSegmentationPredictor.from_checkpoint(
        Checkpoint.from_model(str(directory)), reference=reference, images_at_once=4, threads=1
    )
    column = np.empty(len(images), object)
    column[:] = [np.asarray(image) for image in images]
    found = predictor.predict({"image": column})
    assert list(found["error"]) == [None] * len(images)
    expected = plain_transformers(directory, images)
    pairs = zip(found["map"], expected, strict=True)
    several = len(np.unique(np.concatenate([ids.ravel() for ids in expected])))
    return sum(int((one != other).sum()) for one, other in pairs), several


@pytest.mark.parametrize(("family", "dtype", "classes"), TABLE)
def test_every_family_gives_the_maps_of_plain_transformers(
    tmp_path: Path, family: str, dtype: str, classes: int
) -> None:
    directory = save_tiny(tmp_path, family, dtype, classes)
    images = [Image.fromarray(picture(seed, *size)) for seed, size in enumerate(SIZES)]
    exact, several = differing(directory, reference=True, images=images)
    assert exact == 0
    assert several > 1, "a map of one class proves nothing"
    fast, _ = differing(directory, reference=False, images=images)
    assert fast <= 2, "more than float rounding"
    model, processor = load_model(Checkpoint.from_directory(directory))
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    for one, other in zip(
        predict_sequential(images, model, processor),
        plain_transformers(directory, images),
        strict=True,
    ):
        assert np.array_equal(one, other)


def test_the_table_has_every_family_type_and_count_of_classes() -> None:
    families, dtypes, counts = (set(column) for column in zip(*TABLE, strict=True))
    assert families == set(FAMILIES) == set(BUILDS)
    assert dtypes == {"float32", "float16", "bfloat16"}
    assert counts == {1, 2, 19, 150, 300}


def test_the_registry_is_read_without_torch_and_transformers() -> None:
    script = "import sys, job.models.families; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@torch.inference_mode()
def test_an_entry_is_all_that_says_how_a_model_is_loaded_and_run(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a family would be whose class scores are not its ``logits``."""
    shutil.copytree(model_dir, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    changed(config, architectures=["SegformerForUniversalSegmentation"])
    entry = Family(
        "Queries",
        head="ForUniversalSegmentation",
        model_class=lambda: SegformerForSemanticSegmentation,
        scores=lambda output: -output.logits,
    )
    monkeypatch.setitem(FAMILIES, "segformer", entry)
    model, _ = load_model(Checkpoint.from_directory(tmp_path / "model"))
    pixels = torch.randn((1, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    expected = -model.eval()(pixel_values=pixels).logits
    assert torch.equal(stock(model).scores(pixels), expected)
    unfolded = fast(model)
    assert unfolded.notes == (
        "the model runs unfolded: the family of SegformerForSemanticSegmentation has no fast path",
    )
    torch.testing.assert_close(unfolded.scores(pixels), expected)


# One class


def test_a_model_of_one_class_has_names_and_colours_for_both_values_of_its_maps(
    tmp_path: Path,
) -> None:
    directory = make_model(tmp_path, labels=("road ",))
    card = ModelInfo.of(Checkpoint.from_model(str(directory)))
    assert card.labels == ("background", "road")
    assert len({tuple(colour) for colour in palette(card.labels).tolist()}) == 2


# What else a folder may hold


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    """A model's directory that a test may change."""
    return shutil.copytree(model_dir, tmp_path / "model")


def changed(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refusals(folder: Path) -> set[str]:
    """What is said of a folder, however it is opened: by a path, a URI, on a worker."""
    said = set()
    for use in (
        lambda: ModelInfo.of(Checkpoint.from_model(str(folder))),
        lambda: ModelInfo.of(Checkpoint.from_model(f"file://{folder}")),
        lambda: load_model(Checkpoint.from_directory(folder)),
    ):
        with pytest.raises(ModelError) as refused:
            use()
        assert refused.value.exit_code == 4
        assert "\n" not in str(refused.value)
        said.add(str(refused.value))
    return said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model_type": None}, "no model_type"),
        ({"model_type": "ultralytics"}, "transformers has no model_type 'ultralytics'"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}, "code of its own"),
        ({"architectures": None}, "names no architectures"),
        *(
            ({"model_type": kind, "architectures": [name]}, f"{name} ({task}")
            for kind, name, task in (
                ("mask2former", "Mask2FormerForUniversalSegmentation", "universal segmentation"),
                ("oneformer", "OneFormerForUniversalSegmentation", "universal segmentation"),
                ("eomt", "EomtForUniversalSegmentation", "universal segmentation"),
                ("maskformer", "MaskFormerForInstanceSegmentation", "instance segmentation"),
                ("detr", "DetrForSegmentation", "panoptic segmentation"),
                ("sam", "SamModel", "features or masks"),
                ("clipseg", "CLIPSegForImageSegmentation", "segmentation of what a text"),
                ("dpt", "DPTForDepthEstimation", "depth estimation"),
                ("glpn", "GLPNForDepthEstimation", "depth estimation"),
                ("vit", "ViTForImageClassification", "image classification"),
                ("detr", "DetrForObjectDetection", "object detection"),
                ("bert", "BertModel", "features"),
            )
        ),
        (
            {"model_type": "sapiens2", "architectures": ["Sapiens2ForSemanticSegmentation"]},
            "the family of Sapiens2ForSemanticSegmentation is not among them",
        ),
    ],
    ids=str,
)
def test_other_models_are_called_what_they_are_with_what_works(
    folder: Path, settings: dict[str, Any], says: str
) -> None:
    changed(folder / "config.json", **settings)
    for said in refusals(folder):
        assert says in said
        assert "SegFormer, UperNet, BEiT, Data2VecVision, DPT, MobileNetV2" in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model_index.json", "a pipeline of diffusers"),
        ("adapter_config.json", "a peft adapter"),
        ("adapter_model.safetensors", "a peft adapter"),
    ],
)
def test_a_pipeline_and_an_adapter_beside_the_weights_are_refused(
    folder: Path, name: str, says: str
) -> None:
    (folder / name).write_text("{}")
    assert all(says in said for said in refusals(folder))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model-q4.gguf", "GGUF weights"),
        ("model.onnx", "ONNX weights"),
        ("tf_model.h5", "Keras weights"),
        ("flax_model.msgpack", "Flax weights"),
        ("pytorch_model.bin", "pickled weights"),
    ],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with its config"])
def test_weights_of_other_formats_are_named(
    folder: Path, name: str, says: str, alone: bool
) -> None:
    for path in folder.iterdir():
        if alone or path.suffix == ".safetensors":
            path.unlink()
    (folder / name).write_bytes(b"weights")
    for said in refusals(folder):
        assert f"no .safetensors weights, only {says}" in said
        assert name in said


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "(bitsandbytes)"),
        ({"bits": 4}, "(quantization_config in config.json)"),
        ("gptq", "(quantization_config in config.json)"),
    ],
)
def test_quantised_weights_are_refused_by_name(folder: Path, how: Any, says: str) -> None:
    changed(folder / "config.json", quantization_config=how)
    assert all(f"has quantised weights {says}" in said for said in refusals(folder))
    changed(folder / "config.json", quantization_config=None)
    assert load_model(Checkpoint.from_directory(folder))


@pytest.mark.parametrize(
    "names",
    [{"0": "a", "2": "c", "3": "d", "4": "e", "7": "h"}, {str(n): "x" for n in range(1, 6)}],
)
def test_class_numbers_with_gaps_are_refused(folder: Path, names: dict[str, str]) -> None:
    changed(folder / "config.json", id2label=names)
    for said in refusals(folder):
        assert f"id2label names 5 classes and counts up to {max(map(int, names))}:" in said
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    with pytest.raises(ModelError, match="id2label names 5 classes"):
        SemanticSegmentationPredictor(model.eval(), load_image_processor(str(folder)))


def test_the_one_class_of_a_model_may_have_any_number(tmp_path: Path) -> None:
    directory = make_model(tmp_path, labels=("road",))
    changed(directory / "config.json", id2label={"7": "road"})
    assert ModelInfo.of(Checkpoint.from_model(str(directory))).labels == ("background", "road")


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_a_model_of_other_than_three_channels_is_refused(folder: Path, channels: int) -> None:
    changed(folder / "config.json", num_channels=channels)
    assert all(f"pictures of {channels} channels" in said for said in refusals(folder))


def test_shards_load_and_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    directory = save_tiny(tmp_path, "segformer", "bfloat16", 5)
    whole = load_model(Checkpoint.from_directory(directory))[0]
    saved = AutoModelForSemanticSegmentation.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    saved.save_pretrained(directory, max_shard_size="20KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 1
    sharded = load_model(Checkpoint.from_model(str(directory)))[0]
    for one, other in zip(whole.parameters(), sharded.parameters(), strict=True):
        assert torch.equal(one, other)
    shards[0].unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded: .*model-00001-of") as refused:
        load_model(Checkpoint.from_model(str(directory)))
    assert "/checkpoint-" not in str(refused.value), "the folder is one of ours"


def test_weights_of_an_odd_name_are_missed_in_the_folder_that_was_given(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(ModelError, match=rf"no file named .* in directory {folder}\."):
        load_model(Checkpoint.from_model(str(folder)))


def test_a_head_of_another_size_is_refused_with_both_shapes(folder: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", labels=("a", "b", "c"))
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ModelError, match=r"classifier\.bias is \(3,\), not \(5,\)"):
        load_model(Checkpoint.from_model(str(folder)))


def test_weights_that_serve_training_alone_may_be_missing(tmp_path: Path) -> None:
    directory = save_tiny(tmp_path, "upernet", "float32", 5)
    weights = load_file(directory / "model.safetensors")
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith("auxiliary_head.") and not name.endswith("num_batches_tracked")
    }
    assert len(kept) < len(weights)
    save_file(kept, directory / "model.safetensors", {"format": "pt"})
    load_model(Checkpoint.from_directory(directory))
    kept.pop("decode_head.classifier.weight")
    save_file(kept, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weight that .* decode_head\.classifier\.weight"):
        load_model(Checkpoint.from_directory(directory))


# Image processors


def test_a_processor_that_stands_only_in_processor_config_loads(folder: Path) -> None:
    expected = load_image_processor(str(folder))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    nested = {"image_processor": settings, "processor_class": "SomeProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    checkpoint = Checkpoint.from_model(str(folder))
    assert ModelInfo.of(checkpoint).size is not None
    assert load_model(checkpoint)[1].to_dict() == expected.to_dict()


def test_a_processor_config_without_an_image_processor_is_not_enough(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text('{"processor_class": "SomeProcessor"}')
    assert all("preprocessor_config.json" in said for said in refusals(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 64},
        {"size": {"shortest_edge": 64}},
        {"size": {"height": 48, "width": 80}},
        {"do_resize": False},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_reduce_labels": True},
    ],
    ids=str,
)
def test_settings_of_a_processor_on_disk_give_the_maps_of_plain_transformers(
    folder: Path, settings: dict[str, Any]
) -> None:
    changed(folder / "preprocessor_config.json", **settings)
    images = [Image.fromarray(picture(seed, *size)) for seed, size in enumerate(SIZES)]
    assert differing(folder, reference=True, images=images)[0] == 0


def test_a_half_precision_model_of_the_caller_predicts_and_is_left_as_it_is(
    tmp_path: Path,
) -> None:
    directory = save_tiny(tmp_path, "segformer", "bfloat16", 5)
    model = AutoModelForSemanticSegmentation.from_pretrained(directory).eval()
    processor = load_image_processor(str(directory))
    image = Image.fromarray(picture(0, 40, 60))
    (expected,) = plain_transformers(directory, [image])
    (found,) = predict_sequential([image], model, processor)
    assert np.array_equal(found, expected)
    checkpoint = Checkpoint.from_dict({"model": model, "image_processor": processor})
    predictor = SemanticSegmentationPredictor.from_checkpoint(checkpoint, reference=True)
    (ids,) = predictor.predict({"image": np.asarray(image)[None]})["map"]
    assert np.array_equal(ids, expected)
    assert model.dtype == torch.bfloat16
