"""Writes an effect's training pairs as a user would keep them: ``source/``, ``target/`` and ``effect.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .apply import apply_effect
from .effect import EffectError, EffectRecord, Picture, derived_seed, package_version

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
SOURCES = ("cldistill_plugins.miniature", "pictures/train")
"""The pool that ships with the miniature base, as package and folder: art of animals and people."""
SHAPES = ((1, 1), (5, 3), (3, 5))
"""Width to height of pictures, in turn: square, landscape, portrait."""
RESERVED = 5
"""Every so-manyth picture of the pool is in no pair: on those, teachers are admitted and settings are chosen."""
_LICENCES = "LICENSES.md"


def write_bank(out: Path, effects: Iterable[EffectRecord], sources: Path, pairs: int, seed: int) -> list[Path]:
    """Write every effect's folder ``out/<effect>``; returns the folders.

    Each effect draws its own ``pairs`` sources from the pool, but for its reserve, without repetition.  The pool's
    ``LICENSES.md`` (in it or beside it) is copied to ``out``, because the pairs are made from those pictures.

    Raises:
        EffectError: too few pictures in the pool, or an effect cannot be made.
    """
    pool = for_pairs(pictures_in(sources))
    if pairs < 1 or len(pool) < pairs:
        raise EffectError(f"{sources} holds {len(pool)} pictures, but {pairs} pairs an effect were asked for")
    out.mkdir(parents=True, exist_ok=True)
    copy_licences(sources, out)
    return [write_effect(out / effect.name, effect, choose(pool, effect, pairs, seed), seed) for effect in effects]


def copy_licences(sources: Path, out: Path) -> None:
    """Copy the pool's ``LICENSES.md``, in it or beside it, to ``out``: the pairs are made from those pictures."""
    for licences in (sources / _LICENCES, sources.parent / _LICENCES):
        if licences.is_file():
            shutil.copyfile(licences, out / _LICENCES)
            return


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name.

    Raises:
        EffectError: it is no folder or holds no pictures.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise EffectError(f"{folder} is not a folder with pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def for_pairs(pool: Sequence[Path]) -> list[Path]:
    """The pictures of a pool that pairs are made of."""
    return [path for place, path in enumerate(pool) if (place + 1) % RESERVED]


def reserve(pool: Sequence[Path]) -> list[Path]:
    """The pictures of a pool that no pair is made of."""
    return list(pool[RESERVED - 1 :: RESERVED])


def shaped(picture: Image.Image, turn: int) -> Image.Image:
    """A picture cut around its middle to the shape whose ``turn`` it is, with about as many pixels, sides divisible by 32."""
    wide, high = SHAPES[turn % len(SHAPES)]
    side = (picture.width * picture.height) ** 0.5
    width, height = (max(32, round(side * part / 32) * 32) for part in ((wide / high) ** 0.5, (high / wide) ** 0.5))
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def write_effect(folder: Path, effect: EffectRecord, sources: Sequence[Path], seed: int) -> Path:
    """Write ``folder/source/000.jpg``, ``folder/target/000.jpg``, ... and ``folder/effect.json``; returns ``folder``.

    The sources are square, landscape and portrait in turn, since people's pictures are.
    Files of an earlier run in the two picture folders are removed.  A stochastic effect gets one draw a pair.
    """
    records = []
    for part in ("source", "target"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    for i, path in enumerate(sources):
        picture = read_picture(path, i)
        draw = derived_seed("pair", seed, effect.name, path.name) if effect.stochastic else None
        _save(folder / "source" / f"{i:03d}.jpg", picture)
        _save(folder / "target" / f"{i:03d}.jpg", apply_effect(effect, picture, draw))
        records.append({"file": f"{i:03d}.jpg", "source": path.name, "draw": draw})
    described = describe(effect) | {"seed": seed, "pairs": records}
    (folder / "effect.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return folder


def describe(effect: EffectRecord) -> dict[str, object]:
    """Return the contents of ``effect.json``, which lies beside an effect's pairs: name, prompt, provenance and licences."""
    return {
        "name": effect.name,
        "prompt": effect.prompt,
        "stochastic": effect.stochastic,
        "made_with": effect.recipe.made_with,
        "package": {"name": effect.recipe.package, "version": package_version(effect.recipe.package)},
        "licence_of_the_maker": effect.recipe.licence,
        "licence_of_the_pictures": f"Apache-2.0; made from the pictures that ../{_LICENCES} lists",
    }


def read_picture(path: Path, turn: int) -> Picture:
    """A picture file as uint8 (H, W, 3) RGB, in the shape whose ``turn`` it is."""
    try:
        with Image.open(path) as image:
            return np.array(shaped(image.convert("RGB"), turn), dtype=np.uint8)
    except OSError as error:
        raise EffectError(f"{path} cannot be read as a picture: {error}") from error


def choose(pool: Sequence[Path], effect: EffectRecord, pairs: int, seed: int) -> list[Path]:
    """Draw an effect's own ``pairs`` sources from the pool, without repetition."""
    generator = np.random.default_rng(derived_seed("sources", seed, effect.name))
    return [pool[int(i)] for i in generator.permutation(len(pool))[:pairs]]


def _save(path: Path, picture: Picture) -> None:
    # 4:4:4: halved colour planes would smear exactly the coloured edges that the effects are made of.
    Image.fromarray(picture).save(path, quality=95, subsampling=0, optimize=True)
