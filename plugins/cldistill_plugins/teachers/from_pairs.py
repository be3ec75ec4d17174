"""``from-pairs``: train a single-effect LoRA on the effect's before/after pairs, once, and keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cldistill.component import BuildContext, Needs, Settings
from cldistill.errors import DataError
from cldistill.protocols import TeacherRequest

if TYPE_CHECKING:
    from cldistill.weights import AdapterState


class FromPairsSettings(Settings):
    """Options of ``from-pairs`` (defaults: arXiv 2605.25378 section 4.1)."""

    steps: int = Field(2000, ge=1, description="training steps of this teacher")
    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0, description="defaults to the rank")
    lr: float = Field(1e-4, gt=0)
    end_lr: float | None = Field(None, ge=0, description="where a cosine ends; constant without it")
    warmup: int = Field(0, ge=0)
    batch_size: int = Field(1, ge=1)
    shift: float = Field(3.0, gt=0, description="shift of the drawn sigma")
    ema: float | None = Field(None, gt=0, lt=1)
    grad_clip: float = Field(1.0, gt=0)
    flip: bool = Field(False, description="also train on mirrored pairs: for effects that know no left and right")
    seed: int = 0
    checkpoint_every: int = Field(250, ge=1, description="training steps between checkpoints; changes no weight")

    @property
    def scale_alpha(self) -> float:
        """``alpha``, or the rank where none is given."""
        return float(self.rank if self.alpha is None else self.alpha)


def describe_from_pairs(settings: FromPairsSettings) -> Needs:
    """Needs pairs; makes an adapter of ``rank``."""
    return Needs(pairs=True, rank=settings.rank)


class FromPairs:
    """Implements `cldistill.protocols.TeacherSource`."""

    def __init__(self, settings: FromPairsSettings) -> None:
        self.settings = settings

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return the trained adapter: from the cache (in silence, as after an eviction), or trained now.

        Raises:
            DataError: the effect has no pairs.
        """
        from cldistill_plugins.teachers.pairs import PairsJob, train_pairs

        name = request.effect.name
        if not request.items:
            raise DataError(f"effect {name!r}: its teacher is trained from pairs, and it has none")
        job = PairsJob(
            request.base, request.slots, request.encoder, request.items, request.effect.prompt, self.settings,
            request.cache / "pairs", request.device, request.stop,
        )  # fmt: skip
        if job.file.is_file():
            return train_pairs(job)
        with request.stages.stage(f"training the teacher of {name}", self.settings.steps) as advance:
            return train_pairs(job, advance)


def build_from_pairs(settings: FromPairsSettings, context: BuildContext) -> FromPairs:
    """Build the source."""
    return FromPairs(settings)
