"""``teacher-prompts``: the student hears what each teacher was trained with; the row without AOP (arXiv 2605.25378, Table 3).

Prompts that people really write collide ("apply the style" for four effects), and the student cannot tell such effects
apart: this isolator is what AOP is measured against.
"""

from __future__ import annotations

from cldistill.component import BuildContext, Needs, Settings
from cldistill.records import EffectInfo, Prompts


class TeacherPromptsSettings(Settings):
    """``teacher-prompts`` has no options."""


def describe_teacher_prompts(settings: TeacherPromptsSettings) -> Needs:
    """Needs nothing."""
    return Needs()


def build_teacher_prompts(settings: TeacherPromptsSettings, context: BuildContext) -> TeacherPrompts:
    """Return the isolator."""
    return TeacherPrompts()


class TeacherPrompts:
    """Implements `cldistill.protocols.PromptIsolator`."""

    def isolate(self, effect: EffectInfo) -> Prompts:
        """Return the effect's own prompt for student, critic and teacher, and no trigger."""
        return Prompts(student=effect.prompt, teacher=effect.prompt)

    def general(self, instruction: str) -> Prompts:
        """Return the instruction for all."""
        return Prompts(student=instruction, teacher=instruction)
