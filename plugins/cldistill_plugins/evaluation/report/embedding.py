"""The pictures of a report, small enough to travel inside it: each once, the worst cases first, up to a limit."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cldistill.errors import DataError
from cldistill.records import GENERAL
from cldistill_plugins.evaluation.report.cases import ReportCase, in_turns
from cldistill_plugins.evaluation.report.record import SOURCE, TRUTH, Evaluation, picture_path

QUALITY = 92
"""Of lossy WebP.  At 128 x 128 it is a quarter of the lossless file, with no difference that the eye finds."""
LIMIT_MEGABYTES = 48.0
SIDE = 768
"""Longer sides, in pixels, are scaled down to this."""


@dataclass
class Embedded:
    """Pictures as text, and which one belongs where."""

    texts: list[str] = field(default_factory=list)
    """Base64 of one WebP file each."""
    places: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """``{column: {effect: {key: index of texts}}}``; all effects share their sources, under the effect ``""``."""
    cases: list[ReportCase] = field(default_factory=list)
    """The cases whose pictures are here, in the order in which they were given."""
    left_out: int = 0
    """Number of cases that did not fit."""

    def place(self, column: str, effect: str, key: str) -> int | None:
        """Return the index of a picture's text, or ``None`` where it is not here."""
        return self.places.get(column, {}).get(place_of(column, effect), {}).get(key)


def embed(
    folder: Path, evaluation: Evaluation, cases: Iterable[ReportCase], limit: float = LIMIT_MEGABYTES, side: int = SIDE
) -> Embedded:
    """Embed the pictures of as many cases as ``limit`` (in 10^6 bytes of text) takes: every effect's worst first.

    Raises:
        DataError: a file under ``pictures/`` is no picture.
    """
    ordered = list(cases)
    columns = [SOURCE, TRUTH, *(system.name for system in evaluation.systems)]
    found, known, room = Embedded(), dict[str, int](), int(limit * 1e6)
    shown: set[ReportCase] = set()
    for case in in_turns(ordered):
        made = {
            column: encode(path, side)
            for column in columns
            if found.place(column, case.effect, case.key) is None
            and (path := picture_path(folder, column, case.effect, case.key)).is_file()
        }
        room -= sum(len(text) for text in set(made.values()) if text not in known)
        if room < 0:
            break
        shown.add(case)
        _add(found, known, case, made)
    found.cases = [case for case in ordered if case in shown]
    found.left_out = len(ordered) - len(shown)
    return found


def _add(found: Embedded, known: dict[str, int], case: ReportCase, made: Mapping[str, str]) -> None:
    for column, text in made.items():
        if text not in known:
            known[text] = len(found.texts)
            found.texts.append(text)
        pools = found.places.setdefault(column, {})
        pools.setdefault(place_of(column, case.effect), {})[case.key] = known[text]


def place_of(column: str, effect: str) -> str:
    """Return the pool under which a picture stands: effects share their sources, the general pool has its own."""
    return "" if column == SOURCE and effect != GENERAL else effect


def encode(path: Path, side: int = SIDE) -> str:
    """Return a picture as base64 of a WebP file without metadata: lossy, or as it is where that is smaller."""
    shown = open_rgb(path)
    small = max(shown.size) > side
    if small:
        shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=QUALITY, method=4)
    own = path.read_bytes()
    as_it_is = not small and path.suffix == ".webp" and len(own) <= buffer.tell()
    return base64.b64encode(own if as_it_is else buffer.getvalue()).decode("ascii")


def open_rgb(path: Path) -> Image.Image:
    """Read a picture as RGB.

    Raises:
        DataError: it is missing, or no picture.
    """
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}. Evaluate again to have it made anew.") from error
