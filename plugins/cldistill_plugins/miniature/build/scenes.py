"""Sources of every shape for the transformer: a third photos, the rest emoji art over the backgrounds of `pictures.py`.

Everything follows from the index and the shape; only sprites and photos of the training split are used.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cldistill_plugins.miniature.build.art import Sprite
from cldistill_plugins.miniature.build.pictures import Picture, Studio

PHOTO_SHARE = 0.35
SEED = 11


@dataclass(frozen=True, slots=True)
class Scenes:
    """The material of training sources: the training studio, and photos."""

    studio: Studio
    photos: list[Image.Image]

    def scene(self, index: int, width: int, height: int) -> Picture:
        """Source number `index` in this shape: uint8 (height, width, 3)."""
        rng = np.random.default_rng([SEED, index, width, height])
        if rng.random() < PHOTO_SHARE:
            canvas = _crop(rng, self.photos[rng.integers(len(self.photos))], width, height)
        else:
            canvas = self.studio._background(rng).resize((width, height), Image.Resampling.BICUBIC)
            # A long picture has room beside its subject.
            if rng.random() < (0.15 if width == height else 0.45):
                self._place(rng, canvas, (0.3, 0.55))
            self._place(rng, canvas, (0.64, 0.98))
        return np.asarray(canvas, dtype=np.uint8)

    def _place(self, rng: np.random.Generator, canvas: Image.Image, scales: tuple[float, float]) -> None:
        """Paste a sprite at a random scale of the short side, tilt and place, nearly always wholly inside the frame."""
        sprite: Sprite = self.studio.sprites[rng.integers(len(self.studio.sprites))]
        image = Image.fromarray(sprite.pixels)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.4:
            image = image.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC)
        side = int(min(canvas.size) * rng.uniform(*scales))
        image = image.resize((side, side), Image.Resampling.LANCZOS)
        left, top = (int(rng.integers(-4, length - side + 5)) for length in canvas.size)
        canvas.paste(image, (left, top), image)


def _crop(rng: np.random.Generator, photo: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(photo.width / width, photo.height / height) * rng.uniform(0.55, 1.0)
    wide, high = int(width * scale), int(height * scale)
    left, top = int(rng.integers(photo.width - wide + 1)), int(rng.integers(photo.height - high + 1))
    crop = photo.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + wide, top + high))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
