"""Instructions for unlabelled pictures, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Command, Component, instruction_maker
from cldistill.markers import hookimpl
from cldistill.protocols import InstructionMaker
from cldistill_plugins.instructions.mllm_maker import MllmSettings, build_mllm, describe_mllm
from cldistill_plugins.instructions.template_maker import TemplateSettings, build_templates, describe_templates


@hookimpl
def register_instruction_makers() -> Sequence[Component[Any, InstructionMaker]]:
    """Templates, and a vision-language model."""
    return [
        instruction_maker(
            "templates",
            "sentences with gaps, seeded: offline, without looking at the picture",
            TemplateSettings,
            describe_templates,
            build_templates,
        ),
        instruction_maker(
            "mllm",
            "a vision-language model behind an endpoint looks at each picture",
            MllmSettings,
            describe_mllm,
            build_mllm,
        ),
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    """``instructions``."""
    return [
        Command(
            "instructions",
            "Write general instructions for unlabelled pictures, by templates or a vision model.",
            "cldistill_plugins.instructions.command:instructions",
        )
    ]
