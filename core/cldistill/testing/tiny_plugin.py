"""The kit's own plugin: with it a manifest runs end to end in a second, and a test swaps in the one part it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import (
    BuildContext,
    Component,
    Needs,
    base_model,
    loss_term,
    prompt_isolator,
    stream_router,
    teacher_source,
)
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel, LossTerm, PromptIsolator, StreamRouter, TeacherSource
from cldistill.testing.tiny_base_settings import TinyBaseSettings, describe_tiny_base
from cldistill.testing.tiny_parts import (
    FakeTeacher,
    NoSettings,
    TinyFlow,
    TinyFlowSettings,
    TinyPrompts,
    TinyRouter,
    TinyRouterSettings,
    TinyTeacherSettings,
    describe_tiny_flow,
    describe_tiny_router,
)


def build_tiny_base(settings: TinyBaseSettings, context: BuildContext) -> BaseModel:
    """Build the base."""
    from cldistill.testing.tiny_base import TinyBase

    return TinyBase(settings)


def describe_tiny_teacher(settings: TinyTeacherSettings) -> Needs:
    """Makes an adapter of ``rank``."""
    return Needs(rank=settings.rank)


def describe_tiny_prompts(settings: NoSettings) -> Needs:
    """Needs nothing."""
    return Needs()


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """``tiny-base``."""
    return [base_model("tiny-base", "random weights, exact VAE", TinyBaseSettings, describe_tiny_base, build_tiny_base)]


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """``tiny-teacher``."""
    return [
        teacher_source(
            "tiny-teacher",
            "a random adapter",
            TinyTeacherSettings,
            describe_tiny_teacher,
            lambda settings, context: FakeTeacher(settings),
        )
    ]


@hookimpl
def register_stream_routers() -> Sequence[Component[Any, StreamRouter]]:
    """``tiny-router``."""
    return [
        stream_router(
            "tiny-router",
            "one effect, or the general pool",
            TinyRouterSettings,
            describe_tiny_router,
            lambda settings, context: TinyRouter(settings),
        )
    ]


@hookimpl
def register_prompt_isolators() -> Sequence[Component[Any, PromptIsolator]]:
    """``tiny-prompts``."""
    return [
        prompt_isolator(
            "tiny-prompts",
            "the effect's name before its prompt",
            NoSettings,
            describe_tiny_prompts,
            lambda settings, context: TinyPrompts(),
        )
    ]


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """``tiny-flow``."""
    return [
        loss_term(
            "tiny-flow",
            "flow matching on the target",
            TinyFlowSettings,
            describe_tiny_flow,
            lambda settings, context: TinyFlow(settings),
        )
    ]
