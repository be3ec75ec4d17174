"""A question to a vision-language model: text and pictures, as messages of the chat API, and as a key for its answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512
"""Longest side, in pixels, of the pictures that are sent."""


@dataclass(frozen=True)
class ChatQuestion:
    """A question to the model, written by a judge, captioner or router: instructions, then texts and pictures in order."""

    system: str
    parts: Sequence[str | Image]
    side: int = SIDE
    """Longest side of a picture as it is sent; larger ones are scaled down."""

    def messages(self) -> list[dict[str, Any]]:
        """Return the question as messages; pictures are PNG, as data addresses."""
        user = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": data_url(part, self.side)}}
            for part in self.parts
        ]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def key(self, *more: str | float | None) -> str:
        """Hash the question by content, with ``more`` that the answer depends on (the model, its temperature)."""
        parts = [["text", part] if isinstance(part, str) else ["picture", digest(part)] for part in self.parts]
        return hashlib.sha256(json.dumps([self.system, parts, self.side, *more]).encode()).hexdigest()


def digest(picture: Image) -> str:
    """Hash a picture's mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()


def data_url(picture: Image, side: int = SIDE) -> str:
    """Return a picture as a PNG data address, no side longer than ``side``; the picture itself is left alone."""
    small = picture.copy()
    small.thumbnail((side, side))
    buffer = BytesIO()
    small.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
