"""Teachers that are trained from pairs, and the command that trains them ahead of a run, registered; no torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Command, Component, teacher_source
from cldistill.markers import hookimpl
from cldistill.protocols import TeacherSource
from cldistill_plugins.teachers.api import FROM_PAIRS
from cldistill_plugins.teachers.from_pairs import FromPairsSettings, build_from_pairs, describe_from_pairs


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """``from-pairs``."""
    return [
        teacher_source(
            FROM_PAIRS,
            "a single-effect LoRA trained on the effect's pairs by flow matching",
            FromPairsSettings,
            describe_from_pairs,
            build_from_pairs,
        )
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    """``teachers``."""
    return [
        Command(
            "teachers",
            "Train the teachers that come from pairs, several at once.",
            "cldistill_plugins.teachers.command:teachers",
        )
    ]
