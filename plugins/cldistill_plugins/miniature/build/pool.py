"""The pictures that the VAE trains on: compositions, a quarter of them processed so that styles reconstruct well too."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from cldistill_plugins.miniature.build.pictures import SIZE, Picture, Studio

PROCESSED_SHARE = 0.25
FIRST_INDEX = 1000
"""Pool pictures start here, after the ones that ship."""


def vae_pool(studio: Studio, count: int, cache: Path) -> NDArray[np.uint8]:
    """`count` training pictures, uint8 (count, 128, 128, 3), composed once and kept in `cache` (an .npy file)."""
    if not cache.is_file():
        pool = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
        for index in range(count):
            rng = np.random.default_rng([1, index])
            picture = studio.picture(FIRST_INDEX + index)
            pool[index] = stylise(picture, rng) if rng.random() < PROCESSED_SHARE else picture
        aside = cache.with_suffix(".part.npy")
        np.save(aside, pool)
        aside.replace(cache)
    stored: NDArray[np.uint8] = np.load(cache, mmap_mode="r")
    return stored


def stylise(picture: Picture, rng: np.random.Generator) -> Picture:
    """The picture in a random strong style: drawn, posterised, halftoned, in mosaic, in random colours, painted or stippled."""
    image = Image.fromarray(picture)
    styles = (_drawing, _posterised, _halftone, _mosaic, _recoloured, _painted, _grainy)
    return np.asarray(styles[rng.integers(len(styles))](image, rng).convert("RGB"), dtype=np.uint8)


def _drawing(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    edges = (
        image.convert("L").filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2)))).filter(ImageFilter.FIND_EDGES)
    )
    lines = np.clip(np.asarray(edges, dtype=np.float32) * rng.uniform(2, 6) / 255, 0, 1)[..., None]
    paper, ink = rng.uniform(170, 255, 3), rng.uniform(0, 90, 3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    return Image.fromarray((paper * (1 - lines) + ink * lines).astype(np.uint8))


def _posterised(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(ImageOps.autocontrast(image), int(rng.integers(1, 4)))


def _halftone(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:SIZE, :SIZE] * (np.pi / rng.uniform(2.5, 5))
    screen = (np.sin(x + y) + np.sin(x - y)) / 4 + 0.5
    tone = np.asarray(image if rng.random() < 0.5 else image.convert("L").convert("RGB"), dtype=np.float32) / 255
    return Image.fromarray((np.clip((tone - screen[..., None]) * 4 + 0.5, 0, 1) * 255).astype(np.uint8))


def _mosaic(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    cells = int(rng.choice([16, 21, 32]))
    small = image.resize((cells, cells), Image.Resampling.BOX)
    return small.resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    mix = rng.uniform(-0.6, 1.1, (3, 3))
    pixels = (np.asarray(image, dtype=np.float32) - 128) @ mix.astype(np.float32) + rng.uniform(60, 195, 3).astype(
        np.float32
    )
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _painted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.ModeFilter(int(rng.choice([5, 7]))))


def _grainy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    grain = rng.normal(0, 1, (SIZE, SIZE, 1 if rng.random() < 0.5 else 3)) * rng.uniform(8, 30)
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8))
