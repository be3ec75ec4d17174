"""Pictures that are fetched and never committed: photos of animals, and paintings, from Debian's GCompris data.

``python -m cldistill_plugins.effectbench.bank.fetched`` asks apt for the package ``gcompris-qt-data`` (44 MB) and cuts the
pictures out of its resource files.  The photos are the out-of-distribution test; the paintings give styles.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .effect import EffectError

PACKAGE = "gcompris-qt-data"
PHOTOS = "photos"
PAINTINGS = "paintings"
FOLDER_VARIABLE = "CLDISTILL_PICTURES"
"""Environment variable that names the folder of fetched pictures, instead of a folder in the cache."""

_RESOURCES = {
    PHOTOS: ("explore_farm_animals", "explore_world_animals"),
    PAINTINGS: ("paintings",),
}
_SMALLEST_SIDE = 200
_PHOTO_COLOURS = 12_000
"""A photo has many thousands of colours, a drawing of the same size few: how the two are told apart."""
_COMMAND = "python -m cldistill_plugins.effectbench.bank.fetched"


def folder() -> Path:
    """Return where fetched pictures lie."""
    cache = Path(os.environ.get("CLDISTILL_CACHE") or Path.home() / ".cache" / "cldistill")
    return Path(os.environ.get(FOLDER_VARIABLE) or cache / "gcompris")


def fetched(kind: str) -> list[Path]:
    """Return the pictures of a kind, sorted.

    Raises:
        EffectError: they were not fetched; the message has the command.
    """
    found = sorted((folder() / kind).glob("*.png"))
    if not found:
        raise EffectError(f"the {kind} of GCompris are not here; fetch them (44 MB, Debian's archive): {_COMMAND}")
    return found


def fetch() -> dict[str, int]:
    """Fetch the package and write ``folder()/<kind>/000.png`` and so on; returns the number of pictures of each kind.

    Raises:
        EffectError: apt-get or dpkg-deb is missing or fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(Path(scratch))
        _call(["dpkg-deb", "-x", str(archive), scratch], Path(scratch))
        resources = Path(scratch) / "usr/share/gcompris-qt/rcc"
        return {kind: _write(kind, resources, names) for kind, names in _RESOURCES.items()}


def _download(scratch: Path) -> Path:
    try:
        _call(["apt-get", "download", PACKAGE], scratch)
    except EffectError:
        # An archive list that is missing or old: only then, because it takes a while and needs root.
        _call(["apt-get", "update", "-qq"], scratch)
        _call(["apt-get", "download", PACKAGE], scratch)
    return next(scratch.glob("*.deb"))


def _call(command: list[str], where: Path) -> None:
    if shutil.which(command[0]) is None:
        raise EffectError(f"{command[0]} is not here: these pictures come as a Debian package ({PACKAGE})")
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EffectError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def _write(kind: str, resources: Path, names: tuple[str, ...]) -> int:
    target = folder() / kind
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    seen: set[str] = set()
    for name in names:
        for picture in embedded_pictures((resources / f"{name}.rcc").read_bytes()):
            digest = hashlib.sha256(picture.tobytes()).hexdigest()
            if digest not in seen and (kind == PAINTINGS or is_photo(picture)):
                picture.save(target / f"{len(seen):03d}.png")
                seen.add(digest)
    return len(seen)


def embedded_pictures(data: bytes) -> Iterator[Image.Image]:
    """Yield the WEBP and JPEG pictures that lie in a file uncompressed, with sides of at least 200 pixels."""
    for marker, offset in ((b"RIFF", 0), (b"\xff\xd8\xff", 0)):
        start = data.find(marker)
        while start >= 0:
            if marker != b"RIFF" or data[start + 8 : start + 12] == b"WEBP":
                picture = _decoded(data[start + offset :])
                if picture is not None and min(picture.size) >= _SMALLEST_SIDE:
                    yield picture
            start = data.find(marker, start + 4)


def _decoded(data: bytes) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError):
        return None


def is_photo(picture: Image.Image) -> bool:
    """Tell a photo from a drawing by its number of colours."""
    small = picture.resize((160, 160))
    colours = small.getcolors(160 * 160)
    return colours is not None and len(colours) > _PHOTO_COLOURS


def main() -> int:
    """Run the command; returns the exit status."""
    try:
        for kind, count in fetch().items():
            print(f"{folder() / kind}: {count} pictures")
    except EffectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
