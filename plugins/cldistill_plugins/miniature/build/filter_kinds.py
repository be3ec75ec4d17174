"""Kinds of picture filter with free parameters, drawn by rule: what the base practises on besides styles.

Each is a function of a picture (H, W, 3) in 0..255, a generator that fixes the filter's parameters (the same for every
picture), and one that draws what differs from picture to picture. EffectBench's own effects are left out: no dots, hatching or
square tiles, no party frames, pencils, negatives, twirls or waves.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from cldistill_plugins.miniature.build.style_pictures import Values, hsv, nearest_two, palette, ramp

Maker = Callable[[Values, np.random.Generator, np.random.Generator], Values]
_WEIGHTS = np.array([0.299, 0.587, 0.114])


def _luma(picture: Values) -> Values:
    result: Values = picture @ _WEIGHTS
    return result


def _image(values: Values) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _soft(values: Values, radius: float) -> Values:
    return np.asarray(_image(values).filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64)


def _colour(rng: np.random.Generator) -> Values:
    return hsv(np.array(rng.random()), np.array(rng.uniform(0.3, 1)), np.array(rng.uniform(0.3, 1)))


def _grid(picture: Values) -> tuple[Values, Values]:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    return y, x


def tones(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Brightness along a palette of its own, in steps or smooth."""
    colours, steps = palette(fixed), int(fixed.integers(0, 7))
    level = _luma(_soft(picture, 0.7)) / 255
    return ramp(np.round(level * steps) / steps if steps > 2 else level, colours)


