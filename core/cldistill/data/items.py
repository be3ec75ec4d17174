"""Pictures, pairs and instructions on disk.  Listing is torch-free, so that ``check`` can look at a whole data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import DataError
from cldistill.records import GENERAL, EffectInfo, Item

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def open_picture(picture: Path | str | Image) -> Image:
    """Return an RGB picture of any file or PIL image: EXIF rotation applied, transparency laid on white.

    Raises `DataError` with the path if the file is missing or no picture.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    if isinstance(picture, (str, Path)):
        try:
            opened: Image = Pillow.open(picture)
            opened.load()
        except FileNotFoundError as error:
            raise DataError(f"{picture}: no such picture") from error
        except Pillow.DecompressionBombError as error:
            raise DataError(f"{picture}: has more pixels than Pillow opens ({error}): make it smaller") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{picture}: cannot be read as a picture ({error})") from error
        picture = opened
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    if upright.mode in ("I", "I;16", "F"):
        upright = _eight_bit(upright)
    return upright.convert("RGB")


def _eight_bit(picture: Image) -> Image:
    """Scale a 16-bit or float picture to 8 bits; Pillow's own conversion clips instead."""
    import numpy as np
    from PIL import Image as Pillow

    values = np.asarray(picture, dtype=np.float64)
    top = 65535.0 if values.max(initial=0.0) > 255 else (255.0 if values.max(initial=0.0) > 1 else 1.0)
    return Pillow.fromarray((values / top * 255.0).round().clip(0, 255).astype("uint8"))


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, sorted by name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def held_out_pictures(folder: Path, count: int | None = None) -> list[Path]:
    """Return the first ``count`` pictures of a folder, by name.

    Raises:
        DataError: there are none, or two have one name: a report knows them by it.
    """
    pictures = list_pictures(folder)[:count]
    if not pictures:
        raise DataError(f"{folder}: holds no pictures")
    for before, after in pairwise(pictures):
        if before.stem == after.stem:
            raise DataError(f"{after}: {before.name} has the same name; a report knows pictures by it, so rename one")
    return pictures


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return stem -> picture of one side of the pairs; ``1.png`` beside ``1.jpg`` would hide one of the two."""
    found: dict[str, Path] = {}
    for path in list_pictures(folder):
        if path.stem in found:
            raise DataError(
                f"{path}: {found[path.stem].name} has the same name; pairs go by it, so rename or remove one"
            )
        found[path.stem] = path
    return found


def effect_items(pairs: Path, pool: str, prompt: str) -> list[Item]:
    """List the pairs of one effect: a folder with ``source/`` and ``target/``, or a JSONL of source, target, prompt.

    A folder that holds pictures itself, and neither of the two, gives sources without after-pictures: enough for a teacher
    that exists already.  A line's prompt is what the teacher is told of that pair; without one it is the effect's ``prompt``.

    Raises `DataError` naming the first picture that has no partner, or the first bad line.
    """
    if pairs.suffix == ".jsonl":
        return [_jsonl_item(pairs, number, row, pool, prompt) for number, row in _rows(pairs)]
    if pairs.is_dir() and not any((pairs / side).exists() for side in ("source", "target")) and list_pictures(pairs):
        return [Item(f"{pool}/{stem}", pool, (path,), prompt) for stem, path in _by_stem(pairs).items()]
    targets, sources = _by_stem(pairs / "target"), _by_stem(pairs / "source")
    for stem, path in sources.items():
        if stem not in targets:
            raise DataError(f"{path}: has no after-picture of the same name in {pairs / 'target'}")
    for stem, path in targets.items():
        if stem not in sources:
            raise DataError(f"{path}: has no before-picture of the same name in {pairs / 'source'}")
    if not sources:
        raise DataError(f"{pairs / 'source'}: holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    return [Item(f"{pool}/{stem}", pool, (path,), prompt, targets[stem]) for stem, path in sources.items()]


def pairs_of(effect: EffectInfo) -> list[Item]:
    """List the pairs of an effect that has some: all, or ``effect.take`` of them, spread evenly over the sorted names.

    Raises `DataError` as `effect_items` does.
    """
    assert effect.pairs is not None
    return evenly(effect_items(effect.pairs, effect.name, effect.prompt), effect.take)


def drawn_by_name(items: Iterable[Item], count: int) -> list[Item]:
    """Return up to ``count`` of the items, always the same ones: those whose keys hash lowest."""
    return sorted(items, key=lambda item: hashlib.sha256(item.key.encode()).digest())[:count]


def evenly(items: list[Item], count: int | None) -> list[Item]:
    """Return ``count`` of the items, spread evenly over them; all where it is None or there are no more."""
    if count is None or count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def general_items(images: Path, instructions: Path) -> list[Item]:
    """List the general stream: a JSONL of ``image`` (or a list of them) and ``instruction``, relative to ``images``.

    A line may name the true result as ``target``, by which retention can be measured.
    """
    items = []
    for number, row in _rows(instructions):
        if not row.get("image") or not isinstance(row.get("instruction"), str):
            raise DataError(f'{instructions}:{number}: needs "image" and "instruction"')
        paths, target = _pictures(images, row["image"], row.get("target"), f"{instructions}:{number}")
        items.append(Item(f"{GENERAL}/{number:06d}", GENERAL, paths, row["instruction"], target))
    if not items:
        raise DataError(f"{instructions}: holds no instructions")
    return items


def _jsonl_item(file: Path, number: int, row: dict[str, Any], pool: str, prompt: str) -> Item:
    if not row.get("source") or not isinstance(row.get("target"), str):
        raise DataError(f'{file}:{number}: needs "source" and "target"')
    sources, target = _pictures(file.parent, row["source"], row["target"], f"{file}:{number}")
    own = row.get("prompt") or prompt
    if not isinstance(own, str):
        raise DataError(f'{file}:{number}: "prompt" must be text, not {type(own).__name__}')
    return Item(f"{pool}/{number:06d}", pool, sources, own, target)


def _pictures(
    folder: Path, names: str | list[str], target: str | None, where: str
) -> tuple[tuple[Path, ...], Path | None]:
    """Return the paths of a line's picture(s) and of its target, which must exist."""
    paths = tuple(folder / name for name in ([names] if isinstance(names, str) else names))
    result = folder / target if target else None
    for path in (*paths, *([result] if result else ())):
        if not path.is_file():
            raise DataError(f"{where}: {path}: no such picture")
    return paths, result


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 ({error}): save it as UTF-8") from error


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    # Only a newline ends a line: `splitlines` would also break a prompt at U+2028, which JSON allows in a string.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{file}:{number}: is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}:{number}: must be a JSON object, not {type(row).__name__}")
        yield number, row
