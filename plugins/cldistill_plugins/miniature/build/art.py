"""Emoji art of animals and people as RGBA sprites, fetched from npm and rendered with resvg.

Sources: Noto Emoji (Apache-2.0), Fluent Emoji and Fluent Emoji Flat (MIT), in the Iconify JSON packages.
"""

import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPRITE_SIZE = 160
"""Pixels a side of a rendered sprite: a little more than a picture, so that placing one only ever shrinks it."""

SETS = {"noto": "Apache-2.0", "fluent-emoji-flat": "MIT", "fluent-emoji": "MIT"}
"""Package `@iconify-json/<name>` → licence of its art."""

_ANIMALS = (
    *range(0x1F400, 0x1F43D), 0x1F43F, 0x1F54A, 0x1F577, *range(0x1F980, 0x1F9A0), *range(0x1F9A1, 0x1F9AF),
    0x1FAB0, 0x1FAB1, 0x1FAB2, 0x1FAB3, 0x1FABC, 0x1FABF, 0x1FACE, 0x1FACF,
)  # fmt: skip
_PEOPLE = (
    0x1F385, *range(0x1F466, 0x1F46A), 0x1F46E, *range(0x1F470, 0x1F479), 0x1F47C, 0x1F482, 0x1F575, 0x1F934, 0x1F935,
    0x1F936, 0x1F977, 0x1F9B8, 0x1F9B9, *range(0x1F9D1, 0x1F9D6), 0x1F9D9, 0x1F9DB, 0x1F9DC, 0x1F9DD, 0x1F9DE,
)  # fmt: skip
_WORKERS = ("1f9d1", "1f468", "1f469")


@dataclass(frozen=True, slots=True)
class Sprite:
    """One rendered drawing: its set, its code points (`1f436`, `1f469-200d-1f3a8`) and RGBA uint8 pixels (S, S, 4)."""

    source: str
    code: str
    pixels: NDArray[np.uint8]


def subject(code: str) -> str:
    """Return what a code-point sequence shows: the profession where a person has one (all genders share it), else itself."""
    return code.split("-200d-")[-1]


def is_held_out(code: str) -> bool:
    """Return whether a subject is kept for measuring: a fixed fifth of them, by the hash of the code point."""
    return hashlib.sha256(subject(code).encode()).digest()[0] % 5 == 0


def is_wanted(code: str) -> bool:
    """Return whether a code-point sequence shows one animal or one person in the default skin tone."""
    first, *rest = code.split("-")
    if not rest:
        return int(first, 16) in _ANIMALS or int(first, 16) in _PEOPLE
    return first in _WORKERS and rest[0] == "200d" and len(rest) == 2 and not rest[1].startswith(("1f9b", "1f46"))


def fetch_art(work: Path) -> Path:
    """Return the folder of the Iconify packages, running `npm install` in `work` where they are absent.

    Raises:
        ValueError: npm is missing or the installation failed.
    """
    folder = work / "node_modules" / "@iconify-json"
    if all((folder / name / "icons.json").is_file() for name in SETS):
        return folder
    work.mkdir(parents=True, exist_ok=True)
    packages = [f"@iconify-json/{name}" for name in SETS]
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(work), *packages]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ValueError("the emoji art comes from npm packages, but there is no `npm`: install Node.js") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"npm could not install the emoji art into {work}: {error.stderr.strip()}") from error
    return folder


def art_versions(folder: Path) -> dict[str, str]:
    """Version of every art package that lies in `folder`."""
    return {name: str(_read(folder / name / "package.json")["version"]) for name in SETS}


def load_sprites(work: Path) -> list[Sprite]:
    """Every wanted drawing of every set, rendered once and cached in `work/sprites.npz`; order is fixed."""
    cache = work / "sprites.npz"
    if not cache.is_file():
        sprites = list(_render_all(fetch_art(work)))
        np.savez(
            cache,
            pixels=np.stack([sprite.pixels for sprite in sprites]),
            names=np.array([f"{sprite.source}/{sprite.code}" for sprite in sprites]),
        )
    with np.load(cache) as stored:
        names, pixels = stored["names"], stored["pixels"]
    labels = [str(name).split("/") for name in names]
    return [Sprite(source, code, image) for (source, code), image in zip(labels, pixels, strict=True)]


def _render_all(folder: Path) -> Iterator[Sprite]:
    for source in SETS:
        # The 3-D Fluent set has no table of characters; its icons carry the flat set's names.
        table = _read(folder / ("noto" if source == "noto" else "fluent-emoji-flat") / "chars.json")
        icons = _read(folder / source / "icons.json")
        size = (icons.get("width", 16), icons.get("height", 16))
        for code, name in sorted(table.items()):
            if is_wanted(code) and name in icons["icons"]:
                yield Sprite(source, code, _render(icons["icons"][name], size))


def _render(icon: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    import resvg_py

    width, height = icon.get("width", size[0]), icon.get("height", size[1])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((SPRITE_SIZE, SPRITE_SIZE))
    return np.asarray(image, dtype=np.uint8)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
