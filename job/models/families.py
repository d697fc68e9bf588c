"""Families: the models that the job predicts with, and what others are called.

Nothing here loads a model to find out what it is, and importing it loads neither torch nor
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.errors import ModelError

if TYPE_CHECKING:
    import torch


def _semantic_segmentation() -> Any:
    from transformers import AutoModelForSemanticSegmentation

    return AutoModelForSemanticSegmentation


def _logits(output: Any) -> torch.Tensor:
    logits: torch.Tensor = output.logits
    return logits


def _fold_segformer(model: Any) -> torch.nn.Module:
    from job.models.segformer import fold

    return fold(model)


@dataclass(frozen=True)
class Family:
    """How the models of one family are loaded and run. A new family is one more of these.

    Attributes:
        name: for people.
        head: how the class in ``architectures`` of ``config.json`` ends, when a model of the family
            has the head that makes class scores.
        model_class: gives the class whose ``from_pretrained`` loads such a model.
        scores: what the model returns to class scores, (B, classes, h, w) logits.
        fold: the fast path: a model in evaluation mode to a module that makes the same scores of
            the same pixels. It raises CannotFoldError for a model that it is not for. None where
            the family has none.
    """

    name: str
    head: str = "ForSemanticSegmentation"
    model_class: Callable[[], Any] = _semantic_segmentation
    scores: Callable[[Any], torch.Tensor] = _logits
    fold: Callable[[Any], torch.nn.Module] | None = None


# By transformers' ``model_type``. Tests hold each equal to plain transformers, pixel for pixel.
FAMILIES = {
    "segformer": Family("SegFormer", fold=_fold_segformer),
    "upernet": Family("UperNet"),
    "beit": Family("BEiT"),
    "data2vec-vision": Family("Data2VecVision"),
    "dpt": Family("DPT"),
    "mobilenet_v2": Family("MobileNetV2"),
    "mobilevit": Family("MobileViT"),
    "mobilevitv2": Family("MobileViTV2"),
}
# Models that a caller loaded may be of any family: they are run as semantic segmentation is.
_OTHER = Family("other")
_WHAT_WORKS = (
    "Models for semantic segmentation of these families work:"
    f" {', '.join(family.name for family in FAMILIES.values())};"
    " nvidia/segformer-b0-finetuned-ade-512-512 is one"
)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# What the end of a class's name says of the model; the first that fits counts.
_TASKS = {
    "ForUniversalSegmentation": "universal segmentation, by masks and queries",
    "ForInstanceSegmentation": "instance segmentation, by masks and queries",
    "ForImageSegmentation": "segmentation of what a text or a picture asks for",
    "ForSegmentation": "panoptic segmentation",
    "ForDepthEstimation": "depth estimation",
    "ForImageClassification": "image classification",
    "ForImageClassificationWithTeacher": "image classification",
    "ForMaskedImageModeling": "pretraining",
    "ForPreTraining": "pretraining",
    "ForObjectDetection": "object detection",
    "ForCausalLM": "text",
    "ForConditionalGeneration": "text",
    "Backbone": "features, without a head",
    "Model": "features or masks, without classes",
}
# Files of other formats; none of them is opened. Pickles can run code.
_FORMATS = {
    (".gguf",): "GGUF weights",
    (".onnx", ".ort"): "ONNX weights",
    (".h5", ".keras"): "Keras weights",
    (".msgpack",): "Flax weights",
    (".tflite",): "TensorFlow Lite weights",
    (".engine", ".plan"): "TensorRT engines",
    (".bin", ".pt", ".pth", ".ckpt", ".pkl"): "pickled weights",
}


def family_of(config: Any) -> Family:
    """The family of a model, by its Hugging Face configuration."""
    return FAMILIES.get(getattr(config, "model_type", ""), _OTHER)


def refuse_other_formats(model: str, names: Iterable[str]) -> None:
    """Refuse a folder by the names of its files: a pipeline, an adapter, another format.

    Args:
        model: what to call it in a message.
        names: of the files directly in the folder.

    Raises:
        ModelError: it is one of these; what is only incomplete passes.
    """
    names = set(names)
    if "model_index.json" in names:
        raise ModelError(
            f"{model} is not a semantic-segmentation model: it is a pipeline of diffusers"
            f" (model_index.json). {_WHAT_WORKS}"
        )
    adapter = next((name for name in _ADAPTER if name in names), None)
    if adapter is not None:
        raise ModelError(
            f"{model} holds a peft adapter ({adapter}), and adapters are not loaded: without it the"
            " maps would be those of the model before its fine-tuning. Merge it:"
            " PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(directory)"
        )
    if any(name.endswith(".safetensors") for name in names):
        return
    for suffixes, kind in _FORMATS.items():
        found = sorted(name for name in names if name.endswith(suffixes))
        if found:
            raise ModelError(
                f"{model}: there are no .safetensors weights, only {kind} ({found[0]}), and {kind}"
                " are not loaded. Convert them with model.save_pretrained(directory)"
            )


def refuse_other_families(model: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a model by its ``config.json``, when it is not for semantic segmentation.

    Args:
        model: what to call it in a message.
        settings: what stands in ``config.json``.
        known: every ``model_type`` that transformers has.

    Raises:
        ModelError: naming what the model is, and what works.
    """
    kind = settings.get("model_type")
    refused = f"{model} is not a semantic-segmentation model that works here:"
    if not isinstance(kind, str):
        raise ModelError(f"{refused} its config.json has no model_type. {_WHAT_WORKS}")
    if kind not in set(known):
        own = settings.get("auto_map")
        reason = (
            "it comes with code of its own (auto_map), which is never run"
            if own
            else f"transformers has no model_type {kind[:60]!r}"
        )
        raise ModelError(f"{refused} {reason}. {_WHAT_WORKS}")
    architectures = settings.get("architectures")
    found = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(found, str):
        raise ModelError(f"{refused} its config.json names no architectures. {_WHAT_WORKS}")
    if not found.endswith(FAMILIES.get(kind, _OTHER).head):
        task = next((task for end, task in _TASKS.items() if found.endswith(end)), "something else")
        raise ModelError(
            f"{model} is not a semantic-segmentation model: it holds {found[:80]} ({task})."
            f" {_WHAT_WORKS}"
        )
    if kind not in FAMILIES:
        raise ModelError(f"{refused} the family of {found} is not among them. {_WHAT_WORKS}")


def refuse_quantised(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse a model whose weights were quantised.

    Args:
        model: what to call it in a message.
        settings: what stands in ``config.json``.

    Raises:
        ModelError: naming the method.
    """
    how = settings.get("quantization_config")
    if not how:
        return
    method = str(how.get("quant_method") or "") if isinstance(how, Mapping) else ""
    raise ModelError(
        f"{model} has quantised weights ({method[:60] or 'quantization_config in config.json'}),"
        " and quantised weights are not loaded. Use the model that they were made from, in float32,"
        " float16 or bfloat16"
    )


def refuse_other_channels(model: str, config: Any) -> None:
    """Refuse a model that takes anything but RGB: one or four channels, more bands.

    Raises:
        ModelError: naming how many channels it takes.
    """
    backbone = getattr(config, "backbone_config", None)
    for part in (backbone, config):
        channels = getattr(part, "num_channels", None)
        if channels is not None and channels != 3:
            raise ModelError(
                f"{model} takes pictures of {channels} channels (num_channels in config.json), and"
                " images are given to models as RGB, which has 3. Use a model of RGB pictures"
            )
        if channels is not None:
            return
