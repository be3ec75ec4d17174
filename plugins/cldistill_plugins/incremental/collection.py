"""``collection``: a frozen collection teaches one of its own effects, so that the effect's first teacher may be gone.

A collection that grows keeps its old effects so; and a student that knows its effects from flow matching learns to sample
in few steps with itself, as it stood, for a teacher.

What it hears is the collection's own prompt, trigger and caption, to the letter: to any other it would answer as the base
does.  It is an 8-step student and its guidance is built in: targets are sampled by its own few steps, and the losses that
ask for a score call it without guidance.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from cldistill.adapters.hub import AdapterPath
from cldistill.component import Needs, Settings
from cldistill.protocols import TeacherRequest
from cldistill.records import Prompts

if TYPE_CHECKING:
    from cldistill.weights import AdapterState


class CollectionSettings(Settings):
    """Options of ``collection``."""

    path: AdapterPath = Field(
        description="folder of the collection, its weights file, or OWNER/NAME[@REVISION] on the hub"
    )
    effect: str = Field(
        "",
        validate_default=True,
        description="the effect of the collection that it teaches (default: of the same name)",
    )

    @field_validator("effect")
    @classmethod
    def _own(cls, effect: str, info: ValidationInfo) -> str:
        own = effect or (info.context or {}).get("effect")
        if not own:
            raise ValueError("name the effect of the collection that it teaches")
        return str(own)


def describe_collection(settings: CollectionSettings) -> Needs:
    """Bring the effect's prompts, and an adapter that must fit the base; both from the file's header.

    Of a collection that is not there yet only that it must be, for a plan of the run that will make it.
    """
    from cldistill.collection.index import read_index

    if not settings.path.exists():
        return Needs(adapter=settings.path)
    index = read_index(settings.path)
    effect = index.effect(settings.effect)
    return Needs(adapter=index.file, prompts=Prompts(effect.prompt, effect.prompt, trigger=effect.trigger))


class CollectionTeacher:
    """Implements `cldistill.protocols.TeacherSource`."""

    def __init__(self, settings: CollectionSettings) -> None:
        self.settings = settings

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return the collection's adapter, which is the same for all of its effects, with its sampler.

        Raises:
            CollectionError: the collection was made on another base.
        """
        from cldistill.adapters.inject import linear_shapes
        from cldistill.collection.index import read_index

        index = read_index(self.settings.path)
        index.must_be_of(request.base.fingerprint)
        status = index.file.stat()
        shapes = tuple(sorted(linear_shapes(request.base.backbone).items()))
        return _load(index.file, status.st_size, status.st_mtime_ns, shapes)


@lru_cache(maxsize=1)
def _load(file: Path, size: int, time: int, shapes: tuple[tuple[str, tuple[int, int]], ...]) -> AdapterState:
    """Read the file once for all of its effects, as long as it stays the same."""
    from dataclasses import replace

    from cldistill.adapters.files import load_adapter
    from cldistill.collection.index import read_index

    index = read_index(file)
    sampler = index.schedule
    state = load_adapter(file, dict(shapes))
    # Targets are cached under the digest: sampled so, they are others than by the Euler steps of the same file.
    return replace(state, digest=f"{state.digest}@{sampler!r}", few_step=sampler)
