"""``detail-fm``, registered with cldistill: nothing here imports torch before the loss is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Forwards, Needs, Settings, loss_term
from cldistill.markers import hookimpl
from cldistill.protocols import LossTerm, UpdateContext
from cldistill.records import LossOutput


class DetailSettings(Settings):
    """Options of ``detail-fm``."""

    weight: float = Field(default=2.0, ge=0, description="weight of detail; 1 is ordinary flow matching")


def describe_detail(settings: DetailSettings) -> Needs:
    """One graded call of the student on the noised target."""
    return Needs(slot="student", targets=True, forwards=Forwards(graded=1))


class DetailFm:
    """Flow matching on the target with weighted detail."""

    def __init__(self, settings: DetailSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update."""
        from cldistill.schedule import add_noise, velocity
        from detail_loss.detail import detail_weighted_error

        target = context.batch.target
        assert target is not None, "checked before the run: detail-fm needs targets"
        sigma = context.schedule.draw(context.random.uniforms(target.shape[0], "sigma"))
        noise = context.random.normal(target.shape, "noise")
        predicted = context.student(add_noise(target, noise, sigma), sigma)
        return LossOutput(detail_weighted_error(predicted, velocity(target, noise), self.settings.weight))


def build_detail(settings: DetailSettings, context: BuildContext) -> LossTerm:
    """Build the term."""
    return DetailFm(settings)


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """``detail-fm``."""
    summary = "flow matching on the target, with more weight on detail"
    return [loss_term("detail-fm", summary, DetailSettings, describe_detail, build_detail)]
