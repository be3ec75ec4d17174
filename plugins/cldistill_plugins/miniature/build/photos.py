"""Photos for the transformer to train on, from Debian's GCompris data: buildings, landscapes, food, instruments.

They are fetched when the miniature is built and never committed. EffectBench tests on the animal photos of the same package,
so the files that hold those are left out, and every photo that looks like one of them.
"""

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

PACKAGE = "gcompris-qt-data"
RESOURCES = ("categorization", "details", "erase", "explore_monuments", "explore_world_music")
TESTED_ON = ("explore_farm_animals", "explore_world_animals")
"""Files of the package that EffectBench draws its test photos from."""
SMALLEST_SIDE = 200
COLOURS = 12_000
"""A photo has many thousands of colours at 160×160, a drawing of the same size few."""
TOO_NEAR = 12.0
"""Root mean square of the difference of two 16×16 thumbnails, in grey levels, below which they show one photo."""
STORED_SIDE = 288


def fetch_photos(work: Path) -> Path:
    """The folder `work/photos` of PNGs, with the short side at most 288 pixels; fetches them where it is absent.

    Raises:
        ValueError: apt-get or dpkg-deb is missing or fails.
    """
    folder = work / "photos"
    if folder.is_dir():
        return folder
    resources = _unpacked(work)
    tested_on = [thumbnail(photo) for photo in _photos(resources, TESTED_ON)]
    aside = work / "photos.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for index, photo in enumerate(unlike(_photos(resources, RESOURCES), tested_on)):
        photo.thumbnail((2 * STORED_SIDE, 2 * STORED_SIDE), Image.Resampling.LANCZOS)
        photo.save(aside / f"{index:03d}.png")
    shutil.rmtree(work / "gcompris")
    aside.rename(folder)
    return folder


def load_photos(work: Path) -> list[Image.Image]:
    """Every fetched photo, in order."""
    return [Image.open(path).convert("RGB") for path in sorted(fetch_photos(work).glob("*.png"))]


def thumbnail(photo: Image.Image) -> NDArray[np.float32]:
    """Grey levels (16, 16) by which one photo is known again in another size."""
    return np.asarray(photo.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def unlike(photos: Iterator[Image.Image], known: list[NDArray[np.float32]]) -> Iterator[Image.Image]:
    """Those photos that show none of the `known` ones, nor one another."""
    seen = list(known)
    for photo in photos:
        small = thumbnail(photo)
        if all(float(np.sqrt(np.square(small - other).mean())) > TOO_NEAR for other in seen):
            seen.append(small)
            yield photo


def _unpacked(work: Path) -> Path:
    folder = work / "gcompris"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _call(["apt-get", "download", PACKAGE], folder)
    except ValueError:
        # The list of packages may be missing or old; asking for it takes a while and needs root, so only then.
        _call(["apt-get", "update", "-qq"], folder)
        _call(["apt-get", "download", PACKAGE], folder)
    _call(["dpkg-deb", "-x", str(next(folder.glob("*.deb")).resolve()), str(folder.resolve())], folder)
    return folder / "usr/share/gcompris-qt/rcc"


def _call(command: list[str], where: Path) -> None:
    if shutil.which(command[0]) is None:
        raise ValueError(f"there is no `{command[0]}`: the photos come as a Debian package ({PACKAGE})")
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{command[0]} could not get the photos ({PACKAGE}): {done.stderr.strip()[-300:]}")


def _photos(resources: Path, names: tuple[str, ...]) -> Iterator[Image.Image]:
    for name in names:
        yield from filter(_is_photo, embedded(resources.joinpath(f"{name}.rcc").read_bytes()))


def embedded(data: bytes) -> Iterator[Image.Image]:
    """The WEBP and JPEG pictures that lie in a file uncompressed, with sides of at least 200 pixels."""
    for marker in (b"RIFF", b"\xff\xd8\xff"):
        start = data.find(marker)
        while start >= 0:
            if marker != b"RIFF" or data[start + 8 : start + 12] == b"WEBP":
                try:
                    with Image.open(io.BytesIO(data[start:])) as image:
                        if min(image.size) >= SMALLEST_SIDE:
                            yield image.convert("RGB")
                except (OSError, UnidentifiedImageError, ValueError):
                    pass
            start = data.find(marker, start + 4)


def _is_photo(picture: Image.Image) -> bool:
    colours = picture.resize((160, 160)).getcolors(160 * 160)
    return colours is not None and len(colours) > COLOURS
