"""The GAN loss of DMD2 (arXiv 2405.14867 section 4.3) as two loss terms; nothing here imports torch before a run is built.

``gan-head`` trains a small head on the critic's features, and the critic with it, to tell targets (real) from the student's
samples (fake).  ``gan`` trains the student, through critic and head, to make samples that pass for targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Forwards, Needs, RunOutline, Settings, loss_term
from cldistill.markers import hookimpl
from cldistill.protocols import LossTerm, UpdateContext
from cldistill.records import MIDDLE, AdamW, LossOutput

if TYPE_CHECKING:
    from torch import Tensor, nn


class GanSettings(Settings):
    """Options of ``gan``."""

    critic: str = Field(default="critic", description="slot on whose features the head sits")
    at: str = Field(default=MIDDLE, description="block of the base that gives the features")


class HeadSettings(GanSettings):
    """Options of ``gan-head``."""

    width: int = Field(default=64, ge=1, description="width of the head's hidden layer")
    lr: float = Field(default=1e-4, gt=0)
    train_critic: bool = Field(default=True, description="whether the critic learns from this loss, too (as in DMD2)")


def judge(context: UpdateContext, settings: GanSettings, *latents: Tensor) -> list[Tensor]:
    """Return logits ``[B, L]`` for each of the ``x0``, all under one noise at one sigma: above 0 a token looks real."""
    import torch

    from cldistill.schedule import add_noise

    sigma = context.schedule.draw(context.random.uniforms(latents[0].shape[0], "sigma"))
    noise = context.random.normal(latents[0].shape, "noise")
    with torch.set_grad_enabled(getattr(settings, "train_critic", True)):
        noised = (add_noise(x0, noise, sigma) for x0 in latents)
        features = [context.features(settings.critic, x, sigma, at=settings.at) for x in noised]
    return [context.module("gan-head")(shown).squeeze(-1) for shown in features]


class Gan:
    """``softplus(-D(fake))``, the non-saturating loss; its graded call of the student is the one of ``bs-dmd``."""

    def __init__(self, settings: GanSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update of the student."""
        from torch.nn.functional import softplus

        from cldistill.schedule import to_x0

        rollout = context.rollout()
        fake = to_x0(rollout.x, context.student(rollout.x, rollout.sigma), rollout.sigma)
        context.keep_sample(fake)
        (logits,) = judge(context, self.settings, fake)
        return LossOutput(softplus(-logits).mean(), {"passes": float((logits > 0).float().mean())})


class GanHead:
    """``softplus(-D(real)) + softplus(D(fake))``; owns the head ``D`` (`cldistill.protocols.OwnsModule`)."""

    def __init__(self, settings: HeadSettings, inputs: int) -> None:
        self.settings, self.inputs, self.optimizer = settings, inputs, AdamW(lr=settings.lr)

    def module(self) -> nn.Module:
        """Return the head: an MLP on each token's features."""
        from torch import nn

        hidden = self.settings.width
        return nn.Sequential(nn.Linear(self.inputs, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update of the critic."""
        from torch.nn.functional import softplus

        assert context.batch.target is not None, "checked before the run: gan-head needs targets"
        real, fake = judge(context, self.settings, context.batch.target, context.sample())
        right = float(((real > 0).float().mean() + (fake < 0).float().mean()) / 2)
        return LossOutput(softplus(-real).mean() + softplus(fake).mean(), {"right": right})


def describe_gan(settings: GanSettings) -> Needs:
    """A graded call of the student at its rollout, and the critic's features with a graph to it."""
    return Needs(
        slot="student", predicts=frozenset({settings.critic}), features=(settings.at,), modules=frozenset({"gan-head"}),
        forwards=Forwards(rollout=True, graded=2, shared=1),
    )  # fmt: skip


def describe_head(settings: HeadSettings, outline: RunOutline) -> Needs:
    """Two calls of the critic for its features; the head's numbers follow from the width of the base's block."""
    parameters = settings.width * (outline.width(settings.at) + 2) + 1
    calls = Forwards(rollout=True, sample=1, **{"graded" if settings.train_critic else "plain": 2})
    return Needs(slot=settings.critic, targets=True, features=(settings.at,), parameters=parameters, forwards=calls)


def build_head(settings: HeadSettings, context: BuildContext) -> LossTerm:
    """Build the term for the features' width."""
    return GanHead(settings, context.outline.width(settings.at))


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """``gan`` and ``gan-head``."""
    summaries = "samples pass for targets before the head (DMD2)", "a head tells targets from samples (DMD2)"
    gan = loss_term("gan", summaries[0], GanSettings, describe_gan, lambda settings, context: Gan(settings))
    return [gan, loss_term("gan-head", summaries[1], HeadSettings, describe_head, build_head)]
