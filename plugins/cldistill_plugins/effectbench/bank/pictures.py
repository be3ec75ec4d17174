"""``python -m cldistill_plugins.effectbench.bank.pictures OUT``: the pictures that EffectBench tests on.

Half are held-out art like the training pictures, of other subjects; half are photos, of a kind that no effect here was
trained on; a third of both are square, landscape and portrait.  With ``--reserve`` they are those of the training split
that no pair is made of: on them teachers are admitted and settings are chosen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .effect import EffectError, derived_seed
from .fetched import PHOTOS, fetched
from .pairs import SOURCES, pictures_in, reserve, shaped

HELD_OUT = ("cldistill_plugins.miniature", "pictures/held-out")
SIDE = 256
"""Side of a square photo in pixels: twice the miniature's, which resizes what it is given."""


def write_test_pictures(out: Path, art: int, photos: int, seed: int = 7) -> list[Path]:
    """Write ``art`` held-out pictures and ``photos`` photos to ``out``, drawn once by ``seed``; returns the files.

    Raises:
        EffectError: fewer pictures than asked for, or photos that were not fetched.
    """
    held_out = _draw(pictures_in(_folder(HELD_OUT)), art, seed, "held-out art")
    written = [_write(out, "art", path, turn) for turn, path in enumerate(held_out)]
    chosen = _draw(fetched(PHOTOS), photos, seed, "photos") if photos else []
    return written + [_write(out, "photo", path, art + turn, SIDE) for turn, path in enumerate(chosen)]


def write_reserve(out: Path) -> list[Path]:
    """Write the training pictures that no pair is made of to ``out``; returns the files."""
    kept = reserve(pictures_in(_folder(SOURCES)))
    return [_write(out, "art", path, turn) for turn, path in enumerate(kept)]


def _folder(place: tuple[str, str]) -> Path:
    return Path(str(files(place[0]).joinpath(place[1])))


def _write(out: Path, kind: str, path: Path, turn: int, side: int | None = None) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if side is not None:
        picture = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    written = out / f"{kind}-{path.stem}.png"
    shaped(picture, turn).save(written)
    return written


def _draw(pool: Sequence[Path], count: int, seed: int, what: str) -> list[Path]:
    if count > len(pool):
        raise EffectError(f"{count} {what} were asked for, and there are {len(pool)}")
    order = np.random.default_rng(derived_seed("test pictures", what, seed)).permutation(len(pool))
    return [pool[int(index)] for index in sorted(order[:count])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cldistill_plugins.effectbench.bank.pictures")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--art", type=int, default=6, help="held-out art (default: 6)")
    parser.add_argument("--photos", type=int, default=6, help="photos, fetched beforehand (default: 6)")
    parser.add_argument("--reserve", action="store_true", help="the training pictures that no pair is made of, instead")
    given = parser.parse_args(arguments)
    try:
        reserved = given.reserve
        written = write_reserve(given.out) if reserved else write_test_pictures(given.out, given.art, given.photos)
    except EffectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} pictures in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
