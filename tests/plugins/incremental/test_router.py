"""The router ``incremental``: shares, streams, and what it refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from cldistill.component import BuildContext
from cldistill.errors import OptionsError
from cldistill.records import GENERAL, EffectInfo, Route
from cldistill.testing import check_stream_router, route_request
from cldistill_plugins.incremental.plugin import register_stream_routers
from cldistill_plugins.incremental.router import (
    Incremental,
    IncrementalSettings,
    build_incremental,
    describe_incremental,
)

EFFECTS = ["ink", "gold", "oil", "fog"]


def settings(**options: object) -> IncrementalSettings:
    return IncrementalSettings.model_validate({"new_effects": ["oil", "fog"]} | options)


def context(*names: str) -> BuildContext:
    return BuildContext(Path(), Path(), Path(), effects=tuple(EffectInfo(name, name) for name in names))


def routes(count: int = 4000, step: int = 0, **options: object) -> list[Route]:
    router = Incremental(settings(**options))
    return [router.route(route_request(step, update=index, effects=EFFECTS)) for index in range(count)]


def test_each_group_has_its_share_and_its_effects_are_drawn_alike() -> None:
    alone = routes(new=2, rehearsal=1, general=1, one_effect_a_batch=True)
    drawn = Counter(route.effect or route.stream for route in alone)
    assert drawn[GENERAL] / 4000 == pytest.approx(0.25, abs=0.03)
    for name, chance in {"oil": 0.25, "fog": 0.25, "ink": 0.125, "gold": 0.125}.items():
        assert drawn[name] / 4000 == pytest.approx(chance, abs=0.03)


def test_old_effects_may_have_a_stream_of_their_own() -> None:
    assert {route.stream for route in routes(200)} == {"effect", GENERAL}
    streams = {(frozenset(route.pools), route.stream) for route in routes(400, rehearsal_stream=True, general=0)}
    assert streams == {(frozenset({"oil", "fog"}), "effect"), (frozenset({"ink", "gold"}), "rehearsal")}


def test_a_share_of_zero_never_comes_up() -> None:
    drawn = routes(400, rehearsal=0, general=0, one_effect_a_batch=True)
    assert {route.effect for route in drawn} == {"oil", "fog"}
    assert {route.stream for route in routes(400, general=0)} == {"effect"}


def test_the_first_phase_mixes_all_three_by_the_same_shares() -> None:
    (route,) = routes(1, step=4, new=2, rehearsal=1, general=1, mixed_until=5)
    assert route.stream == "mixed"
    assert dict(route.pools) == pytest.approx({"oil": 0.25, "fog": 0.25, "ink": 0.125, "gold": 0.125, GENERAL: 0.25})
    (later,) = routes(1, step=5, mixed_until=5)
    assert later.stream != "mixed"


def test_old_effects_with_a_stream_of_their_own_have_it_in_the_first_phase_too() -> None:
    drawn = routes(step=4, new=2, rehearsal=1, general=1, mixed_until=5, rehearsal_stream=True)
    streams = Counter(route.stream for route in drawn)
    assert streams["rehearsal"] / len(drawn) == pytest.approx(0.25, abs=0.03) and streams.keys() == {
        "rehearsal",
        "mixed",
    }
    found = {route.stream: dict(route.pools) for route in drawn}
    assert found["rehearsal"] == {"ink": 0.5, "gold": 0.5}
    assert found["mixed"] == pytest.approx({"oil": 1 / 3, "fog": 1 / 3, GENERAL: 1 / 3})
    needs = describe_incremental(settings(mixed_until=5, rehearsal_stream=True))
    assert needs.begins == {"effect": 5, GENERAL: 5}


def test_it_describes_what_can_come_up() -> None:
    needs = describe_incremental(settings(mixed_until=7))
    assert needs.streams == {"effect", GENERAL, "mixed"} and needs.general
    assert needs.ends == {"mixed": 7} and needs.begins == {"effect": 7, GENERAL: 7}
    assert needs.general_streams == {"mixed"}
    alone = describe_incremental(settings(general=0, rehearsal_stream=True))
    assert alone.streams == {"effect", "rehearsal"} and not alone.general and not alone.ends


def test_all_ranks_take_the_same_route() -> None:
    router = Incremental(settings())
    for step in range(50):
        found = [router.route(route_request(step, rank=rank, effects=EFFECTS)) for rank in range(4)]
        assert all(route == found[0] for route in found)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="new must be above 0"):
        settings(new=0)
    with pytest.raises(OptionsError, match=r"new_effects: there is no effect 'oil'; did you mean 'oils'\?"):
        build_incremental(settings(), context("oils", "fog"))
    with pytest.raises(OptionsError, match="every effect is new, so there is none to rehearse"):
        build_incremental(settings(), context("oil", "fog"))
    assert build_incremental(settings(rehearsal=0), context("oil", "fog")).settings.rehearsal == 0


@pytest.mark.slow
def test_it_keeps_what_routers_promise() -> None:
    (component,) = register_stream_routers()
    check_stream_router(component, {"new_effects": ["snow"]})
