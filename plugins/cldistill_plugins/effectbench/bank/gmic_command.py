"""G'MIC commands as effects (PyPI gmic, the whole interpreter in one wheel).

G'MIC's random numbers follow ``srand``: with it a command is bit-identical from run to run, so every command is run
behind a seed, and a fresh draw is just a fresh seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .effect import EffectError, Picture, derived_seed


@dataclass(frozen=True, slots=True)
class GmicCommand:
    """A command line over one RGB image with values in 0..255; it must leave one image of the same size first.

    Attributes:
        command: G'MIC code.
        summary: the command in words, for people.
    """

    command: str
    summary: str

    @property
    def made_with(self) -> str:
        return f"{self.package}, {self.summary}"

    @property
    def package(self) -> str:
        return "gmic"

    @property
    def licence(self) -> str:
        return "CeCILL-2.1"

    def render(self, picture: Picture, seed: int) -> Picture:
        """Run the command after ``srand``; the seed is hashed first, because small seeds give G'MIC alike numbers.

        Raises:
            EffectError: gmic is missing, or the command fails or changes the picture's size.
        """
        gmic = _module()
        # from_yxc: numpy pictures are (y, x, c), while Image() itself would take the array as (x, y, z, c).
        image = gmic.Image.from_yxc(picture.astype(np.float32))
        try:
            images = _interpreter().run(f"srand {derived_seed(seed)} {self.command}", gmic.ImageList([image]))
        except gmic.GmicException as error:
            raise EffectError(f"the G'MIC command {self.command!r} failed: {error}") from error
        # A copy: the array is a view of memory that the interpreter frees.
        result = np.array(images[0].yxc, dtype=np.float32, copy=True)
        if result.shape[:2] != picture.shape[:2]:
            raise EffectError(
                f"the G'MIC command {self.command!r} changed the size from {picture.shape[:2]} to {result.shape[:2]}; "
                "an effect must stay aligned with its source"
            )
        colour = result[..., :3] if result.shape[2] >= 3 else np.repeat(result[..., :1], 3, axis=2)
        return np.clip(np.rint(np.nan_to_num(colour)), 0, 255).astype(np.uint8)


@cache
def _module() -> Any:
    try:
        import gmic
    except ImportError as error:
        raise EffectError(f"this effect needs the package gmic ({error}): pip install gmic") from error
    return gmic


@cache
def _interpreter() -> Any:
    # Starting an interpreter parses G'MIC's whole standard library; one is enough.
    return _module().Gmic()
