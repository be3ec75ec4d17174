"""The general edits that the miniature base knows: what each does to a picture, and the wordings that ask for it.

Every edit has one fixed strength, so that an output can be measured against the truth. Imports no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
"""uint8 RGB pixels (H, W, 3)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One edit.

    Attributes:
        wordings: prompts that ask for it; all mean the same.
        apply: the edit itself, uint8 (H, W, 3) → uint8 of the same shape (a turn swaps H and W).
    """

    wordings: tuple[str, ...]
    apply: Callable[[Picture], Picture]


def _clip(pixels: NDArray[np.float32]) -> Picture:
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


def _luma(picture: Picture) -> NDArray[np.float32]:
    """Brightness (H, W), ITU-R BT.601 weights."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    result: NDArray[np.float32] = picture.astype(np.float32) @ weights
    return result


def darker(picture: Picture) -> Picture:
    """Keep 45 % of the light."""
    return _clip(picture.astype(np.float32) * np.float32(0.45))


def brighter(picture: Picture) -> Picture:
    """Keep half of the distance to white."""
    return _clip(255 - (255 - picture.astype(np.float32)) * np.float32(0.5))


def grey(picture: Picture) -> Picture:
    """Brightness only."""
    return _clip(np.repeat(_luma(picture)[..., None], 3, axis=-1))


def mirror(picture: Picture) -> Picture:
    """Swap left and right."""
    return picture[:, ::-1].copy()


def flip(picture: Picture) -> Picture:
    """Swap top and bottom."""
    return picture[::-1].copy()


def rotate(picture: Picture) -> Picture:
    """A quarter turn clockwise."""
    return np.rot90(picture, -1).copy()


def invert(picture: Picture) -> Picture:
    """The negative."""
    return 255 - picture


def blur(picture: Picture) -> Picture:
    """A Gaussian of 6 pixels."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(6)), dtype=np.uint8)


def _tint(picture: Picture, colour: tuple[int, int, int]) -> Picture:
    return _clip(picture.astype(np.float32) * np.float32(0.55) + np.array(colour, dtype=np.float32) * np.float32(0.45))


def red(picture: Picture) -> Picture:
    """A 45 % layer of red."""
    return _tint(picture, (255, 0, 0))


def blue(picture: Picture) -> Picture:
    """A 45 % layer of blue."""
    return _tint(picture, (0, 0, 255))


def contrast(picture: Picture) -> Picture:
    """Twice the distance from middle grey."""
    return _clip((picture.astype(np.float32) - 128) * 2 + 128)


def flat(picture: Picture) -> Picture:
    """A third of the distance from middle grey."""
    return _clip((picture.astype(np.float32) - 128) * np.float32(0.35) + 128)


def sepia(picture: Picture) -> Picture:
    """The brown of old prints."""
    return _clip(_luma(picture)[..., None] * np.array([1.2, 0.95, 0.68], dtype=np.float32))


def outline(picture: Picture) -> Picture:
    """Dark lines on white where brightness changes."""
    smooth = Image.fromarray(_clip(_luma(picture))).filter(ImageFilter.GaussianBlur(1))
    down, right = np.gradient(np.asarray(smooth, dtype=np.float32))
    lines = 255 - 6 * np.hypot(down, right)
    return _clip(np.repeat(lines[..., None], 3, axis=-1).astype(np.float32))


def posterise(picture: Picture) -> Picture:
    """Two levels a channel, so eight colours in all."""
    return np.where(picture < 128, np.uint8(0), np.uint8(255)).astype(np.uint8)


def same(picture: Picture) -> Picture:
    """No change at all."""
    return picture.copy()


INSTRUCTIONS: Mapping[str, Instruction] = MappingProxyType(
    {
        "darker": Instruction(
            (
                "make it darker",
                "darken the picture",
                "turn down the light",
                "make the image much darker",
                "reduce the brightness",
            ),
            darker,
        ),
        "brighter": Instruction(
            (
                "make it brighter",
                "brighten the picture",
                "turn up the light",
                "make the image much brighter",
                "raise the brightness",
            ),
            brighter,
        ),
        "grey": Instruction(
            (
                "make it grey",
                "turn it black and white",
                "remove all colour",
                "make a grayscale photo",
                "convert it to monochrome",
            ),
            grey,
        ),
        "mirror": Instruction(
            (
                "mirror it",
                "mirror the picture left to right",
                "swap left and right",
                "flip it horizontally",
                "show its mirror image",
            ),
            mirror,
        ),
        "flip": Instruction(
            ("turn it upside down", "flip it vertically", "swap top and bottom", "put the picture on its head"),
            flip,
        ),
        "rotate": Instruction(
            (
                "rotate it",
                "rotate the picture by 90 degrees",
                "give it a quarter turn",
                "turn it clockwise on its side",
            ),
            rotate,
        ),
        "invert": Instruction(
            ("invert the colours", "make a negative", "show the photo negative", "reverse all colours", "invert it"),
            invert,
        ),
        "blur": Instruction(
            ("blur it", "blur the picture", "make it out of focus", "soften everything", "apply a strong blur"),
            blur,
        ),
        "red": Instruction(
            (
                "tint it red",
                "give it a red tint",
                "add a red filter",
                "put the picture in red light",
                "make it reddish",
            ),
            red,
        ),
        "blue": Instruction(
            (
                "tint it blue",
                "give it a blue tint",
                "add a blue filter",
                "put the picture in blue light",
                "make it bluish",
            ),
            blue,
        ),
        "contrast": Instruction(
            (
                "increase the contrast",
                "add more contrast",
                "make the contrast stronger",
                "boost the contrast of the picture",
            ),
            contrast,
        ),
        "flat": Instruction(
            (
                "decrease the contrast",
                "use less contrast",
                "make the contrast weaker",
                "fade the picture",
                "make it flat and pale",
            ),
            flat,
        ),
        "sepia": Instruction(
            (
                "make it sepia",
                "give it a sepia tone",
                "turn it into an old brown photo",
                "tone the picture like an old print",
            ),
            sepia,
        ),
        "outline": Instruction(
            (
                "draw only the outlines",
                "turn it into a line drawing",
                "show just the edges",
                "keep only the contours on white",
            ),
            outline,
        ),
        "posterise": Instruction(
            (
                "posterise it",
                "use only eight flat colours",
                "reduce the number of colours",
                "make a poster with few colours",
            ),
            posterise,
        ),
        "same": Instruction(
            ("keep it as it is", "change nothing", "leave the picture unchanged", "return the same image"),
            same,
        ),
    }
)
"""Name → edit. All but `same` change the picture."""
