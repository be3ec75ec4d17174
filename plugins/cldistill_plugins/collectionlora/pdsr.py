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
    one_effect_a_batch: bool = Field(
        False,
        description="draw one effect for the whole batch, and on every rank; otherwise every item's effect is drawn, and "
        "each teacher sees its own items",
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
    """Say which streams can come up and when, and which draw from the general pool."""
    streams = {EFFECT} if settings.p_switch > 0 else set()
    if settings.p_switch < 1:
        streams.add(GENERAL)
    until = settings.mixed_until
    begins, ends = (dict.fromkeys(streams, until), {MIXED: until}) if until else ({}, {})
    general = frozenset({MIXED}) if until and settings.mixed_general > 0 else frozenset[str]()
    return Needs(
        streams=frozenset({*streams, *ends}), general=settings.p_switch < 1 or bool(general), begins=begins, ends=ends,
        general_streams=general,
    )  # fmt: skip


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
    """Draw ``p ~ U(0, 1)``: below ``p_switch`` effects with their teachers, else the general stream.

    The paper has one item a batch and rank, so that its eight ranks mix eight effects.  A larger batch here mixes as many
    as it has items, which cuts the variance of the gradient to a quarter of that of a batch of one effect.  The paper
    draws the stream for every update.  The released code draws every 20 steps (``redraw_every: 20``), and on each rank for
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
            one = self.settings.one_effect_a_batch
            return Route(
                EFFECT, {self._draw_effect(random, request.effects): 1.0} if one else self._chances(request.effects)
            )
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
