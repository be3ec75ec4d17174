"""Sizes, exactly as the stock pipeline chooses them: references by area, the output like the last reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from PIL.Image import Image

from cldistill.errors import DataError

Size = tuple[int, int]
"""(width, height) in pixels."""
UNIT = 32
"""Sides are whole multiples of this many pixels (`calculate_dimensions`)."""
MAX_ASPECT = 150.0
"""Qwen2-VL's own processor refuses 200, and rounding to units adds to it."""


@dataclass(frozen=True)
class Geometry:
    """Areas of one base, as the sides of squares; ``multiple`` is the pixels a latent token covers."""

    resolution: int
    vl_resolution: int
    multiple: int = 16

    def vae_size(self, picture: Image) -> Size:
        """Return the size at which the VAE sees a reference."""
        return _by_area(self.resolution, picture)

    def vl_size(self, picture: Image) -> Size:
        """Return the size at which the VL encoder sees a reference."""
        return _by_area(self.vl_resolution, picture)

    def output_size(self, pictures: Sequence[Image]) -> Size:
        """Return the size of the output: the aspect of the last reference, whole tokens."""
        if not pictures:
            raise DataError("an item needs at least one reference picture")
        width, height = _by_area(self.resolution, pictures[-1])
        return width // self.multiple * self.multiple, height // self.multiple * self.multiple

    def tokens(self, size: Size) -> tuple[int, int]:
        """Return rows and columns of latent tokens of a picture."""
        return size[1] // self.multiple, size[0] // self.multiple


def _by_area(side: int, picture: Image) -> Size:
    """Return the stock size; a picture so elongated that its short side rounds to nothing there gets one unit for it."""
    limit = max(1.0, min((2 * side / UNIT) ** 2, MAX_ASPECT))
    aspect = min(max(picture.width / picture.height, 1 / limit), limit)
    width, height = calculate_dimensions(side * side, aspect)
    return max(UNIT, int(width)), max(UNIT, int(height))
