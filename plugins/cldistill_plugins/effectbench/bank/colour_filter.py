"""Colour filters: PyPI pilgram, twenty-five filters of a well-known photo app in CSS arithmetic.  Deterministic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from .effect import EffectError, Picture


@dataclass(frozen=True, slots=True)
class ColourFilter:
    """One of pilgram's filters, by its name there."""

    filter: str

    @property
    def made_with(self) -> str:
        return f"{self.package}, filter {self.filter}"

    @property
    def package(self) -> str:
        return "pilgram"

    @property
    def licence(self) -> str:
        return "Apache-2.0"

    def render(self, picture: Picture, seed: int) -> Picture:
        """Apply the filter; ``seed`` is not used.

        Raises:
            EffectError: pilgram is missing or has no such filter.
        """
        function = getattr(_module(), self.filter, None)
        if not callable(function):
            raise EffectError(f"pilgram has no filter {self.filter!r}")
        return np.array(function(Image.fromarray(picture)).convert("RGB"), dtype=np.uint8)


@cache
def _module() -> Any:
    try:
        import pilgram
    except ImportError as error:
        raise EffectError(f"this effect needs the package pilgram ({error}): pip install pilgram") from error
    return pilgram
