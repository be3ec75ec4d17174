"""Growing a collection, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Component, Role, loss_term, stream_router, teacher_source
from cldistill.markers import hookimpl
from cldistill.protocols import LossTerm, StreamRouter, TeacherSource
from cldistill_plugins.incremental.collection import CollectionSettings, CollectionTeacher, describe_collection
from cldistill_plugins.incremental.recall import Recall, RecallSettings, describe_recall
from cldistill_plugins.incremental.router import IncrementalSettings, build_incremental, describe_incremental


@hookimpl
def register_stream_routers() -> Sequence[Component[Any, StreamRouter]]:
    """``incremental``."""
    return [
        stream_router(
            "incremental",
            "new effects, rehearsal of the old ones, and the general stream, by shares",
            IncrementalSettings,
            describe_incremental,
            build_incremental,
            Role.GROWS,
        )
    ]


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """``recall``."""
    return [
        loss_term(
            "recall",
            "an old effect goes on as the collection before has it, on the student's own trajectory",
            RecallSettings,
            describe_recall,
            lambda settings, context: Recall(),
            Role.HOLDS,
        )
    ]


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """``collection``."""
    return [
        teacher_source(
            "collection",
            "a frozen collection teaches one of its own effects: by its own prompt and its own few steps",
            CollectionSettings,
            describe_collection,
            lambda settings, context: CollectionTeacher(settings),
            Role.RECALLS,
        )
    ]
