"""Every picture of a listing decoded once, so that a damaged one is told before a run and not in its midst."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cldistill.data.items import Listing
from cldistill.errors import DataError
from cldistill.records import Item
from cldistill.storage.files import atomic_write_text, default_cache, sampled_digest
from cldistill.storage.untrusted import parse_json
from cldistill_plugins.data.pictures import open_file

ASPECT = 0.02
"""Part by which the shapes of before and after may differ; one of them is stretched to the other."""
KNOWN = "pictures.json"
"""In the cache: digest of a sound picture -> its width and height."""
TURNED = (5, 6, 7, 8)
"""Orientations of EXIF in which width and height change places."""


def picture_sizes(paths: Iterable[Path]) -> dict[Path, tuple[int, int] | DataError]:
    """Decode pictures cheaply, those of known content not again: path -> upright width and height, or what is wrong."""
    listed, file = list(dict.fromkeys(paths)), default_cache() / KNOWN
    known: dict[str, list[int]] = {}
    with suppress(OSError, ValueError):  # a damaged note is as good as none
        noted = parse_json(file.read_bytes())
        known = {key: size for key, size in noted.items() if _is_size(size)} if isinstance(noted, dict) else {}

    def look(path: Path) -> tuple[str, list[int] | DataError]:
        digest = sampled_digest(path) if path.is_file() else ""
        try:
            return digest, known.get(digest) or _size(path)
        except DataError as error:
            return digest, error

    with ThreadPoolExecutor() as workers:
        seen = dict(zip(listed, workers.map(look, listed), strict=True))
    new = {digest: size for digest, size in seen.values() if not isinstance(size, DataError) and digest not in known}
    if new:
        with suppress(OSError):  # a cache that cannot be written costs time alone
            atomic_write_text(file, json.dumps(known | new))
    return {path: size if isinstance(size, DataError) else (size[0], size[1]) for path, (_, size) in seen.items()}


def _is_size(noted: object) -> bool:
    return isinstance(noted, list) and len(noted) == 2 and all(type(side) is int and side > 0 for side in noted)


def _size(path: Path) -> list[int]:
    picture = open_file(path, draft=64)
    width, height = picture.info["full_size"]
    try:
        turned = picture.getexif().get(0x0112) in TURNED
    except Exception:  # broken EXIF: as `open_picture` takes it
        turned = False
    return [height, width] if turned else [width, height]


def unreadable(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for every picture that cannot be read."""
    return [str(size) for size in picture_sizes(paths).values() if isinstance(size, DataError)]


def without_damaged(listing: Listing, *, shapes: bool = True) -> Listing:
    """Return a listing without the items whose pictures cannot be read or differ in shape, each told in its problems."""
    sizes = picture_sizes(path for item in listing.items for path in _pictures(item))
    faults = {item.key: fault for item in listing.items if (fault := _fault(item, sizes, shapes))}
    left = tuple(item for item in listing.items if item.key not in faults)
    return replace(listing, items=left, problems=(*listing.problems, *faults.values()))


def _pictures(item: Item) -> tuple[Path, ...]:
    return item.sources if item.target is None else (*item.sources, item.target)


def _fault(item: Item, sizes: Mapping[Path, tuple[int, int] | DataError], shapes: bool) -> str | None:
    found = [sizes[path] for path in _pictures(item)]
    broken = next((str(size) for size in found if isinstance(size, DataError)), None)
    if broken or len(found) != 2 or not shapes:  # several references need not have the shape of the result
        return broken
    (wide, high), (width, height) = (size for size in found if not isinstance(size, DataError))
    if item.target is None or abs(wide * height / (high * width) - 1.0) <= ASPECT:
        return None
    return (
        f"{item.target}: is {width} x {height}, and {item.sources[0]} {wide} x {high}: one would be stretched by "
        f"{abs(wide * height / (high * width) - 1.0):.0%}; crop them to the same shape"
    )
