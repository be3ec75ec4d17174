"""The organiser's side of a study: which candidate is which system.  The page holds nothing of this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cldistill.errors import DataError
from cldistill.manifest.messages import first_problem
from cldistill.storage.files import atomic_write_text

FORMAT = 1
PAGE, KEY = "study.html", "key.json"


class _StudyPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StudyQuestion(_StudyPart):
    """One question asked of every set."""

    name: str
    title: str
    text: str


QUESTIONS = (
    StudyQuestion(name="quality", title="Quality", text="Which picture looks best: clean, sharp, without artefacts?"),
    StudyQuestion(
        name="consistency", title="Consistency", text="Which one keeps the people and things of the source best?"
    ),
    StudyQuestion(name="style", title="Style", text="Which one shows the wanted effect best?"),
)
"""The questions that the paper put to ten people about 50 sets (its user study)."""


class StudySystem(_StudyPart):
    """One of the compared systems."""

    name: str
    title: str

    @property
    def label(self) -> str:
        """The name for people."""
        return self.title or self.name


class StudySet(_StudyPart):
    """One source and effect with a candidate a system."""

    id: str
    effect: str
    picture: str
    candidates: Mapping[str, str]
    """``{token: system}``; a token is random and says nothing."""


class StudyKey(_StudyPart):
    """``key.json``: written by ``study make`` beside the page, needed to count the answers."""

    format: Literal[1]
    study: str
    created: str
    evaluation: str
    """Name of the evaluation whose pictures are shown."""
    systems: tuple[StudySystem, ...]
    questions: tuple[StudyQuestion, ...]
    sets: tuple[StudySet, ...]

    def write(self, path: Path) -> None:
        """Write the key in one step."""
        atomic_write_text(path, self.model_dump_json(indent=2) + "\n")


def read_key(path: Path) -> StudyKey:
    """Read the key of a study.

    Raises:
        DataError: it is not there, or no key.
    """
    if path.is_dir():
        path = path / KEY
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. `cldistill study` writes the key as {KEY} beside the page.")
    try:
        return StudyKey.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is no key of a study in format {FORMAT}: {first_problem(error)}") from error
