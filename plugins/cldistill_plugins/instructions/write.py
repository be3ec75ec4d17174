"""General instructions for unlabelled pictures, written by a maker to the JSONL that ``general.instructions`` reads.

Every instruction has a key: a hash of the picture's bytes, its place, the seed and whatever the maker goes by.  A file that
is made again, after a stop or with more pictures, keeps each line whose key is still wanted, and only the rest is asked for.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.data.items import list_pictures
from cldistill.errors import DataError, EndpointError
from cldistill.progress.signals import never, raise_if_stopped
from cldistill.progress.stages import Stages
from cldistill.storage.files import atomic_write_text, sha256_file
from cldistill.storage.untrusted import parse_json
from cldistill_plugins.endpoint.api import in_parallel
from cldistill_plugins.instructions.request import CATEGORIES, InstructionMaker, InstructionRequest

JOURNAL = ".journal"
"""Suffix of the file, beside the output, that takes each line as soon as it is made."""
Lines = dict[str, dict[str, str]]
"""Key -> the line of the output."""


@dataclass(frozen=True)
class InstructionPlan:
    """A file of instructions that is wanted: made by the command ``instructions``, carried out by `write_instructions`."""

    images: Path
    output: Path
    per_picture: int = 1
    pictures: int | None = None
    """The first so many pictures, by name; None: all."""
    categories: tuple[str, ...] = CATEGORIES
    seed: int = 0
    fresh: bool = False
    """True: a file of other options is written over, and everything asked again."""


@dataclass(frozen=True)
class WrittenInstructions:
    """Counts of a written file: returned by `write_instructions`, printed by the command."""

    written: int
    """Lines in the file."""
    kept: int
    """Of these, how many an earlier call had made."""
    refused: int
    """Instructions that the maker did not give; the same command asks for them again."""
    categories: Mapping[str, int]
    """Category -> lines in the file."""


def write_instructions(
    plan: InstructionPlan, maker: InstructionMaker, stages: Stages, stop: Callable[[], bool] = never
) -> WrittenInstructions:
    """Write the file of ``plan``, or bring it up to date; line order is pictures by name, then number.

    Raises:
        DataError: there are no pictures, or the output holds lines of other options, which are not written over.
        EndpointError: the maker's endpoint fails; what was made until then is kept, and taken up by the next call.
        Stopped: ``stop`` asked for it; likewise.
    """
    wanted = dict(_requests(plan, maker.identity))
    journal = plan.output.with_name(plan.output.name + JOURNAL)
    lines: Lines = {}
    if not plan.fresh:
        lines = _read_own(plan.output, wanted) | {k: v for k, v in _read(journal).items() if k in wanted}
    kept = len(lines)
    _write(journal, lines.values())  # anew: after a crash its last line may be cut off
    missing = [(key, request) for key, request in wanted.items() if key not in lines]
    refused = 0
    with stages.stage("writing instructions", len(wanted)) as advance, journal.open("a", encoding="utf-8") as file:
        advance(kept)
        for (key, request), text in _ask(maker, missing, journal):
            if text is None:
                refused += 1
            else:
                lines[key] = _line(key, request, text)
                file.write(_dump(lines[key]))
                file.flush()
            advance(1)
            raise_if_stopped(stop, "writing instructions")
    ordered = [lines[key] for key in wanted if key in lines]
    _write(plan.output, ordered)
    journal.unlink()
    counts = {category: sum(line["category"] == category for line in ordered) for category in plan.categories}
    return WrittenInstructions(len(ordered), kept, refused, counts)


def _ask(
    maker: InstructionMaker, missing: Sequence[tuple[str, InstructionRequest]], journal: Path
) -> Iterator[tuple[tuple[str, InstructionRequest], str | None]]:
    try:
        yield from in_parallel(missing, lambda entry: maker.instruction(entry[1]), maker.concurrency)
    except EndpointError as error:
        raise EndpointError(f"{error}\nWhat was made so far is kept in {journal}; the same command goes on") from error


def _requests(plan: InstructionPlan, identity: str) -> Iterator[tuple[str, InstructionRequest]]:
    """Yield key and request of every wanted instruction: each a function of its own picture and number.

    A picture gets every category before it gets one again, in an order of its own.
    """
    pictures = list_pictures(plan.images)[: plan.pictures]
    if not pictures:
        raise DataError(f"{plan.images}: holds no pictures")
    for picture in pictures:
        content = sha256_file(picture)
        turn = random.Random(_draw(plan.seed, picture.name)).sample(plan.categories, len(plan.categories))
        for number in range(plan.per_picture):
            draw, category = _draw(plan.seed, picture.name, number), turn[number % len(turn)]
            key = _hash(identity, plan.seed, picture.name, content, number, category)[:32]
            yield key, InstructionRequest(picture, category, draw)


def _draw(*parts: str | int) -> int:
    return int(_hash(*parts)[:16], 16)


def _hash(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _line(key: str, request: InstructionRequest, text: str) -> dict[str, str]:
    return {"image": request.picture.name, "instruction": text, "category": request.category, "key": key}


def _dump(line: Mapping[str, str]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _write(file: Path, lines: Iterable[Mapping[str, str]]) -> None:
    atomic_write_text(file, "".join(map(_dump, lines)))


def _read_own(output: Path, wanted: Mapping[str, object]) -> Lines:
    """Return the lines of an earlier call; raises DataError where the file holds any that nobody wants now."""
    lines = _read(output)
    foreign = [line for line in _raw(output) if line.get("key") not in wanted]
    if foreign:
        raise DataError(
            f"{output}: holds {len(foreign)} lines that these pictures and options do not make (such as "
            f"{foreign[0].get('instruction')!r} for {foreign[0].get('image')!r}); write to another file, or replace it "
            "with --fresh"
        )
    return lines


def _read(file: Path) -> Lines:
    return {line["key"]: line for line in _raw(file) if {"key", "image", "instruction", "category"} <= line.keys()}


def _raw(file: Path) -> Sequence[dict[str, Any]]:
    """Return the objects in a JSONL; an empty one for a line that is none."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return [_object(line) for line in text.split("\n") if line.strip()]


def _object(text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
