"""TS-DMD: distribution matching on outputs simulated from the target (arXiv 2605.25378 section 3.3).

At high noise the student's own trajectory gives the teacher little to see: the gradient vanishes in fine texture.
TS-DMD starts from the diffused *target* instead, at a low noise level where detail is decided, and compares the scores
where the teacher still tells real texture from smooth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput
from cldistill_plugins.collectionlora.score_slots import REAL, compared

if TYPE_CHECKING:
    from torch import Tensor

    from cldistill.schedule import Schedule


class TsDmdSettings(Settings):
    """Options of ``ts-dmd``."""

    tau_max: float = Field(750.0, gt=0, le=1000, description="upper bound of the student's timestep t_gen")
    tau_min: float = Field(500.0, ge=0, lt=1000, description="lower bound of the scores' timestep t_critic")
    strict: bool = Field(True, description="t_gen strictly below tau_max (the paper); false: up to and including it")
    bound_before_shift: bool = Field(False, description="apply tau_min before the shift, as the released code does")
    critic: str = Field("critic", description="slot of the fake score")
    real: str | None = Field(None, description=REAL)


def describe_ts_dmd(settings: TsDmdSettings) -> Needs:
    """One graded call on the noised target at one of the sampler's low steps, one of the critic, one of the teacher."""
    below = sigma_bound(settings.tau_max, strict=settings.strict)
    return compared(settings, Needs(slot="student", targets=True, forwards=Forwards(graded=1), sampler_below=below))


def sigma_bound(tau_max: float, *, strict: bool) -> float:
    """Return the sigma below which ``t_gen`` must lie.

    The steps are exact fractions such as 3/4: fp32 must not decide whether 750 is below 750.
    """
    return tau_max / 1000.0 + (-1e-6 if strict else 1e-6)


def generator_sigmas(schedule: Schedule, tau_max: float, *, strict: bool) -> Tensor:
    """Return the student's own sigmas below ``tau_max / 1000``: 642.9, 500 and 300 for the paper's settings.

    Raises `ValueError` when no step of the sampler lies below the bound.
    """
    sigmas = schedule.sigmas()
    below = sigmas < sigma_bound(tau_max, strict=strict)
    if not bool(below.any()):
        raise ValueError(
            f"ts-dmd: no step of the sampler lies below tau_max {tau_max:g}: raise tau_max or sampler.steps"
        )
    return sigmas[below]


class TsDmd:
    """Diffuse the target to one of the student's low steps, one graded call there, DMD gradient above ``tau_min``."""

    def __init__(self, settings: TsDmdSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update."""
        from cldistill.schedule import add_noise, to_x0
        from cldistill_plugins.collectionlora.score import distribution_matching, uniform

        target = context.batch.target
        assert target is not None, "checked before the run: ts-dmd needs targets"
        size = target.shape[0]
        steps = generator_sigmas(context.schedule, self.settings.tau_max, strict=self.settings.strict).to(target.device)
        index = (uniform(context, size, "step") * len(steps)).long().clamp_max(len(steps) - 1)
        sigma = steps[index]
        x = add_noise(target, context.random.normal(target.shape, "noise"), sigma)
        student_x0 = to_x0(x, context.student(x, sigma), sigma)
        critic_sigma = context.schedule.draw(
            uniform(context, size, "sigma"),
            self.settings.tau_min / 1000.0,
            1.0,
            bound_before_shift=self.settings.bound_before_shift,
        )
        return distribution_matching(context, student_x0, critic_sigma, self.settings.critic, self.settings.real)
