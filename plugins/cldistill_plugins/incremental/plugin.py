"""Growing a collection, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Command, Component, loss_term, stream_router, teacher_source
from cldistill.markers import hookimpl
from cldistill.protocols import LossTerm, StreamRouter, TeacherSource
from cldistill_plugins.incremental.collection import CollectionSettings, CollectionTeacher, describe_collection
from cldistill_plugins.incremental.names import COLLECTION, RECALL, ROUTER
from cldistill_plugins.incremental.recall import Recall, RecallSettings, describe_recall
from cldistill_plugins.incremental.router import IncrementalSettings, build_incremental, describe_incremental


@hookimpl
def register_stream_routers() -> Sequence[Component[Any, StreamRouter]]:
    """``incremental``."""
    return [
        stream_router(
            ROUTER,
            "new effects, rehearsal of the old ones, and the general stream, by shares",
            IncrementalSettings,
            describe_incremental,
            build_incremental,
        )
    ]


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """``recall``."""
    return [
        loss_term(
            RECALL,
            "an old effect goes on as the collection before has it, on the student's own trajectory",
            RecallSettings,
            describe_recall,
            lambda settings, context: Recall(),
        )
    ]


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """``collection``."""
    return [
        teacher_source(
            COLLECTION,
            "a frozen collection teaches one of its own effects: by its own prompt and its own few steps",
            CollectionSettings,
            describe_collection,
            lambda settings, context: CollectionTeacher(settings),
        )
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    """``add``, ``remove`` and ``rename``."""
    module = "cldistill_plugins.incremental.commands"
    return [
        Command("add", "Teach a collection new effects; the collection itself teaches the old ones.", f"{module}:add"),
        Command(
            "remove", "Take an effect out of a collection's catalogue; the weights still know it.", f"{module}:remove"
        ),
        Command(
            "rename", "Give an effect of a collection another name; its trigger and prompt stay.", f"{module}:rename"
        ),
    ]
