"""BS-DMD: distribution matching on the student's own trajectory (arXiv 2605.25378 section 3.3; DMD2 section 4.5)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput
from cldistill_plugins.collectionlora.score_slots import REAL, compared


class BsDmdSettings(Settings):
    """Options of ``bs-dmd``."""

    sigma_min: float = Field(0.0, ge=0.0, lt=1.0, description="lowest sigma at which critic and teacher are compared")
    sigma_max: float = Field(1.0, gt=0.0, le=1.0, description="highest one")
    critic: str = Field("critic", description="slot of the fake score")
    real: str | None = Field(None, description=REAL)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min must be below sigma_max, which is {self.sigma_max:g} (it is {self.sigma_min:g})"
            )
        return self


def describe_bs_dmd(settings: BsDmdSettings) -> Needs:
    """One graded call, one of the critic, one of the teacher, on a rollout."""
    return compared(settings, Needs(slot="student", forwards=Forwards(rollout=True, graded=1, shared=1)))


class BsDmd:
    """Roll out from pure noise to step ``k``, one graded call there, DMD gradient over the whole range of sigma."""

    def __init__(self, settings: BsDmdSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update."""
        from cldistill.schedule import to_x0
        from cldistill_plugins.collectionlora.score import distribution_matching, uniform

        rollout = context.rollout()
        student_x0 = to_x0(rollout.x, context.student(rollout.x, rollout.sigma), rollout.sigma)
        context.keep_sample(student_x0)
        draw = uniform(context, student_x0.shape[0], "sigma")
        sigma = context.schedule.draw(draw, self.settings.sigma_min, self.settings.sigma_max)
        output = distribution_matching(context, student_x0, sigma, self.settings.critic, self.settings.real)
        return LossOutput(output.loss, {**output.metrics, "k": float(rollout.k)})
