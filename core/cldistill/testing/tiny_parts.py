"""The smallest honest part of every other kind: router, prompts, teacher, loss.  Torch-free until they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import TeacherRequest, UpdateContext
from cldistill.records import GENERAL, EffectInfo, LossOutput, Prompts, Route, RouteRequest

if TYPE_CHECKING:
    from cldistill.weights import AdapterState

EFFECT = "effect"


class NoSettings(Settings):
    """A part without options."""


class TinyRouterSettings(Settings):
    """Options of ``tiny-router``."""

    share: float = Field(default=0.5, ge=0, le=1, description="chance of the effect stream")


def describe_tiny_router(settings: TinyRouterSettings) -> Needs:
    """Yields the streams that have a chance."""
    streams = {EFFECT: settings.share, GENERAL: 1 - settings.share}
    return Needs(streams=frozenset(name for name, chance in streams.items() if chance > 0), general=settings.share < 1)


class TinyRouter:
    """Implements `cldistill.protocols.StreamRouter`: one effect, or the general pool."""

    def __init__(self, settings: TinyRouterSettings) -> None:
        self.settings = settings

    def route(self, request: RouteRequest) -> Route:
        """Draw the stream, and in the effect stream the effect."""
        random, effects = request.random, request.effects
        if random.uniform("stream") < self.settings.share:
            return Route(EFFECT, {effects[random.integer(len(effects), "effect")]: 1.0})
        return Route(GENERAL, {GENERAL: 1.0})


class TinyPrompts:
    """Implements `cldistill.protocols.PromptIsolator`: ``<effect's name>: <its prompt>`` for the student."""

    def isolate(self, effect: EffectInfo) -> Prompts:
        """Return the prompts of an effect."""
        trigger = f"<{effect.name}>"
        return Prompts(f"{trigger} {effect.prompt}", effect.prompt, trigger=trigger)

    def general(self, instruction: str) -> Prompts:
        """Return the instruction for everyone."""
        return Prompts(instruction, instruction)


class TinyTeacherSettings(Settings):
    """Options of ``tiny-teacher``."""

    rank: int = Field(default=2, ge=1)
    strength: float = Field(default=0.5, description="how far it moves the base")
    seed: int = 0


class FakeTeacher:
    """Implements `cldistill.protocols.TeacherSource`: a random adapter that depends on the effect's name and the seed."""

    def __init__(self, settings: TinyTeacherSettings | None = None) -> None:
        self.settings = settings or TinyTeacherSettings()

    def adapter(self, request: TeacherRequest) -> AdapterState:
        """Return the adapter of an effect, on all default targets of the base."""
        from cldistill.testing.adapters import random_adapter

        settings = self.settings
        key = (settings.seed, request.effect.name)
        return random_adapter(request.base, *key, rank=settings.rank, strength=settings.strength)


def fake_teacher(rank: int = 2, strength: float = 0.5, seed: int = 0) -> FakeTeacher:
    """Return a teacher source that needs neither files nor training."""
    return FakeTeacher(TinyTeacherSettings(rank=rank, strength=strength, seed=seed))


class TinyFlowSettings(Settings):
    """Options of ``tiny-flow``."""

    slot: str = "student"


def describe_tiny_flow(settings: TinyFlowSettings) -> Needs:
    """One graded call on the noised target."""
    return Needs(slot=settings.slot, targets=True, forwards=Forwards(graded=1))


class TinyFlow:
    """Plain flow matching on the target: ``|| v(x_sigma, sigma) - (noise - x0) ||^2``."""

    def __init__(self, settings: TinyFlowSettings) -> None:
        self.settings = settings

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update."""
        from cldistill.schedule import add_noise, velocity

        target = context.batch.target
        assert target is not None, "checked before the run"
        sigma = context.schedule.draw(context.random.uniforms(target.shape[0], "sigma"))
        noise = context.random.normal(target.shape, "noise")
        predicted = context.slot(self.settings.slot, add_noise(target, noise, sigma), sigma)
        return LossOutput((predicted - velocity(target, noise)).square().mean(), {"sigma": float(sigma.mean())})
