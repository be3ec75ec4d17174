"""``python -m cldistill_plugins.effectbench.bank.pictures OUT``: the pictures that EffectBench tests on.

Half are held-out art like the training pictures, of other subjects; half are photos, of a kind that nothing here was
trained on.  Photos are cut square around their middle, since the miniature's pictures are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .effect import EffectError, derived_seed
from .fetched import PHOTOS, fetched
from .pairs import pictures_in

HELD_OUT = ("cldistill_plugins.miniature", "pictures/held-out")
SIDE = 256
"""Side of a photo in pixels: twice the miniature's, which resizes what it is given."""


def write_test_pictures(out: Path, art: int, photos: int, seed: int = 7) -> list[Path]:
    """Write ``art`` held-out pictures and ``photos`` photos to ``out``, drawn once by ``seed``; returns the files.

    Raises:
        EffectError: fewer pictures than asked for, or photos that were not fetched.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawn = _draw(pictures_in(Path(str(files(HELD_OUT[0]).joinpath(HELD_OUT[1])))), art, seed, "held-out art")
    written = [Path(shutil.copyfile(path, out / f"art-{path.name}")) for path in drawn]
    for path in _draw(fetched(PHOTOS), photos, seed, "photos") if photos else ():
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
        square.save(out / f"photo-{path.stem}.png")
        written.append(out / f"photo-{path.stem}.png")
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
    given = parser.parse_args(arguments)
    try:
        written = write_test_pictures(given.out, given.art, given.photos)
    except EffectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} test pictures in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
