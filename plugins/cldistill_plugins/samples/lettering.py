"""Small blocks of text for pictures: a dark title that shrinks to fit, and pale small print that wraps.

Pillow's own font needs no file on the machine, but holds Western letters only; a text with others is set in a font of
the system if one is found, and its unknown letters become "?" if not.  Text is drawn four times larger and reduced: at
small sizes Pillow rounds the width of every letter to whole pixels, which closes up the words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.Image import Image

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (28, 28, 33)
PALE = (122, 122, 132)
TITLE, SMALLEST, SMALL_PRINT = 15, 10, 11
SCALE = 4
ASCII = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "“": '"', "”": '"', "’": "'", "→": ">"})
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf",
)  # fmt: skip


@dataclass(frozen=True)
class TextLine:
    """One set line."""

    text: str
    size: int
    colour: tuple[int, int, int]

    @property
    def height(self) -> int:
        """Pixels from this line's top to the next one's."""
        return round(self.size * 1.3)

    @property
    def width(self) -> int:
        """Pixels across."""
        return round(_length(self.text, self.size) + 0.5)


@dataclass(frozen=True)
class TextBlock:
    """Lines under one another."""

    lines: tuple[TextLine, ...]

    @property
    def width(self) -> int:
        """Width of the widest line, in pixels."""
        return max((line.width for line in self.lines), default=0)

    @property
    def height(self) -> int:
        """Height of all lines, in pixels."""
        return sum(line.height for line in self.lines)

    def draw(self, sheet: Image, x: int, y: int, align: Literal["left", "middle", "right"]) -> None:
        """Draw the block with its upper left corner at ``x, y``, its lines aligned within its width."""
        share = {"left": 0.0, "middle": 0.5, "right": 1.0}[align]
        for line in self.lines:
            mask = Pillow.new("L", (line.width * SCALE, line.height * SCALE), 0)
            ImageDraw.Draw(mask).text((0, 0), line.text, font=_font(line.text, line.size * SCALE), fill=255)
            sheet.paste(line.colour, (x + round((self.width - line.width) * share), y), mask.reduce(SCALE))
            y += line.height


def set_text(text: str, width: int, height: int | None = None) -> TextBlock:
    """Set a text into ``width`` pixels: its first line dark, shrunk to fit if it can; the rest pale, small and wrapped.

    Lines beyond ``height`` pixels are cut off.
    """
    title, _, rest = text.partition("\n")
    title, rest = _drawable(title), _drawable(rest)
    lines: list[TextLine] = []
    if title.strip():
        size = next((s for s in range(TITLE, SMALLEST, -1) if _length(title, s) <= width), SMALLEST)
        lines += [TextLine(part, size, INK) for part in _wrap(title, size, width)]
    if rest.strip():
        lines += [TextLine(part, SMALL_PRINT, PALE) for part in _wrap(rest, SMALL_PRINT, width)]
    while height is not None and len(lines) > 1 and TextBlock(tuple(lines)).height > height:
        lines.pop()
    return TextBlock(tuple(lines))


def _wrap(text: str, size: int, width: int) -> Iterator[str]:
    """Break a text at spaces, and a word that is too long anywhere, so that no line is wider than ``width``."""
    line = ""
    for word in text.split():
        if line and _length(f"{line} {word}", size) > width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
        while _length(line, size) > width and len(line) > 1:
            fit = next((n for n in range(len(line) - 1, 1, -1) if _length(line[:n], size) <= width), 1)
            yield line[:fit]
            line = line[fit:]
    if line:
        yield line


def _length(text: str, size: int) -> float:
    return _font(text, size * SCALE).getlength(text) / SCALE


def _drawable(text: str) -> str:
    """Replace what no font at hand can draw."""
    plain = unicodedata.normalize("NFC", text).translate(ASCII)
    if _covers_all(None, plain) or _system_font(plain) is not None:
        return plain
    return "".join(char if char.isspace() or _covers(None, char) else "?" for char in plain)


def _font(text: str, size: int) -> Font:
    return _open(None if _covers_all(None, text) else _system_font(text), size)


@cache
def _system_font(text: str) -> str | None:
    return next((name for name in SYSTEM_FONTS if _exists(name) and _covers_all(name, text)), None)


@cache
def _exists(name: str) -> bool:
    try:
        _open(name, 20)
    except OSError:
        return False
    return True


def _covers_all(name: str | None, text: str) -> bool:
    return all(char.isspace() or _covers(name, char) for char in set(text))


@cache
def _covers(name: str | None, char: str) -> bool:
    """Return whether a font has a letter: it draws another picture than for a code point that no font has."""
    font = _open(name, 20)
    return bytes(font.getmask(char)) != bytes(font.getmask("\U0010fffe"))


@cache
def _open(name: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
