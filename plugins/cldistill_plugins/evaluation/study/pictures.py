"""Pictures that differ in what they show and in nothing else: same format, same size in pixels, same number of bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

SMALL = 256
"""Up to this side, in pixels, pictures are kept without loss."""
SIDE = 768
"""Longer sides are scaled down to this."""
QUALITY = 95
PACKET = (b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>', b'<?xpacket end="w"?>')
"""An empty XMP packet: the format lets it hold any number of blanks."""


def display_size(picture: Image.Image) -> tuple[int, int]:
    """Return the (width, height) at which a set shows its pictures: the source's, at most `SIDE`."""
    scale = min(1.0, SIDE / max(picture.size))
    return max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)


def encode_equally(pictures: Sequence[Image.Image], size: tuple[int, int]) -> list[bytes]:
    """Return WebP files of equal length; metadata of the originals does not survive.

    A blurred picture compresses better, so that a file's length would tell the systems apart: all are filled up to
    the longest.
    """
    shown = [
        picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures
    ]
    bare = [_encode(picture, 0) for picture in shown]
    longest = max(map(len, bare))
    made = [_encode(picture, longest - len(data)) for picture, data in zip(shown, bare, strict=True)]
    assert len({len(data) for data in made}) == 1
    return made


def _encode(picture: Image.Image, filling: int) -> bytes:
    """Encode with ``filling`` blanks; lengths of WebP files are even, and so is the difference of two of them."""
    buffer = io.BytesIO()
    packet = PACKET[0] + b" " * filling + PACKET[1]
    lossless = max(picture.size) <= SMALL
    picture.convert("RGB").save(buffer, "WEBP", lossless=lossless, quality=QUALITY, method=4, exact=True, xmp=packet)
    return buffer.getvalue()
