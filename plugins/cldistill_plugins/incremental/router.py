"""The stream router ``incremental``: new effects, rehearsal of the old ones, and the general stream, by shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from cldistill.component import BuildContext, Needs, Settings
from cldistill.errors import OptionsError, nearest
from cldistill.records import GENERAL, Route, RouteRequest
from cldistill_plugins.incremental.names import EFFECT, MIXED, REHEARSAL

Share = Annotated[float, Field(ge=0.0)]


class IncrementalSettings(Settings):
    """Options of ``incremental``.  The three shares count as against one another: they need not sum to 1."""

    new_effects: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="names of the effects to be learned"
    )
    new: Share = Field(0.5, description="share of the new effects")
    rehearsal: Share = Field(0.3, description="share of the old effects, which are all the others")
    general: Share = Field(0.2, description="share of the general pool")
    rehearsal_stream: bool = Field(
        False,
        description="whether old effects come up on a stream of their own, 'rehearsal', from the first step on, so that losses "
        "can tell them from new ones; otherwise on 'effect' and 'mixed' like those",
    )
    one_effect_a_batch: bool = Field(
        False, description="draw one effect for the whole batch; otherwise every item's effect is drawn"
    )
    mixed_until: int = Field(
        0,
        ge=0,
        description="generator steps of a first phase whose batches mix all three shares (stream 'mixed'), or with "
        "`rehearsal_stream` the new effects' and the general one",
    )

    @model_validator(mode="after")
    def _something_new(self) -> Self:
        if self.new == 0:
            raise ValueError("new must be above 0: with no share the new effects would never be drawn")
        return self

    @property
    def chances(self) -> dict[str, float]:
        """Return ``new``, ``rehearsal`` and ``general`` as chances that sum to 1."""
        shares = {"new": self.new, "rehearsal": self.rehearsal, "general": self.general}
        return {name: share / sum(shares.values()) for name, share in shares.items()}


def describe_incremental(settings: IncrementalSettings) -> Needs:
    """Say which streams can come up and when, and which draw from the general pool."""
    streams = {EFFECT}
    if (
        settings.rehearsal_stream
    ):  # also with a share of 0, so that a manifest's losses on it need not go with the share
        streams.add(REHEARSAL)
    if settings.general:
        streams.add(GENERAL)
    until = settings.mixed_until
    begins, ends = (dict.fromkeys(streams - {REHEARSAL}, until), {MIXED: until}) if until else ({}, {})
    general = frozenset(ends if settings.general else ())
    return Needs(
        streams=frozenset({*streams, *ends}),
        general=settings.general > 0,
        begins=begins,
        ends=ends,
        general_streams=general,
        pools={stream: frozenset(settings.new_effects) for stream in (EFFECT, MIXED) if settings.rehearsal_stream},
    )


def build_incremental(settings: IncrementalSettings, context: BuildContext) -> Incremental:
    """Return the router.

    Raises:
        OptionsError: ``new_effects`` names an effect that the manifest does not have, or leaves none to rehearse.
    """
    names = [effect.name for effect in context.effects]
    for name in settings.new_effects:
        if name not in names:
            raise OptionsError(f"router.options.new_effects: there is no effect {name!r}{nearest(name, names)}")
    if settings.rehearsal and not set(names) - set(settings.new_effects):
        raise OptionsError(
            "router.options.rehearsal: every effect is new, so there is none to rehearse; set it to 0, or name fewer in "
            f"new_effects ({', '.join(settings.new_effects)})"
        )
    return Incremental(settings)


class Incremental:
    """Draw new, old or general by their shares, then effects of those, all alike.

    Rehearsal against forgetting is experience replay; that the old network itself says what is right is learning without
    forgetting (Li and Hoiem, arXiv 1606.09282) with the replay's pictures.  Like PDSR (arXiv 2605.25378 section 3.1) it draws
    for every update, and the same on every rank.
    """

    def __init__(self, settings: IncrementalSettings) -> None:
        self.settings = settings

    def route(self, request: RouteRequest) -> Route:
        """Return the route of one update: the same on every rank, since its keys hold no rank.

        Where ``effects`` holds new ones alone, or old ones alone, those have the shares of both.
        """
        new = [name for name in request.effects if name in self.settings.new_effects]
        old = [name for name in request.effects if name not in self.settings.new_effects]
        chances, drawn = self.settings.chances, request.random.uniform("stream")
        general = chances["general"] > 0 and drawn >= chances["new"] + chances["rehearsal"]
        again = not general and (drawn >= chances["new"] or not new) and bool(old)
        apart = again and self.settings.rehearsal_stream
        if request.step < self.settings.mixed_until and not apart:
            return Route(MIXED, self._mixture(new, [] if self.settings.rehearsal_stream else old))
        if general:
            return Route(GENERAL, {GENERAL: 1.0})
        names, stream = (old, REHEARSAL if apart else EFFECT) if again else (new, EFFECT)
        if self.settings.one_effect_a_batch:
            names = [names[request.random.integer(len(names), "effect")]]
        return Route(stream, dict.fromkeys(names, 1.0 / len(names)))

    def _mixture(self, new: Sequence[str], old: Sequence[str]) -> dict[str, float]:
        chances = self.settings.chances
        pools = {name: chances["new"] / len(new) for name in new}
        pools |= {name: chances["rehearsal"] / len(old) for name in old}
        drawn = {name: chance for name, chance in {**pools, GENERAL: chances["general"]}.items() if chance}
        return {name: chance / sum(drawn.values()) for name, chance in drawn.items()}
