"""Train the demo's SegFormer on generated scenes: `python -m job.demo.train OUT`.

Training scenes have seeds from 1,000,000 on; the scenes that measure the result have seeds from
900,000 on; the demo and the tests stay below both.
"""

import argparse
import io
import json
import math
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch.nn import functional
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
)

from job.demo.scenes import LABELS, SIZES, TRAINING_SEED, Scene, scene, write_scenes

HELD_OUT_SEED = 900_000
SIDE = 384  # pixels: every image is resized to SIDE×SIDE for the model

Pair = tuple[Image.Image, Image.Image]  # picture, class ids


def configuration() -> SegformerConfig:
    """A SegFormer of 0.47 million parameters: under 2 MB in float32."""
    return SegformerConfig(
        num_encoder_blocks=4,
        depths=[2, 2, 2, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 2, 4, 4],
        sr_ratios=[8, 4, 2, 1],
        decoder_hidden_size=64,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )


def image_processor() -> SegformerImageProcessorPil:
    """The stock preprocessor, at the side that the model is trained for."""
    return SegformerImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        do_reduce_labels=False,
    )


def training_pair(seed: int) -> Pair:
    """One scene as the model meets it: through JPEG, at one of the sizes, 448 pixels at most."""
    rng = np.random.default_rng((seed, 7))
    width, height, _ = SIZES[int(rng.integers(len(SIZES)))]
    shrink = min(1.0, 448 / max(width, height))
    picture, truth = scene(seed, round(height * shrink), round(width * shrink))
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=int(rng.integers(82, 96)))
    return Image.open(encoded).convert("RGB"), Image.fromarray(truth)


def augmented(pair: Pair, side: int, plain: float, rng: np.random.Generator) -> Pair:
    """The pair at side×side, flipped, jittered or grey; a share of `plain` is not cropped."""
    picture, truth = pair
    width, height = picture.size
    share = 1.0 if rng.random() < plain else rng.uniform(0.55, 1.0)
    left, top = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
    box = (left, top, left + width * share, top + height * share)
    picture = picture.resize((side, side), Image.Resampling.BILINEAR, box=box)
    truth = truth.resize((side, side), Image.Resampling.NEAREST, box=box)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        truth = truth.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.15:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < 0.6:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(float(rng.uniform(0.75, 1.25)))
    return picture, truth


def batch(
    pool: list[Pair], size: int, side: int, plain: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pictures (size, 3, side, side), and class ids at half that side."""
    pairs = [
        augmented(pool[index], side, plain, rng)
        for index in rng.integers(len(pool), size=size).tolist()
    ]
    raw = np.stack([np.asarray(picture) for picture, _ in pairs])
    pixels = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
    processor = image_processor()
    mean = torch.tensor(processor.image_mean)[:, None, None]
    deviation = torch.tensor(processor.image_std)[:, None, None]
    # Every second pixel is truth enough; a random phase keeps it unbiased.
    row, column = rng.integers(2, size=2).tolist()
    ids = np.stack([np.asarray(truth)[row::2, column::2] for _, truth in pairs])
    return (pixels - mean) / deviation, torch.from_numpy(ids).long()


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice: the second weighs rare classes as much as the sky."""
    fine = functional.interpolate(logits, size=ids.shape[-2:], mode="bilinear")
    likely = fine.softmax(dim=1)
    truth = functional.one_hot(ids, len(LABELS)).permute(0, 3, 1, 2).to(likely.dtype)
    both = (likely * truth).sum(dim=(0, 2, 3))
    total = likely.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    dice = 1 - ((2 * both + 1) / (total + 1)).mean()
    return functional.cross_entropy(fine, ids) + 0.5 * dice


def train(
    model: SegformerForSemanticSegmentation,
    pool: list[Pair],
    minutes: float,
    sides: list[int],
    peak_rate: float,
    seed: int,
) -> int:
    """Train for that long, an equal time at each picture side; returns the number of steps."""
    rng = np.random.default_rng(seed)
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate)
    start, step = time.monotonic(), 0
    model.train()
    while (progress := (time.monotonic() - start) / (minutes * 60)) < 1:
        rate = min(1.0, (step + 1) / 150) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate
        side = sides[int(progress * len(sides))]
        pixels, ids = batch(pool, 12, side, 0.8 if progress > 0.7 else 0.5, rng)
        loss = loss_of(model(pixels).logits, ids)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}  progress {progress:.2f}  loss {loss.item():.3f}", flush=True)
    return step


def confusion(directory: Path | str, scenes: Sequence[Scene]) -> NDArray[np.int64]:
    """Pixel counts [truth, prediction] of a saved model on written scenes, at full size."""
    model = SegformerForSemanticSegmentation.from_pretrained(directory, dtype=torch.float32).eval()
    processor = SegformerImageProcessorPil.from_pretrained(directory)
    classes = len(LABELS)
    counts = np.zeros((classes, classes), np.int64)
    for written in scenes:
        picture = ImageOps.exif_transpose(Image.open(written.image)).convert("RGB")
        inputs = processor(images=picture, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        size = (written.height, written.width)
        ids = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        truth = np.asarray(Image.open(written.truth)).astype(np.int64)
        pairs = truth * classes + ids.numpy()
        counts += np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)
    return counts


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU per class; NaN for a class that is neither there nor predicted."""
    right = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    return np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)


def report(directory: Path | str, count: int) -> None:
    """Print what a saved model reaches on `count` held-out scenes."""
    with tempfile.TemporaryDirectory() as scratch:
        counts = confusion(directory, write_scenes(scratch, count, HELD_OUT_SEED))
    each = intersection_over_union(counts)
    for label, value in zip(LABELS, each.tolist(), strict=True):
        print(f"{label:10} IoU {value:.3f}")
    accuracy = float(np.trace(counts) / counts.sum())
    result = {"scenes": count, "miou": float(np.nanmean(each)), "pixel_accuracy": accuracy}
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


def main() -> None:
    """Paint the training scenes, train, save, measure."""
    parser = argparse.ArgumentParser(description="Train the demo's SegFormer.")
    parser.add_argument("out", type=Path, help="directory for the model, in the Hub's format")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time (default 20)")
    parser.add_argument("--scenes", type=int, default=2400, help="training scenes (default 2400)")
    parser.add_argument("--held-out", type=int, default=96, help="scenes to measure on")
    parser.add_argument("--sides", type=int, nargs="+", default=[192, 256, 320, SIDE])
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--start", type=Path, help="saved model to go on from (default: none)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and batches (default 1)")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    with ProcessPoolExecutor() as workers:
        seeds = range(TRAINING_SEED, TRAINING_SEED + options.scenes)
        pool = list(workers.map(training_pair, seeds, chunksize=25))
    model = SegformerForSemanticSegmentation(configuration())
    if options.start:
        model = SegformerForSemanticSegmentation.from_pretrained(options.start, dtype=torch.float32)
    steps = train(model, pool, options.minutes, options.sides, options.rate, options.seed)
    print(f"{steps} steps in {options.minutes} minutes")
    model.save_pretrained(options.out)
    image_processor().save_pretrained(options.out)
    report(options.out, options.held_out)


if __name__ == "__main__":
    main()
