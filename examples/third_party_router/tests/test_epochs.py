"""The example's own tests: the kit's check, and what the router is for."""

from __future__ import annotations

from collections import Counter

from epoch_router import plugin
from epoch_router.plugin import Epochs, EpochSettings

from cldistill.testing import check_stream_router, route_request

EFFECTS = ("ink", "gold", "oil")
(EPOCHS,) = plugin.register_stream_routers()


def test_it_conforms() -> None:
    check_stream_router(EPOCHS, {"p_first": 0.5})


def test_each_effect_comes_up_once_an_epoch_in_orders_that_differ() -> None:
    routes = [Epochs(EpochSettings()).route(route_request(step, effects=EFFECTS)) for step in range(200)]
    drawn = [route.effect for route in routes if route.effect is not None]
    epochs = {tuple(drawn[start : start + 3]) for start in range(0, 60, 3)}
    assert all(sorted(epoch) == sorted(EFFECTS) for epoch in epochs) and len(epochs) > 3


def test_the_share_of_effects_rises_and_a_step_has_one_route() -> None:
    router, steps = Epochs(EpochSettings()), 2000
    routes = [router.route(route_request(step, steps=steps, effects=EFFECTS)) for step in range(steps)]
    halves = [Counter(route.stream for route in routes[start : start + 1000])["effect"] for start in (0, 1000)]
    assert halves == [450, 750], "0.3 to 0.6, and 0.6 to 0.9"
    for step in (3, 1500):
        other = route_request(step, steps=steps, slot="critic", update=4, effects=EFFECTS, rank=1)
        assert router.route(other) == routes[step]
