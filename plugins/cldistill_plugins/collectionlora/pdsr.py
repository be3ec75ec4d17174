"""PDSR: probabilistic dual-stream routing (arXiv 2605.25378 section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from cldistill.component import BuildContext, Needs, Settings
from cldistill.errors import OptionsError, nearest
from cldistill.protocols import Keyed
from cldistill.records import GENERAL, Route, RouteRequest

EFFECT = "effect"
MIXED = "mixed"


class PdsrSettings(Settings):
    """Options of ``pdsr``."""

    p_switch: float = Field(0.5, ge=0.0, le=1.0, description="chance that an update belongs to the effect stream")
    redraw_every: int = Field(
        1,
        ge=1,
        description="generator steps for which stream and effect stay as drawn: 1 draws them for every update (the paper); "
        "the released code keeps them for 20 steps",
    )
    mixed_until: int = Field(
        0,
        ge=0,
        description="generator steps of a first phase whose batches mix all effects and general items (stream 'mixed')",
    )
    mixed_general: float = Field(0.4, ge=0.0, le=1.0, description="share of general items in a mixed batch")
    effect_weights: Mapping[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="effect -> how often it is drawn, as against 1 for an effect that is not named (the paper: all alike)",
    )


def describe_pdsr(settings: PdsrSettings) -> Needs:
    """Say which streams can come up, which of them mix pools, and whether the general pool is drawn from."""
    streams = {EFFECT} if settings.p_switch > 0 else set()
    if settings.p_switch < 1:
        streams.add(GENERAL)
    mixed: dict[str, int | None] = {}
    if settings.mixed_until:
        streams.add(MIXED)
        if settings.mixed_general < 1:  # with general items alone the bare base is the teacher of all
            mixed[MIXED] = settings.mixed_until
    alone = frozenset({MIXED}) - mixed.keys() if settings.mixed_until else frozenset()
    begins = {stream: settings.mixed_until for stream in streams - {MIXED}} if settings.mixed_until else {}
    general = settings.p_switch < 1 or (settings.mixed_until > 0 and settings.mixed_general > 0)
    return Needs(streams=frozenset(streams), general=general, mixed=mixed, begins=begins, general_streams=alone)


def build_pdsr(settings: PdsrSettings, context: BuildContext) -> Pdsr:
    """Return the router.

    Raises:
        OptionsError: ``effect_weights`` names an effect that the manifest does not have.
    """
    names = [effect.name for effect in context.effects]
    for name in settings.effect_weights:
        if name not in names:
            raise OptionsError(
                f"router.options.effect_weights.{name}: there is no effect {name!r}{nearest(name, names)}"
            )
    return Pdsr(settings)


class Pdsr:
    """Draw ``p ~ U(0, 1)``: below ``p_switch`` one effect with its teacher, else the general stream.

    The paper draws for every update.  The released code draws every 20 steps (``redraw_every: 20``), and on each rank for
    itself.  The latter is no option here: ranks on different streams make different numbers of forwards, and under FSDP,
    where every forward gathers weights from all ranks, they would wait for one another for ever.
    """

    def __init__(self, settings: PdsrSettings) -> None:
        self.settings = settings

    def route(self, request: RouteRequest) -> Route:
        """Return the route of one update: the same on every rank, since its keys hold no rank."""
        random, held = request.random, self.settings.redraw_every
        if request.step < self.settings.mixed_until:
            return Route(MIXED, self._mixture(request.effects))
        if held > 1:  # one draw for all updates of so many generator steps
            random = request.shared.child("pdsr", request.step // held)
        if random.uniform("stream") < self.settings.p_switch:
            return Route(EFFECT, {self._draw_effect(random, request.effects): 1.0})
        return Route(GENERAL, {GENERAL: 1.0})

    def _draw_effect(self, random: Keyed, effects: Sequence[str]) -> str:
        if not self.settings.effect_weights:
            return effects[random.integer(len(effects), "effect")]
        left = random.uniform("effect")
        for name, chance in self._chances(effects).items():
            left -= chance
            if left < 0:
                return name
        return effects[-1]

    def _chances(self, effects: Sequence[str]) -> dict[str, float]:
        weights = {name: self.settings.effect_weights.get(name, 1.0) for name in effects}
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def _mixture(self, effects: Sequence[str]) -> dict[str, float]:
        share = self.settings.mixed_general
        pools = {n: (1.0 - share) * chance for n, chance in self._chances(effects).items()} if share < 1 else {}
        return {**pools, GENERAL: share} if share > 0 else pools
