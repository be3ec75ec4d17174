"""The built-in teacher sources, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Command, Component, teacher_source
from cldistill.markers import hookimpl
from cldistill.protocols import TeacherSource
from cldistill_plugins.teachers.api import FROM_PAIRS, LORA_FILE
from cldistill_plugins.teachers.bare_base import BareBase, BareBaseSettings, describe_bare_base
from cldistill_plugins.teachers.from_pairs import FromPairsSettings, build_from_pairs, describe_from_pairs
from cldistill_plugins.teachers.lora_file import LoraFile, LoraFileSettings, describe_lora_file


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """``lora-file``, ``from-pairs`` and ``base``."""
    return [
        teacher_source(
            LORA_FILE,
            "an adapter file of any common key format",
            LoraFileSettings,
            describe_lora_file,
            lambda settings, context: LoraFile(settings),
        ),
        teacher_source(
            FROM_PAIRS,
            "a single-effect LoRA trained on the effect's pairs by flow matching",
            FromPairsSettings,
            describe_from_pairs,
            build_from_pairs,
        ),
        teacher_source(
            "base",
            "the bare base model",
            BareBaseSettings,
            describe_bare_base,
            lambda settings, context: BareBase(),
        ),
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
