"""The effects that a trained student confuses, from the pictures of an evaluation: nothing is loaded or run again.

An output belongs to the effect whose truth on the same picture is nearest.  The distance is plain: mean squared difference
of the two pictures at 32 x 32 pixels, where a shift of a stroke does not count but tone, colour and layout do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cldistill.data.items import open_picture
from cldistill.errors import DataError, nearest
from cldistill_plugins.evaluation.api import TRUTH, Evaluation, picture_path, read_evaluation

SIDE = 32
Floats = NDArray[np.float64]


def confusion(folder: Path, effects: Sequence[str], system: str | None = None) -> Floats:
    """Return ``[n, n]``: the share of outputs of effect ``i`` that are nearest to the truth of effect ``j``.

    Args:
        folder: What ``cldistill eval --output`` wrote.
        effects: Rows and columns.
        system: Whose outputs; by default the last system of the report.

    Raises:
        DataError: an effect or the system is not in the report, or an effect has no truth there.
    """
    report = read_evaluation(folder)
    chosen = _system(folder, report, system)
    known = [effect.name for effect in report.effects]
    for name in effects:
        if name not in known:
            raise DataError(f"{folder / 'report.json'}: has no effect {name!r}{nearest(name, known)}")
    counts = np.zeros((len(effects), len(effects)))
    for key in report.pictures:
        truths = np.stack([_small(_file(folder, TRUTH, name, key)) for name in effects])
        outputs = np.stack([_small(_file(folder, chosen, name, key)) for name in effects])
        for row, output in enumerate(outputs):
            counts[row, np.square(truths - output).mean(axis=1).argmin()] += 1
    return counts / max(1, len(report.pictures))


def _system(folder: Path, report: Evaluation, wanted: str | None) -> str:
    names = [row.name for row in report.systems]
    if wanted is not None and wanted not in names:
        raise DataError(f"{folder / 'report.json'}: has no system {wanted!r}{nearest(wanted, names)}")
    return wanted if wanted is not None else names[-1]


def _file(folder: Path, column: str, effect: str, key: str) -> Path:
    path = picture_path(folder, column, effect, key)
    if not path.is_file():
        what = "truth" if column == TRUTH else f"output of {column!r}"
        raise DataError(f"{path}: there is no {what} for {effect!r}: effects cannot be compared by this evaluation")
    return path


def _small(path: Path) -> Floats:
    """One picture as ``[SIDE * SIDE * 3]`` in [0, 1]."""
    picture = open_picture(path).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64).ravel() / 255.0
