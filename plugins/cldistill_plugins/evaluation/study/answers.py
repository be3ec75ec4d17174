"""Answer files, judged before anything is counted: all mistakes of all files at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cldistill.errors import DataError
from cldistill.manifest.messages import first_problem
from cldistill_plugins.evaluation.study.key import StudyKey, StudySet


class Evaluator(BaseModel):
    """The person who answered: the name they typed, and a random id that their browser gave them."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    id: str


class Answers(BaseModel):
    """A file that the page saved."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: Literal[1]
    study: str
    evaluator: Evaluator
    answers: Mapping[str, Mapping[str, str]]
    """``{set: {question: token of the candidate}}``."""


@dataclass(frozen=True)
class AnswerFile:
    """Answers and where they came from."""

    path: Path
    answers: Answers

    @property
    def who(self) -> str:
        """The evaluator's name, for messages."""
        return self.answers.evaluator.name


def read_answers(key: StudyKey, paths: Sequence[Path], partial: bool = False) -> list[Answers]:
    """Read the answers of all evaluators of one study.

    ``partial`` takes files in which sets are unanswered, and counts the answers that are there.

    Raises:
        DataError: a file cannot be read, is another study's, was changed by hand, leaves sets out or is a second file of one
            evaluator; with every mistake on a line of its own.
    """
    if not paths:
        raise DataError("no answer files: name the files that the evaluators saved, e.g. answers/*.json")
    problems: list[str] = []
    files: list[AnswerFile] = []
    for path in paths:
        try:
            files.append(AnswerFile(path, _read(path)))
        except DataError as error:
            problems.append(str(error))
    for file in files:
        problems += [f"{file.path}: {problem}" for problem in _problems(key, file.answers, partial)]
    problems += _duplicates(files)
    if problems:
        raise DataError("\n".join(problems))
    return [file.answers for file in files]


def _read(path: Path) -> Answers:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no file; name the files that the evaluators saved")
    try:
        return Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(f"{path}: is no answer file of a study: {first_problem(error)}") from error


def _problems(key: StudyKey, found: Answers, partial: bool) -> Iterator[str]:
    if found.study != key.study:
        yield (
            f"is of another study ({found.study}; the key's is {key.study}): tally it with the key that was made with the "
            "page it comes from"
        )
        return
    sets = {one.id: one for one in key.sets}
    for name in found.answers:
        if name not in sets:
            yield f"answers.{name}: the study has no such set; was the file changed by hand?"
    open_sets = [name for name in sets if len(found.answers.get(name, {})) < len(key.questions)]
    if open_sets and not partial:
        yield (
            f"{len(open_sets)} of {len(sets)} sets are not fully answered: ask {found.evaluator.name} to finish them and "
            "save again, or count what is there with --partial"
        )
    for name, answers in found.answers.items():
        if name in sets:
            yield from _wrong_answers(key, sets[name], answers)


def _wrong_answers(key: StudyKey, one: StudySet, answers: Mapping[str, str]) -> Iterator[str]:
    questions = {question.name for question in key.questions}
    for question, choice in answers.items():
        where = f"answers.{one.id}.{question}"
        if question not in questions:
            yield f"{where}: the study asks no such question; was the file changed by hand?"
        elif choice not in one.candidates:
            yield f"{where}: {choice!r} is no candidate of this set; was the file changed by hand?"


def _duplicates(files: Sequence[AnswerFile]) -> Iterator[str]:
    for index, file in enumerate(files):
        for earlier in files[:index]:
            if file.answers.evaluator.id == earlier.answers.evaluator.id:
                yield f"{file.path}: {file.who}'s answers are in {earlier.path} too: keep the later file of the two"
            elif _same_name(file.who, earlier.who):
                yield (
                    f"{file.path}: an evaluator named {file.who} is in {earlier.path} too. If that is one person, keep one "
                    "file; if they are two, change evaluator.name in one of them"
                )


def _same_name(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
