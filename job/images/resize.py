"""Resize: the one size that a model wants every image at, and how an image gets there."""

from dataclasses import dataclass

from PIL import Image

# From twice as many pixels, says Pillow's documentation, resizing gives close to what it gives from
# all of them.
_REDUCING_GAP = 2


@dataclass(frozen=True)
class ModelSize:
    """The one size that a model's image processor resizes every image to.

    Attributes:
        height: in pixels.
        width: in pixels.
        resample: number of the filter, see :class:`PIL.Image.Resampling`.
    """

    height: int
    width: int
    resample: int

    @property
    def reduced_side(self) -> int:
        """Pixels that an image keeps along each side when it is reduced before it is resized.

        The same for both: which is which is known only when the image is upright.
        """
        return _REDUCING_GAP * max(self.height, self.width)

    def resize(self, image: Image.Image) -> Image.Image:
        """As the image processor's Pillow backend does it, to the bit."""
        return image.resize((self.width, self.height), resample=Image.Resampling(self.resample))
