"""The critic: flow matching on the student's samples (arXiv 2605.25378 section 3.3; DMD2's fake score)."""

from __future__ import annotations

from pydantic import Field

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput


class FakeScoreSettings(Settings):
    """Options of ``fake-score``."""

    slot: str = Field("critic", description="slot that the term trains, if the manifest gives it another name")


def describe_fake_score(settings: FakeScoreSettings) -> Needs:
    """One graded call on a sample of the student."""
    return Needs(slot=settings.slot, forwards=Forwards(rollout=True, sample=1, graded=1))


class FakeScore:
    """``|| v_critic(x_sigma, sigma, c_student) - (noise - x0_student) ||^2``.

    The network's raw velocity is regressed: rebuilding it as ``(x - x0) / sigma`` from a bf16 ``x0``, as the released
    code does, costs up to 0.08 rms at small sigma.
    """

    def __init__(self, settings: FakeScoreSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one critic update."""
        from torch.nn.functional import mse_loss

        from cldistill.schedule import add_noise, velocity
        from cldistill_plugins.collectionlora.score import uniform

        x0 = context.sample().float()
        sigma = context.schedule.draw(uniform(context, x0.shape[0], "sigma"))
        noise = context.random.normal(x0.shape, "noise")
        predicted = context.slot(self.settings.slot, add_noise(x0, noise, sigma), sigma)
        return LossOutput(mse_loss(predicted.float(), velocity(x0, noise)))
