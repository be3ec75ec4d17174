"""TA-FM: trajectory anchoring by flow matching on the target (arXiv 2605.25378 section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput

if TYPE_CHECKING:
    from torch import Tensor

    from cldistill.schedule import Schedule

BS_TERM = "bs-dmd"
"""The loss whose sigma bounds that of ``sigma: released`` from below, by its name in the run."""


class TaFmSettings(Settings):
    """Options of ``ta-fm``."""

    sigma: Literal["uniform", "student-steps", "released"] = Field(
        "uniform",
        description="how sigma is drawn: uniform and shifted once (the paper); the student's own steps; or as the released "
        "code does (above the BS critic's sigma, shifted twice)",
    )


def describe_ta_fm(settings: TaFmSettings) -> Needs:
    """One graded call on the noised target."""
    return Needs(slot="student", targets=True, forwards=Forwards(graded=1))


def draw_sigma(rule: str, schedule: Schedule, draw: Tensor, critic_draw: Tensor) -> Tensor:
    """Map uniform numbers ``[B]`` to sigmas ``[B]``.

    ``released``: the lower bound is the sigma that the BS critic drew over its whole range, shifted already, and the result
    is shifted again: its median t is 966 of 1000.
    """
    from cldistill.schedule import shift_sigma

    if rule == "student-steps":
        steps = schedule.sigmas(draw.device)
        return steps[(draw * len(steps)).long().clamp_max(len(steps) - 1)]
    if rule == "released":
        low = schedule.draw(critic_draw)
        return shift_sigma(low + draw * (1.0 - low), schedule.shift)
    return schedule.draw(draw)


class TaFm:
    """``|| v_student(y_sigma, sigma, c_student) - (noise - y) ||^2``, averaged over batch and latent."""

    def __init__(self, settings: TaFmSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update."""
        from torch.nn.functional import mse_loss

        from cldistill.schedule import add_noise, velocity
        from cldistill_plugins.collectionlora.score import uniform

        target = context.batch.target
        assert target is not None, "checked before the run: ta-fm needs targets"
        size = target.shape[0]
        # The very number from which BS-DMD of this update makes its sigma, whichever of the two terms comes first.
        critic_draw = context.random_of(BS_TERM).uniforms(size, "sigma")
        sigma = draw_sigma(self.settings.sigma, context.schedule, uniform(context, size, "sigma"), critic_draw)
        noise = context.random.normal(target.shape, "noise")
        predicted = context.student(add_noise(target, noise, sigma), sigma)
        return LossOutput(mse_loss(predicted.float(), velocity(target, noise)), {"sigma": float(sigma.mean())})
