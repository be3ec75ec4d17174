"""One picture of any file: decoded, upright, in sRGB."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

DECODERS = {
    b"ftyphei": ("HEIC", "pillow_heif", "pillow-heif"), b"ftyphev": ("HEIC", "pillow_heif", "pillow-heif"),
    b"ftypmif1": ("HEIC", "pillow_heif", "pillow-heif"), b"ftypavi": ("AVIF", "pillow_avif", "pillow-avif-plugin"),
    b"JXL ": ("JPEG XL", "pillow_jxl", "pillow-jxl-plugin"), b"\xff\x0a": ("JPEG XL", "pillow_jxl", "pillow-jxl-plugin"),
}  # fmt: skip
"""Bytes near a file's beginning -> its format, and the module and package that teach it to Pillow."""


def open_picture(picture: Path | str | Image) -> Image:
    """Return an RGB picture of any file or PIL image: sRGB, EXIF rotation applied, transparency laid on white.

    Of an animation the first frame.  Raises `DataError` with the path if the file is missing or no picture.
    """
    from PIL import Image as Pillow

    upright = _srgb(_upright(open_file(picture) if isinstance(picture, (str, Path)) else picture))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    if upright.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        upright = _eight_bit(upright)
    return upright.convert("RGB")


def open_file(path: Path | str, draft: int | None = None) -> Image:
    """Return a file's decoded picture as it lies there; with ``draft`` a JPEG about so large: cheaper, and read to its end.

    Raises `DataError` with the path, the reason and what to do.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):  # it would be read for ever
        raise DataError(f"{path}: is a pipe or device with the name of a picture; remove it, or move it away")
    try:
        try:
            opened: Image = Pillow.open(path)
        except UnidentifiedImageError:
            _load_decoder(Path(path))
            opened = Pillow.open(path)
        size = opened.size
        if draft is not None:
            opened.draft("RGB", (draft, draft))
        opened.load()
        opened.info["full_size"] = size
    except FileNotFoundError as error:
        link = Path(path).is_symlink()
        raise DataError(f"{path}: {'is a link to a file that is not there' if link else 'no such picture'}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder with the name of a picture; rename it or move it away") from error
    except Pillow.DecompressionBombError as error:
        raise DataError(f"{path}: has more pixels than Pillow opens ({error}): make it smaller") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as a picture ({error}); save it anew, or remove it") from error
    return opened


def _load_decoder(path: Path) -> None:
    """Let the plugin of Pillow for a file's format register itself, judged by its first bytes, whatever its name.

    Raises `DataError` naming the package to install; does nothing where the format is none of these.
    """
    with path.open("rb") as file:
        head = file.read(12)
    found = next((names for mark, names in DECODERS.items() if mark in head), None)
    if found is None:
        return
    form, module, package = found
    try:
        decoder = import_module(module)
    except ImportError as error:
        raise DataError(f"{path}: is {form}, which Pillow reads by another package; pip install {package}") from error
    getattr(decoder, "register_heif_opener", lambda: None)()


def _upright(picture: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF raises whatever its parser meets; the picture is sound without
        return picture


def _srgb(picture: Image) -> Image:
    """Convert from a picture's ICC profile to sRGB; a broken profile is left aside, and LAB needs none."""
    from PIL import ImageCms

    icc, lab = picture.info.get("icc_profile"), picture.mode == "LAB"
    if picture.mode not in ("RGB", "RGBA", "CMYK", "L", "P", "LAB") or not (icc or lab):
        return picture
    try:
        profile = ImageCms.createProfile("LAB") if lab else ImageCms.ImageCmsProfile(BytesIO(icc or b""))
        if not lab and "sRGB" in ImageCms.getProfileDescription(profile):
            return picture
        if picture.mode == "P":
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        done = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode=mode)
        return picture if done is None else done
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture


def _eight_bit(picture: Image) -> Image:
    """Scale a 16-bit or float picture to 8 bits; Pillow's own conversion clips instead."""
    import numpy as np
    from PIL import Image as Pillow

    values = np.asarray(picture, dtype=np.float64)
    top = 65535.0 if values.max(initial=0.0) > 255 else (255.0 if values.max(initial=0.0) > 1 else 1.0)
    return Pillow.fromarray((values / top * 255.0).round().clip(0, 255).astype("uint8"))
