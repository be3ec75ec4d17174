"""Style pictures drawn by rule: what arbitrary style transfer takes a style from. Nobody's art, and no end of them.

Each kind is a function of a random generator and a palette (K, 3); it returns RGB values in 0..255, (256, 256, 3).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
Values = NDArray[np.float64]
Kind = Callable[[np.random.Generator, Values], Values]


def palette(rng: np.random.Generator) -> Values:
    """Three to six colours (K, 3): of near hues, of two opposite ones, of any, or ink and paper."""
    count = int(rng.integers(3, 7))
    way, hue = rng.integers(4), rng.random()
    near, opposite = hue + rng.uniform(-0.09, 0.09, count), hue + 0.5 * rng.integers(0, 2, count)
    hues = np.stack([near, opposite, rng.random(count), np.full(count, hue)]).astype(np.float64)
    saturation = rng.uniform(0, 0.25, count) if way == 3 else rng.uniform(0.25, 1.0, count)
    value = np.sort(rng.uniform(0.05, 1.0, count)) if way == 3 else rng.uniform(0.15, 1.0, count)
    return hsv(hues[way] % 1, saturation, value)


def hsv(hue: Values, saturation: Values, value: Values) -> Values:
    """HSV in 0..1 → RGB in 0..255, any shape with the colour last."""
    sector = (np.stack([hue + 1, hue + 2 / 3, hue + 1 / 3], -1) % 1) * 6
    ramp = np.clip(np.abs(sector - 3) - 1, 0, 1)
    result: Values = 255 * value[..., None] * (1 - saturation[..., None] * (1 - ramp))
    return result


def field(rng: np.random.Generator, cells: int, octaves: int = 1) -> Values:
    """Smooth noise (256, 256) about zero with `cells` cells a side, finer octaves each at six tenths of the weight."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(octaves):
        count = min(SIDE, cells * 2**octave)
        coarse = Image.fromarray(rng.normal(0, 1, (count, count)).astype(np.float32))
        total += 0.6**octave * np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    return total


def ramp(values: Values, colours: Values) -> Values:
    """Values (H, W) in 0..1 as colours along the palette."""
    places = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, places, colours[:, channel]) for channel in range(3)], -1)


def _unit(values: Values) -> Values:
    return np.argsort(np.argsort(values, axis=None)).reshape(values.shape) / values.size


def clouds(rng: np.random.Generator, colours: Values) -> Values:
    """Noise of several octaves."""
    return ramp(_unit(field(rng, int(rng.integers(3, 16)), int(rng.integers(2, 6)))), colours)


