"""What a stream router promises."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import AnyComponent, Needs
from cldistill.protocols import StreamRouter
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, EffectInfo, Route, RouteRequest
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context

EFFECTS = tuple(EffectInfo(name, f"turn it into {name}") for name in ("manga", "gold", "snow"))
NAMES = tuple(effect.name for effect in EFFECTS)


def check_stream_router(
    component: AnyComponent, options: Options = None, *, draws: int = 300, fresh: bool = True
) -> None:
    """Assert that a route depends on its key alone (so all ranks and a resumed run draw the same) and is well formed.

    Args:
        draws: Routes that are looked at, one generator step each.
        fresh: See `cldistill.testing.check_component`.
    """
    checker, needs = check_component(component, "stream_router", options, fresh=fresh)
    settings = read_settings(component, options)
    with scratch_context(EFFECTS) as context:
        router: StreamRouter = component.build(settings, context)
        other: StreamRouter = component.build(settings, context)
    for effects in ([effect.name for effect in EFFECTS], [EFFECTS[0].name]):
        with checker.leaves_global_random_alone("draw from the request's `random` or `shared`"):
            routes = [router.route(route_request(step, effects=effects, steps=draws)) for step in range(draws)]
        for route in routes:
            _well_formed(checker, route, effects)
        streams = {route.stream for route in routes}
        if needs.streams is not None:
            checker.require(
                streams <= needs.streams, f"yields the streams {sorted(streams)}, but describes {sorted(needs.streams)}"
            )
        for step, route in enumerate(routes):
            _said_to_be_mixed(checker, needs, route, step)
            begins = needs.begins.get(route.stream, 0)
            checker.require(
                step >= begins,
                f"yields the stream {route.stream!r} in step {step}, but describes that it begins at {begins}",
            )
        general = any(GENERAL in route.pools for route in routes)
        checker.require(not general or needs.general, "draws from the general pool, so describe must say general=True")
        backwards = [
            other.route(route_request(step, effects=effects, steps=draws, rank=1)) for step in reversed(range(draws))
        ]
        checker.require(
            routes == backwards[::-1],
            "another rank, or another order of calls, gets another route: use only the key (no per_rank=True, no state)",
        )


def route_request(
    step: int = 0, *, steps: int = 1000, slot: str = "student", update: int = 0, effects: Sequence[str] = NAMES,
    seed: int = 7, rank: int = 0,
) -> RouteRequest:  # fmt: skip
    """Return what a router is asked in one update; equal arguments, ``rank`` aside, must give equal routes."""
    random = KeyedRandom(seed, rank)
    return RouteRequest(step, steps, slot, update, effects, random.child("train", step, slot, update, "route"), random)


def _said_to_be_mixed(checker: Checker, needs: Needs, route: Route, step: int) -> None:
    until = needs.mixed.get(route.stream, 0)
    checker.require(
        not route.mixed or until is None or step < until,
        f"mixes the pools {sorted(route.pools)} in step {step} of the stream {route.stream!r}, so describe must say "
        f"mixed={{{route.stream!r}: ...}}: no teacher fits such a batch, and `cldistill check` keeps losses that ask for one "
        "out of it",
    )


def _well_formed(checker: Checker, route: Route, effects: Sequence[str]) -> None:
    checker.require(isinstance(route, Route), f"must return a Route, not {type(route).__name__}")
    unknown = set(route.pools) - {*effects, GENERAL}
    checker.require(not unknown, f"draws from {sorted(unknown)}, which are neither effects of the run nor {GENERAL!r}")
    chances = list(route.pools.values())
    checker.require(bool(chances) and min(chances) > 0, f"gives a pool no chance ({dict(route.pools)}): leave it out")