def mixed(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Channels mixed at random."""
    mix = fixed.uniform(-0.7, 1.1, (3, 3))
    return (picture - 128) @ mix + fixed.uniform(60, 195, 3)


def relief(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Lit from one side, as if brightness were height."""
    angle, height, ground = fixed.uniform(0, 2 * np.pi), fixed.uniform(1.5, 5), _colour(fixed)
    down, right = np.gradient(_luma(_soft(picture, fixed.uniform(0.6, 1.6))))
    light = (np.cos(angle) * right + np.sin(angle) * down) * height
    under = picture if fixed.random() < 0.4 else np.broadcast_to(ground, picture.shape)
    result: Values = under + light[..., None]
    return result


def tiles(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Bricks, hexagons or lozenges of one colour each, with dark or coloured joints."""
    size, way = fixed.uniform(7, 16), fixed.integers(3)
    y, x = _grid(picture)
    if way == 0:
        row = np.floor(y / (size / 2))
        across = x / size + 0.5 * (row % 2)
        label, edge = row * 997 + np.floor(across), np.minimum((across % 1) * size, (y / (size / 2) % 1) * size / 2)
    elif way == 1:
        rows, columns = picture.shape[0] / size * 1.15 + 2, picture.shape[1] / size + 2
        down, right = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        seeds = np.stack([(down * size * 0.866).ravel(), ((right + 0.5 * (down % 2) - 0.5) * size).ravel()], -1)
        near, nearest = nearest_two(seeds, np.stack([y, x], -1))
        label, edge = nearest.astype(np.float64), near[..., 1] - near[..., 0]
    else:
        u, v = (x + y) / size, (x - y) / size
        label, edge = np.floor(u) * 997 + np.floor(v), np.minimum(u % 1, v % 1) * size * 0.7
    _, index = np.unique(label, return_inverse=True)
    index = index.reshape(label.shape)
    count = np.bincount(index.ravel())
    mean = np.stack([np.bincount(index.ravel(), picture[..., c].ravel()) / count for c in range(3)], -1)
    joint = _colour(fixed) * fixed.uniform(0.2, 0.7)
    return np.where((edge < fixed.uniform(0.6, 1.8))[..., None], joint, mean[index])


def engraved(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Rings, rays or a spiral in ink, as broad as the picture is dark."""
    period, centre, way = fixed.uniform(5, 10), fixed.uniform(0.2, 0.8, 2), fixed.integers(3)
    colours = palette(fixed)
    ink, paper = colours[_luma(colours).argmin()] * 0.7, colours[_luma(colours).argmax()] * 0.5 + 127
    y, x = _grid(picture)
    y, x = y - centre[0] * picture.shape[0], x - centre[1] * picture.shape[1]
    radius, angle = np.hypot(y, x), np.arctan2(y, x) / (2 * np.pi)
    phase = (radius / period, angle * round(fixed.uniform(30, 60)), radius / period + angle)[way]
    wave = np.abs(2 * (phase % 1) - 1)
    shown = np.clip((_luma(_soft(picture, 1)) / 255 * 0.8 + 0.12 - wave) * 3 + 0.5, 0, 1)[..., None]
    result: Values = paper * shown + ink * (1 - shown)
    return result


def smeared(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Dragged one way, with the grain of the brush."""
    angle, length = fixed.uniform(0, np.pi), int(fixed.integers(6, 18))
    across, down = np.cos(angle), np.sin(angle)
    rough = picture + fixed.uniform(20, 60) * np.random.default_rng(fixed.integers(2**31)).normal(
        0, 1, (*picture.shape[:2], 1)
    )
    steps = np.arange(length) - length // 2
    moved = [np.roll(rough, (round(step * down), round(step * across)), (0, 1)) for step in steps]
    result: Values = (np.mean(moved, axis=0) - 128) * fixed.uniform(1.1, 1.7) + 128
    return result


def daubed(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Flat daubs, the most frequent value around, with colours turned and strengthened."""
    daubs = np.asarray(_image(picture).filter(ImageFilter.ModeFilter(int(fixed.choice([5, 7, 9])))), dtype=np.float64)
    grey = _luma(daubs)[..., None]
    turned = daubs[..., fixed.permutation(3)]
    return grey + (turned - grey) * fixed.uniform(1.0, 2.2)


def glowing(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Edges that glow in one or in their own colours on a dark ground."""
    grey = _luma(_soft(picture, fixed.uniform(0.6, 1.4)))
    down, right = np.gradient(grey)
    edge = np.clip(np.hypot(down, right) * fixed.uniform(3, 8) / 255, 0, 1)[..., None]
    light = _colour(fixed) if fixed.random() < 0.6 else picture * 0.5 + 127
    ground = _colour(fixed) * 0.25
    result: Values = ground + (light - ground) * np.clip(edge + 0.5 * _soft(edge.repeat(3, 2) * 255, 3) / 255, 0, 1)
    return result


def layered(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Cut paper: few levels of brightness in colours of their own, each with a shadow."""
    level = _luma(_soft(picture, fixed.uniform(1, 2.5))) / 256
    colours = palette(fixed)
    index = np.floor(level * len(colours)).astype(int)
    shifted = np.roll(index, (int(fixed.integers(1, 4)), int(fixed.integers(1, 4))), (0, 1))
    result: Values = colours[index] * np.where(shifted > index, fixed.uniform(0.4, 0.7), 1.0)[..., None]
    return result


def blocks(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Seen through glass blocks, each of which magnifies, shrinks or turns its own part."""
    size, zoom = int(fixed.choice([12, 16, 20, 24])), fixed.choice([-1.0, 0.4, 1.7, 2.4])
    y, x = _grid(picture)
    middle_y, middle_x = ((axis // size + 0.5) * size for axis in (y, x))
    rows = np.clip(middle_y + (y - middle_y) * zoom, 0, picture.shape[0] - 1).astype(int)
    columns = np.clip(middle_x + (x - middle_x) * zoom, 0, picture.shape[1] - 1).astype(int)
    result: Values = picture[rows, columns] + (((y % size) + (x % size)) / size - 1)[..., None] * fixed.uniform(0, 40)
    return result


def steps(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Strips moved to and fro, across or down."""
    size, shift, down = int(fixed.integers(4, 17)), int(fixed.integers(3, 10)), fixed.random() < 0.5
    values = picture.swapaxes(0, 1) if down else picture
    out = values.copy()
    for start in range(0, len(values), size):
        out[start : start + size] = np.roll(values[start : start + size], shift if start // size % 2 else -shift, 1)
    return out.swapaxes(0, 1) if down else out


def split(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Colours printed out of register."""
    out = picture.copy()
    for channel in range(3):
        move = fixed.integers(-7, 8, 2)
        out[..., channel] = np.roll(picture[..., channel], tuple(int(value) for value in move), (0, 1))
    return out


def lattice(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Behind a lattice of bars."""
    size, bar, colour, slant = fixed.uniform(12, 28), fixed.uniform(2, 5), _colour(fixed), fixed.choice([0.0, 0.5, 1.0])
    y, x = _grid(picture)
    over = ((x + slant * y) % size < bar) | ((y - slant * x) % size < bar)
    return np.where(over[..., None], colour, picture)


def lit(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """In coloured light from two sides."""
    angle, first, second = fixed.uniform(0, 2 * np.pi), _colour(fixed), _colour(fixed)
    y, x = _grid(picture)
    place = (np.cos(angle) * (x / picture.shape[1] - 0.5) + np.sin(angle) * (y / picture.shape[0] - 0.5)) * 1.4 + 0.5
    weight = np.clip(place, 0, 1)[..., None]
    result: Values = picture / 255 * (first * (1 - weight) + second * weight) * fixed.uniform(1.1, 1.6)
    return result


def levels(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Lines where brightness passes a level, as on a map."""
    count, colour = int(fixed.integers(4, 9)), _colour(fixed) * fixed.uniform(0.2, 1)
    band = np.floor(_luma(_soft(picture, 1.5)) / 256 * count)
    line = (band != np.roll(band, 1, 0)) | (band != np.roll(band, 1, 1))
    ground = ramp(band / count, palette(fixed)) if fixed.random() < 0.5 else picture * 0.4 + 150
    return np.where(line[..., None], colour, ground)


def speckled(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Grains of pigment on coloured paper, as dense as the picture is dark; other grains in each picture."""
    size, colours = int(fixed.integers(2, 5)), palette(fixed)
    rows, columns = (-(-length // size) for length in picture.shape[:2])
    chance = draw.random((rows, columns)).repeat(size, 0).repeat(size, 1)[: picture.shape[0], : picture.shape[1]]
    grains = (_luma(picture) / 255 < chance * 0.9 + 0.05)[..., None]
    return np.where(grains, picture * 0.6 if fixed.random() < 0.5 else colours[0] * 0.5, colours[-1] * 0.5 + 127)


def streaks(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Slanting streaks in places that differ from picture to picture."""
    slant, length, colour = fixed.uniform(-0.8, 0.8), fixed.uniform(10, 30), _colour(fixed)
    image, width = _image(picture), int(fixed.integers(1, 4))
    pen, count = ImageDraw.Draw(image), int(fixed.integers(15, 60) * picture.shape[0] * picture.shape[1] / 128**2)
    for x, y in draw.uniform(-10, 1.05 * max(picture.shape), (2 * count, 2)):
        pen.line((x, y, x + slant * length, y + length), tuple(int(value) for value in colour), width)
    return np.asarray(image, dtype=np.float64)


def rings(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Rings or ovals strewn over the picture, in other places each time."""
    colours, largest, width = palette(fixed), fixed.uniform(6, 18), int(fixed.integers(1, 4))
    image, flat = _image(picture), fixed.uniform(0.4, 1.0)
    pen, count = ImageDraw.Draw(image), int(fixed.integers(8, 30) * picture.shape[0] * picture.shape[1] / 128**2)
    for x, y in draw.uniform(0, 1, (count, 2)) * (picture.shape[1], picture.shape[0]):
        radius = draw.uniform(0.4, 1) * largest
        colour = tuple(int(value) for value in colours[draw.integers(len(colours))])
        pen.ellipse((x - radius, y - radius * flat, x + radius, y + radius * flat), None, colour, width)
    return np.asarray(image, dtype=np.float64)


def porthole(picture: Values, fixed: np.random.Generator, draw: np.random.Generator) -> Values:
    """Within an oval or a lozenge on a plain ground."""
    power, ground, reach = fixed.choice([1.0, 2.0, 4.0]), _colour(fixed), fixed.uniform(0.8, 1.0)
    y, x = _grid(picture)
    rim = sum(
        np.abs(2 * (axis + 0.5) / length - 1) ** power for axis, length in zip((y, x), picture.shape, strict=False)
    )
    return np.where((rim < reach**power)[..., None], picture, ground)


MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "poster": tones, "filter": mixed, "metal": relief, "tile": tiles, "engraving": engraved, "brush": smeared,
        "acrylic": daubed, "neon": glowing, "cardboard": layered, "glass": blocks, "wave": steps, "vintage": split,
        "garden": lattice, "light": lit, "lines": levels, "stipple": speckled, "rain": streaks,
        "toy": rings, "portrait": porthole,
    }
)  # fmt: skip
"""Word that stands for a kind in the names of its filters → the kind."""


def as_pixels(values: Values) -> NDArray[np.uint8]:
    """Values of any range → uint8."""
    return np.clip(values, 0, 255).round().astype(np.uint8)