def marble(rng: np.random.Generator, colours: Values) -> Values:
    """Bands that noise bends."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle, bands = rng.uniform(0, np.pi), rng.uniform(4, 22)
    phase = bands * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0.3, 2.2) * field(
        rng, int(rng.integers(2, 7)), 2
    )
    wave = np.sin(2 * np.pi * phase) * 0.5 + 0.5
    return ramp(np.round(wave) if rng.random() < 0.3 else wave, colours)


def nearest_two(seeds: Values, places: Values) -> tuple[Values, NDArray[np.intp]]:
    """Distances of places (H, W, 2) to their two nearest seeds (N, 2): (H, W, 2), and the number of the nearest (H, W)."""
    from scipy.spatial import cKDTree

    distances, numbers = cKDTree(seeds).query(places, k=2)
    return distances, numbers[..., 0]


def cells(rng: np.random.Generator, colours: Values) -> Values:
    """Nearest-seed cells, each of one colour, with joints."""
    seeds = rng.uniform(0, SIDE, (int(rng.integers(40, 420)), 2))
    stretch = np.array([rng.uniform(0.4, 2.5), 1.0])
    near, nearest = nearest_two(seeds * stretch, np.mgrid[:SIDE, :SIDE].transpose(1, 2, 0) * stretch)
    shown = colours[rng.integers(len(colours), size=len(seeds))] * rng.uniform(0.75, 1.2, (len(seeds), 1))
    joint = np.clip((near[..., 1] - near[..., 0]) / rng.uniform(0.5, 5), 0, 1)[..., None]
    line = np.full(3, 245.0) if rng.random() < 0.4 else rng.uniform(0, 60, 3)
    return shown[nearest] * joint + line * (1 - joint)


def _strokes(
    rng: np.random.Generator, colours: Values, angle: Values, width: tuple[int, int], length: tuple[float, float]
) -> Values:
    """Many short curved strokes that follow an angle field (256, 256)."""
    image = Image.fromarray(np.broadcast_to(colours[0], (SIDE, SIDE, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(500, 1800))):
        y, x = rng.uniform(0, SIDE, 2)
        points = [(x, y)]
        for _ in range(5):
            direction = angle[int(np.clip(y, 0, SIDE - 1)), int(np.clip(x, 0, SIDE - 1))]
            step = rng.uniform(*length) / 5
            x, y = x + step * np.cos(direction), y + step * np.sin(direction)
            points.append((x, y))
        colour = np.clip(colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.2) + rng.normal(0, 8, 3), 0, 255)
        draw.line(points, tuple(int(value) for value in colour), int(rng.integers(width[0], width[1] + 1)), "curve")
    return np.asarray(image, dtype=np.float64)


def strokes(rng: np.random.Generator, colours: Values) -> Values:
    """Brush strokes in a direction that drifts."""
    angle = rng.uniform(0, np.pi) + rng.uniform(0.1, 1.2) * field(rng, int(rng.integers(2, 6)))
    broad = int(rng.integers(2, 10))
    return _strokes(rng, colours, angle, (broad, broad + 4), (10, rng.uniform(20, 70)))


def swirls(rng: np.random.Generator, colours: Values) -> Values:
    """Strokes that turn around a few centres."""
    y, x = np.mgrid[:SIDE, :SIDE]
    across, down = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for a, b in rng.uniform(0, SIDE, (int(rng.integers(2, 8)), 2)):
        weight = np.exp(-np.hypot(y - a, x - b) / rng.uniform(20, 90)) * rng.choice([-1, 1])
        across, down = across - (y - a) * weight, down + (x - b) * weight
    broad = int(rng.integers(2, 6))
    return _strokes(rng, colours, np.arctan2(down, across), (broad, broad + 3), (15, 60))


def dots(rng: np.random.Generator, colours: Values) -> Values:
    """Discs of many sizes, rimmed or not."""
    image = Image.fromarray(np.broadcast_to(colours[0], (SIDE, SIDE, 3)).astype(np.uint8))
    draw, rim, largest = ImageDraw.Draw(image), rng.random() < 0.4, rng.uniform(3, 22)
    for _ in range(int(rng.integers(200, 1500))):
        (y, x), radius = rng.uniform(0, SIDE, 2), rng.uniform(1.5, largest)
        colour = tuple(int(value) for value in colours[rng.integers(len(colours))])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, (20, 20, 20) if rim else None)
    return np.asarray(image, dtype=np.float64)


def shards(rng: np.random.Generator, colours: Values) -> Values:
    """Overlapping triangles and bars."""
    image = Image.fromarray(np.broadcast_to(colours[0], (SIDE, SIDE, 3)).astype(np.uint8))
    draw, reach, rim = ImageDraw.Draw(image), rng.uniform(15, 70), rng.random() < 0.4
    for _ in range(int(rng.integers(80, 400))):
        centre = rng.uniform(0, SIDE, 2)
        corners = [tuple(centre + rng.uniform(-reach, reach, 2)) for _ in range(int(rng.integers(3, 5)))]
        colour = np.clip(colours[rng.integers(len(colours))] * rng.uniform(0.7, 1.2), 0, 255)
        draw.polygon(corners, tuple(int(value) for value in colour), (15, 15, 15) if rim else None)
    return np.asarray(image, dtype=np.float64)


def scratches(rng: np.random.Generator, colours: Values) -> Values:
    """Thin lines of ink on paper, one way, crossed or every way."""
    paper, ink = (colours[-1], colours[0]) if rng.random() < 0.7 else (colours[0], colours[-1])
    ways = rng.uniform(0, np.pi, int(rng.integers(1, 4)))
    angle = ways[rng.integers(len(ways), size=(SIDE, SIDE))] + rng.uniform(0, 0.5) * field(rng, 3)
    return _strokes(
        rng, np.stack([paper, ink, ink, ink]), angle, (1, int(rng.integers(1, 4))), (8, rng.uniform(15, 60))
    )


def cloth(rng: np.random.Generator, colours: Values) -> Values:
    """Threads that cross, or stitches on a grid."""
    y, x = np.mgrid[:SIDE, :SIDE]
    period = rng.uniform(5, 26)
    first, second = (np.abs(np.sin(np.pi * axis / period)) for axis in (x + rng.uniform(-1, 1) * y, y))
    over = (np.floor(x / period) + np.floor(y / period)) % 2 if rng.random() < 0.6 else (_unit(field(rng, 12)) > 0.5)
    return ramp(np.clip(np.where(over, first, second) * 0.8 + 0.15 * field(rng, 20), 0, 1), colours)


def rings(rng: np.random.Generator, colours: Values) -> Values:
    """Concentric bands around a few centres."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = rng.uniform(0, SIDE, (int(rng.integers(1, 9)), 2))
    distance = np.min([np.hypot(y - a, x - b) for a, b in centres], axis=0) + rng.uniform(0, 8) * field(rng, 6)
    wave = np.sin(2 * np.pi * distance / rng.uniform(6, 30)) * 0.5 + 0.5
    return ramp(np.round(wave * 3) / 3 if rng.random() < 0.5 else wave, colours)


def grain(rng: np.random.Generator, colours: Values) -> Values:
    """Coarse speckles of pigment over soft patches."""
    patches = clouds(rng, colours)
    spots = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(0.6, 2.5)))
    )
    speckle = _unit(np.asarray(spots, dtype=np.float64)) > rng.uniform(0.4, 0.85)
    return np.where(speckle[..., None], colours[rng.integers(len(colours))] * 0.5 + patches * 0.5, patches)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "fog": clouds, "marble": marble, "glass": cells, "brush": strokes, "swirl": swirls, "dots": dots, "paper": shards,
        "etching": scratches, "cloth": cloth, "ripple": rings, "crayon": grain,
    }
)  # fmt: skip
"""Word that stands for a kind in the names of its styles → how it is drawn."""


def draw_style(kind: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Values]:
    """A style picture uint8 (256, 256, 3) of this kind, and the palette it was drawn with."""
    colours = palette(rng)
    picture = KINDS[kind](rng, colours)
    return np.clip(picture, 0, 255).round().astype(np.uint8), colours
