"""Pictures to train and to measure on: emoji art over varied backgrounds, and openly licensed photos.

Everything follows from `(seed, split, index)`: the same picture on every machine. Held-out pictures use other code points
(`art.is_held_out`), other photos and other random numbers than training pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cldistill_plugins.miniature.build.art import Sprite, is_held_out

Picture = NDArray[np.uint8]
"""uint8 RGB pixels (H, W, 3)."""
Split = Literal["train", "held-out"]

SIZE = 128
SHIPPED: dict[Split, int] = {"train": 60, "held-out": 40}
PHOTO_SHARE = 0.08
PHOTOS: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
    "held-out": ("chelsea.png", "camera.png"),
}
TEXTURES: dict[Split, tuple[str, ...]] = {"train": ("grass.png", "gravel.png"), "held-out": ("brick.png",)}
"""Public-domain and CC0 photos that lie in the scikit-image wheel; textures only ever tint a plain background."""


@dataclass(frozen=True, slots=True)
class Studio:
    """The material of which one split composes its pictures."""

    split: Split
    sprites: list[Sprite]
    photos: list[Image.Image]
    textures: list[Image.Image]

    def picture(self, index: int, seed: int = 0) -> Picture:
        """Picture number `index` of this split: uint8 (128, 128, 3)."""
        rng = np.random.default_rng([seed, self.split == "held-out", index])
        if rng.random() < PHOTO_SHARE:
            return np.asarray(_crop(rng, self.photos, SIZE), dtype=np.uint8)
        canvas = self._background(rng)
        if rng.random() < 0.12:
            _place(rng, canvas, self.sprites[rng.integers(len(self.sprites))], (0.25, 0.4))
        _place(rng, canvas, self.sprites[rng.integers(len(self.sprites))], (0.64, 0.98))
        return np.asarray(canvas, dtype=np.uint8)

    def _background(self, rng: np.random.Generator) -> Image.Image:
        makers = list(_BACKGROUNDS)
        make = makers[rng.choice(len(makers), p=list(_BACKGROUNDS.values()))]
        return make(rng, self.textures if make is _textured else self.photos)


def open_studio(sprites: list[Sprite], split: Split) -> Studio:
    """The studio of a split: its share of the sprites, and its photos from the scikit-image wheel."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    photos, textures = (
        [Image.open(data / name).convert("RGB") for name in names[split]] for names in (PHOTOS, TEXTURES)
    )
    wanted = [sprite for sprite in sprites if is_held_out(sprite.code) == (split == "held-out")]
    return Studio(split, wanted, photos, textures)


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random colour; half of them pale or dark so that drawings stand out as they do on real backdrops."""
    colour = rng.uniform(0, 255, 3)
    mix = rng.choice([0.0, 0.45, 0.45, 0.0])
    grey = rng.choice([255.0, 30.0])
    blended: NDArray[np.float64] = colour * (1 - mix) + grey * mix
    return blended


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.linspace(-1, 1, SIZE)
    return np.meshgrid(axis, axis)


def _to_image(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def _blend(weight: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> Image.Image:
    return _to_image(first * (1 - weight[..., None]) + second * weight[..., None])


def _linear(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    x, y = _grid()
    angle = rng.uniform(0, 2 * np.pi)
    weight = np.clip((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.35, 0.8) + 0.5, 0, 1)
    return _blend(weight, _colour(rng), _colour(rng))


def _radial(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    x, y = _grid()
    centre = rng.uniform(-0.7, 0.7, 2)
    weight = np.clip(np.hypot(x - centre[0], y - centre[1]) / rng.uniform(0.9, 1.8), 0, 1)
    return _blend(weight, _colour(rng), _colour(rng))


def _clouds(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    cells = int(rng.integers(2, 6))
    spread = rng.uniform(0.3, 1.0)
    colours = _colour(rng) + spread * rng.uniform(-128, 128, (cells, cells, 3))
    return _to_image(colours).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _plain(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    return _to_image(np.broadcast_to(_colour(rng), (SIZE, SIZE, 3)))


def _blurred_photo(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    return _crop(rng, photos, SIZE).filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 8))))


def _pattern(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    x, y = _grid()
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.2, 0.7)
    u = np.sin(2 * np.pi / period * (x * np.cos(angle) + y * np.sin(angle)))
    v = np.sin(2 * np.pi / period * (y * np.cos(angle) - x * np.sin(angle)))
    shapes: tuple[Callable[[], NDArray[np.float64]], ...] = (lambda: u, lambda: u * v, lambda: u + v - 0.9)
    weight = np.clip(shapes[rng.integers(3)]() * 6 + 0.5, 0, 1)
    first = _colour(rng)
    return _blend(weight, first, first + rng.uniform(-70, 70, 3))


def _textured(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    texture = np.asarray(_crop(rng, photos, SIZE).filter(ImageFilter.GaussianBlur(0.8)).convert("L"), dtype=np.float64)
    detail = (texture - texture.mean()) * rng.uniform(0.15, 0.4)
    return _to_image(_colour(rng) + detail[..., None])


_BACKGROUNDS = {
    _linear: 0.28,
    _radial: 0.16,
    _clouds: 0.2,
    _plain: 0.06,
    _blurred_photo: 0.14,
    _pattern: 0.1,
    _textured: 0.06,
}


def _crop(rng: np.random.Generator, photos: list[Image.Image], size: int) -> Image.Image:
    photo = photos[rng.integers(len(photos))]
    side = int(min(photo.size) * rng.uniform(0.4, 1.0))
    left, top = (int(rng.integers(length - side + 1)) for length in photo.size)
    crop = photo.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _place(rng: np.random.Generator, canvas: Image.Image, sprite: Sprite, scales: tuple[float, float]) -> None:
    """Paste a sprite at a random scale, tilt and place, nearly always wholly inside the frame."""
    side = int(SIZE * rng.uniform(*scales))
    image = Image.fromarray(sprite.pixels)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        image = image.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC)
    image = image.resize((side, side), Image.Resampling.LANCZOS)
    slack = SIZE - side
    left, top = (int(rng.integers(-4, slack + 5)) for _ in range(2))
    canvas.paste(image, (left, top), image)


def write_pictures(sprites: list[Sprite], folder: Path) -> None:
    """Write the pictures that ship: `train/000.png`–`059.png` and `held-out/000.png`–`039.png` under `folder`."""
    for split, count in SHIPPED.items():
        studio = open_studio(sprites, split)
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(studio.picture(index)).save(folder / split / f"{index:03d}.png", optimize=True)
