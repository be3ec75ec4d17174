"""``study.html`` for the evaluators and ``key.json`` for the organiser."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from cldistill.errors import DataError
from cldistill.storage.files import atomic_write_text
from cldistill_plugins.evaluation.report.embedding import open_rgb
from cldistill_plugins.evaluation.report.page import as_text_blocks, render
from cldistill_plugins.evaluation.report.record import SOURCE, TRUTH, Evaluation, picture_path, read_evaluation
from cldistill_plugins.evaluation.study.draw import choose_systems, draw_sets, token
from cldistill_plugins.evaluation.study.key import KEY, PAGE, QUESTIONS, StudyKey, StudySet, StudySystem
from cldistill_plugins.evaluation.study.pictures import display_size, encode_equally

SETS = 50
TITLE = "Which picture is best?"


def write_study(
    folder: Path,
    output: Path,
    systems: Sequence[str] | None = None,
    sets: int = SETS,
    seed: int = 0,
    example: bool = True,
    title: str = TITLE,
) -> StudyKey:
    """Write a study of the pictures in an evaluation folder to ``output``, and return its key.

    ``example`` shows the effect on another picture (its truth), where the evaluation has one: an instruction like
    "apply the style" means nothing without.

    Raises:
        DataError: the folder is no evaluation, too few pictures are there, or ``output`` holds a study already.
    """
    for name in (PAGE, KEY):
        if (output / name).exists():
            raise DataError(
                f"{output / name} is there already. A new key would make answers to the old page worthless: "
                "choose another --output."
            )
    evaluation = read_evaluation(folder)
    rows = choose_systems(evaluation, systems)
    key = StudyKey(
        format=1,
        study=token(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        evaluation=evaluation.name,
        systems=tuple(StudySystem(name=row.name, title=row.title) for row in rows),
        questions=QUESTIONS,
        sets=tuple(draw_sets(folder, evaluation, [row.name for row in rows], sets, seed)),
    )
    page = page_of(folder, evaluation, key, example, title)
    key.write(output / KEY)
    atomic_write_text(output / PAGE, page)
    return key


def page_of(folder: Path, evaluation: Evaluation, key: StudyKey, example: bool, title: str) -> str:
    """Return the page: instructions, pictures and tokens, and not a word about systems."""
    prompts = {effect.name: effect.prompt or effect.name for effect in evaluation.effects}
    pictures: dict[str, bytes] = {}
    shown = []
    for one in key.sets:
        found = {"id": one.id, "instruction": prompts[one.effect], "candidates": list(one.candidates)}
        pictures |= _pictures(folder, one)
        shown.append(found | ({"example": True} if example and _example(folder, evaluation, one, pictures) else {}))
    data: Mapping[str, Any] = {
        "study": key.study,
        "questions": [question.model_dump() for question in key.questions],
        "sets": shown,
    }
    texts = ((name, base64.b64encode(file).decode("ascii")) for name, file in pictures.items())
    return render(
        "study.html.j2",
        package="cldistill_plugins.evaluation.study",
        title=title,
        data=data,
        questions=key.questions,
        sets=len(key.sets),
        letters="ABCDEF"[: len(key.systems)],
        pictures=as_text_blocks(texts),
    )


def _pictures(folder: Path, one: StudySet) -> dict[str, bytes]:
    """Encode a set: the source under the set's id, the candidates under their tokens."""
    source = open_rgb(picture_path(folder, SOURCE, one.effect, one.picture))
    size = display_size(source)
    candidates = {
        name: open_rgb(picture_path(folder, system, one.effect, one.picture)) for name, system in one.candidates.items()
    }
    files = encode_equally(list(candidates.values()), size)
    return {one.id: encode_equally([source], size)[0], **dict(zip(candidates, files, strict=True))}


def _example(folder: Path, evaluation: Evaluation, one: StudySet, pictures: dict[str, bytes]) -> bool:
    """Add before and after of the effect on another picture of the evaluation, if there is one."""
    for key in evaluation.pictures:
        paths = [picture_path(folder, column, one.effect, key) for column in (SOURCE, TRUTH)]
        if key == one.picture or not all(path.is_file() for path in paths):
            continue
        before, after = map(open_rgb, paths)
        size = display_size(before)
        sides: Mapping[str, Image.Image] = {"before": before, "after": after}
        pictures |= {f"{one.id}-{side}": encode_equally([shown], size)[0] for side, shown in sides.items()}
        return True
    return False
