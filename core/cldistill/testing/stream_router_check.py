"""The check of a stream router: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import AnyComponent, Needs
from cldistill.protocols import StreamRouter
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, Route, RouteRequest
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.elsewhere import EFFECTS, draw_route, routes
from cldistill.testing.extreme_random import TURNS, ExtremeRandom
from cldistill.testing.held_state import changed_state, held_state

LATE = (400, 499, 500, 999, 1000, 1999, 2000, 4999, 5000, 9999, 10_000, 49_999, 50_000, 100_000)
"""Steps beyond the first ones that are looked at as well."""
NAMES = tuple(effect.name for effect in EFFECTS)


def check_stream_router(
    component: AnyComponent, options: Options = None, *, draws: int = 300, fresh: bool = True
) -> None:
    """Assert that a route is well formed, described, and depends on its key alone.

    All ranks, another process with another salt of ``hash()`` and another environment, and a resumed run must draw the
    same; rare draws and late steps are looked at, too.

    Args:
        draws: Routes that are looked at, one generator step each.
        fresh: See `cldistill.testing.check_component`.
    """
    checker, needs = check_component(component, "stream_router", options, fresh=fresh, ask=routes)
    if needs.streams is None:
        checker.fail(
            "describe must name the streams that it yields, Needs(streams=frozenset({...})): losses keep to streams"
        )
    settings = read_settings(component, options)
    with scratch_context(EFFECTS) as context:
        router: StreamRouter = component.build(settings, context)
        other: StreamRouter = component.build(settings, context)
    steps = [*range(draws), *LATE]
    for effects in ([effect.name for effect in EFFECTS], [EFFECTS[0].name]):
        with checker.leaves_global_random_alone("draw from the `random` that route() is given"):
            drawn = [_route(router, step, effects) for step in steps]
        rare = [
            draw_route(router, ExtremeRandom(7, turn=turn), step, effects) for step in LATE for turn in range(TURNS)
        ]
        for step, route in [*zip(steps, drawn, strict=True), *zip(sorted(LATE * TURNS), rare, strict=True)]:
            _well_formed(checker, route, effects)
            _described(checker, needs, route, step)
        backwards = [_route(other, step, effects, rank=1) for step in reversed(steps)]
        checker.require(
            drawn == backwards[::-1],
            "another rank, or another order of calls, gets another route: use only the key (no per_rank=True, no state)",
        )
        _keeps_nothing(checker, router, effects)


def _keeps_nothing(checker: Checker, router: StreamRouter, effects: Sequence[str]) -> None:
    before = held_state(router)
    _route(router, 0, effects)
    kept = changed_state(before, held_state(router))
    checker.require(
        kept is None,
        f"changes {kept} with each call: keep no state between calls (a resumed run would draw other routes); what depends "
        "on progress is a function of the step",
    )


def route_request(
    step: int = 0, *, steps: int = 1000, slot: str = "student", update: int = 0, effects: Sequence[str] = NAMES,
    seed: int = 7, rank: int = 0,
) -> RouteRequest:  # fmt: skip
    """Return what a router is asked in one update; equal arguments, ``rank`` aside, must give equal routes."""
    random = KeyedRandom(seed, rank)
    return RouteRequest(step, steps, slot, update, effects, random.child("train", step, slot, update, "route"), random)


def _route(router: StreamRouter, step: int, effects: Sequence[str], rank: int = 0) -> Route:
    return draw_route(router, KeyedRandom(7, rank), step, effects)


def _described(checker: Checker, needs: Needs, route: Route, step: int) -> None:
    require, stream = checker.require, route.stream
    said = needs.streams or frozenset()
    require(
        stream in said,
        f"yields the stream {stream!r} in step {step}, but describes {sorted(said)}: losses on it would not be checked",
    )
    begins = needs.begins.get(stream, 0)
    require(step >= begins, f"yields the stream {stream!r} in step {step}, but describes that it begins at {begins}")
    require(
        GENERAL not in route.pools or needs.general, "draws from the general pool, so describe must say general=True"
    )
    require(
        GENERAL not in route.pools or stream in {GENERAL, *needs.general_streams},
        f"draws general items on the stream {stream!r}, which describe must name in general_streams: their targets "
        "would not be made",
    )
    others = set(route.pools) - {GENERAL, *needs.pools.get(stream, route.pools)}
    require(
        not others,
        f"draws {sorted(others)} on the stream {stream!r}, on which describe's pools say that they never come up: their "
        "targets would not be made",
    )
    ends = needs.ends.get(stream, step + 1)
    require(step < ends, f"yields the stream {stream!r} in step {step}, but describes that it ends at {ends}")


def _well_formed(checker: Checker, route: Route, effects: Sequence[str]) -> None:
    checker.require(isinstance(route, Route), f"must return a Route, not {type(route).__name__}")
    unknown = set(route.pools) - {*effects, GENERAL}
    checker.require(not unknown, f"draws from {sorted(unknown)}, which are neither effects of the run nor {GENERAL!r}")
    chances = list(route.pools.values())
    checker.require(bool(chances) and min(chances) > 0, f"gives a pool no chance ({dict(route.pools)}): leave it out")
