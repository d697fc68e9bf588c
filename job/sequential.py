"""Sequential inference: one plain function, no Ray, and the reference for every faster way."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image


def predict_sequential(
    images: Iterable[Image.Image | np.ndarray], model: Any, image_processor: Any
) -> list[np.ndarray]:
    """Segment one image after another with the stock processor, model and post-processing.

    Args:
        images: RGB images, as Pillow images or (height, width, 3) uint8 arrays, upright.
        model: a Hugging Face semantic-segmentation model, on whatever device it is.
        image_processor: the image processor that goes with it.

    Returns:
        One map per image: (height, width) int64 class ids, at the image's own size.
    """
    import torch

    model.eval()
    maps = []
    for image in images:
        if not isinstance(image, Image.Image):
            # An array of three rows would pass for three channels.
            image = Image.fromarray(image)
        width, height = image.size
        inputs = image_processor(images=[image], return_tensors="pt")
        with torch.no_grad():
            outputs = model(pixel_values=inputs.pixel_values.to(model.device))
        (segmented,) = image_processor.post_process_semantic_segmentation(
            outputs=outputs, target_sizes=[(height, width)]
        )
        maps.append(segmented.cpu().numpy())
    return maps
