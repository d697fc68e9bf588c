"""Sequential inference: one plain function, no Ray, and the reference for every faster way."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.models.checkpoint import in_float32
from job.models.families import Family, family_of

if TYPE_CHECKING:
    import torch


def predict_sequential(
    images: Iterable[Image.Image | np.ndarray], model: Any, image_processor: Any
) -> list[np.ndarray]:
    """Segment one image after another with the stock processor, model and post-processing.

    Args:
        images: RGB images, as Pillow images or (height, width, 3) uint8 arrays, upright.
        model: a Hugging Face semantic-segmentation model, on whatever device it is; one in half
            precision is computed in float32.
        image_processor: the image processor that goes with it.

    Returns:
        One map per image: (height, width) int64 class ids, at the image's own size. A model of one
        class gives 1 where the pixel is of that class, and 0 elsewhere.
    """
    import torch

    model.eval()
    model = in_float32(model)
    family = family_of(getattr(model, "config", None))
    maps = []
    for image in images:
        if not isinstance(image, Image.Image):
            # An array of three rows would pass for three channels.
            image = Image.fromarray(image)
        width, height = image.size
        inputs = image_processor(images=[image], return_tensors="pt")
        with torch.no_grad():
            outputs = model(pixel_values=inputs.pixel_values.to(model.device))
        (segmented,) = post_process(outputs, family, image_processor, [(height, width)])
        maps.append(segmented.cpu().numpy())
    return maps


def post_process(
    outputs: Any, family: Family, image_processor: Any, sizes: Sequence[tuple[int, int]]
) -> "list[torch.Tensor]":
    """The stock post-processing: class ids of each image at its own size, (height, width).

    transformers' own takes the largest score of a pixel, which is always the first where there is
    but one: one class is where its sigmoid is above one half.

    Args:
        outputs: what the model returned for the images.
        family: of the model.
        image_processor: that goes with it.
        sizes: (height, width) of each image.
    """
    import torch.nn.functional as F  # noqa: N812

    stock = getattr(image_processor, "post_process_semantic_segmentation", None)
    logits = family.scores(outputs)
    several = logits.shape[1] > 1
    if several and stock is not None:
        segmented: list[torch.Tensor] = stock(outputs=outputs, target_sizes=list(sizes))
        return segmented
    scores = (
        # As those processors do it that have this step.
        F.interpolate(each[None], size=size, mode="bilinear", align_corners=False)[0]
        for each, size in zip(logits, sizes, strict=True)
    )
    return [each.argmax(0) if several else (each[0].sigmoid() > 0.5).long() for each in scores]
