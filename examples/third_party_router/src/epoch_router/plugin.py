"""``epochs``: every effect comes up once an epoch, in a shuffled order, and the effect stream's share rises to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, Settings, stream_router
from cldistill.markers import hookimpl
from cldistill.protocols import StreamRouter
from cldistill.records import GENERAL, Route, RouteRequest


class EpochSettings(Settings):
    """Options of ``epochs``."""

    p_first: float = Field(default=0.3, ge=0, le=1, description="chance of the effect stream in the first step")
    p_last: float = Field(default=0.9, gt=0, le=1, description="in the last one; it rises by a line between them")


def describe_epochs(settings: EpochSettings) -> Needs:
    """Both streams, and the general pool for one of them."""
    return Needs(streams=frozenset({"effect", GENERAL}), general=True)


class Epochs:
    """Gives all updates of a step one route; by systematic sampling the n-th step on effects is known without a memory."""

    def __init__(self, settings: EpochSettings) -> None:
        self.settings = settings

    def route(self, request: RouteRequest) -> Route:
        """Return the route of one update."""
        first, last = self.settings.p_first, self.settings.p_last
        slope, offset = (last - first) / max(1, request.steps - 1), request.shared.uniform("offset")
        # The sum of p_switch over the steps before each: where it passes a whole number, the step belongs to an effect.
        before, after = (int(offset + first * n + slope * n * (n - 1) / 2) for n in (request.step, request.step + 1))
        if before == after:
            return Route(GENERAL, {GENERAL: 1.0})
        epoch, place = divmod(before, len(request.effects))
        order = sorted(request.effects, key=lambda name: request.shared.uniform("order", epoch, name))
        return Route("effect", {order[place]: 1.0})


def build_epochs(settings: EpochSettings, context: BuildContext) -> StreamRouter:
    """Build the router."""
    return Epochs(settings)


@hookimpl
def register_stream_routers() -> Sequence[Component[Any, StreamRouter]]:
    """``epochs``."""
    summary = "effects in shuffled epochs, and a rising share of them"
    return [stream_router("epochs", summary, EpochSettings, describe_epochs, build_epochs)]
