"""PDSR's streams, and where TS-DMD and TA-FM draw their noise levels: the paper's reading and the released code's."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from cldistill.component import BuildContext
from cldistill.errors import OptionsError
from cldistill.manifest.models import Sampler
from cldistill.manifest.rules import lowest_sigma
from cldistill.records import GENERAL, EffectInfo
from cldistill.schedule import Schedule
from cldistill.testing import route_request
from cldistill_plugins.collectionlora.bs_dmd import BsDmdSettings
from cldistill_plugins.collectionlora.pdsr import Pdsr, PdsrSettings, build_pdsr, describe_pdsr
from cldistill_plugins.collectionlora.ta_fm import draw_sigma
from cldistill_plugins.collectionlora.ts_dmd import TsDmdSettings, describe_ts_dmd, generator_sigmas

EFFECTS = ["ink", "gold", "oil"]
asked = partial(route_request, effects=EFFECTS)


@pytest.mark.slow
def test_p_switch_is_the_share_of_the_effect_stream_and_effects_are_drawn_evenly() -> None:
    router = Pdsr(PdsrSettings(p_switch=0.7, one_effect_a_batch=True))
    routes = [router.route(asked(i)) for i in range(3000)]
    streams = Counter(route.stream for route in routes)
    assert streams["effect"] / 3000 == pytest.approx(0.7, abs=0.03)
    effects = Counter(route.effect for route in routes if route.stream == "effect")
    assert set(effects) == set(EFFECTS)
    assert min(effects.values()) > 600
    assert all(route.effect is None for route in routes if route.stream == GENERAL)


def test_all_ranks_take_the_same_route() -> None:
    router = Pdsr(PdsrSettings())
    for step in range(50):
        routes = [router.route(asked(step, rank=rank)) for rank in range(4)]
        assert all(route == routes[0] for route in routes)


def test_the_first_phase_mixes_effects_and_general_items_then_ends() -> None:
    router = Pdsr(PdsrSettings(mixed_until=10, mixed_general=0.4))
    route = router.route(asked(9))
    assert route.stream == "mixed"
    assert route.effect is None
    assert route.pools[GENERAL] == pytest.approx(0.4)
    assert sum(route.pools.values()) == pytest.approx(1.0)
    assert router.route(asked(10)).stream != "mixed"


def test_weights_say_how_often_an_effect_is_drawn_alone_and_in_a_mixture() -> None:
    settings = PdsrSettings(p_switch=1.0, effect_weights={"oil": 2.0}, mixed_until=1, mixed_general=0.5)
    router = Pdsr(settings.model_copy(update={"one_effect_a_batch": True}))
    assert dict(Pdsr(settings).route(asked(1)).pools) == pytest.approx({"ink": 0.25, "gold": 0.25, "oil": 0.5})
    pools = router.route(asked(0)).pools
    assert pools == pytest.approx({"ink": 0.125, "gold": 0.125, "oil": 0.25, GENERAL: 0.5})
    drawn = Counter(router.route(asked(1, update=i)).effect for i in range(4000))
    assert drawn["oil"] / 4000 == pytest.approx(0.5, abs=0.03)
    assert drawn["ink"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_weight_of_an_unknown_effect_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    effects = tuple(EffectInfo(name, "x") for name in EFFECTS)
    context = BuildContext(root=tmp_path, cache=tmp_path, output=tmp_path, effects=effects)
    with pytest.raises(OptionsError, match=r"effect_weights.golt: there is no effect 'golt'.*gold"):
        build_pdsr(PdsrSettings(effect_weights={"golt": 2.0}), context)


def test_redrawn_every_so_many_steps_stream_and_effect_hold_for_all_updates_between() -> None:
    router = Pdsr(PdsrSettings(redraw_every=20, mixed_until=10, one_effect_a_batch=True))
    blocks = []
    for block in range(1, 40):
        keys = [
            (step, slot, update) for step in range(20 * block, 20 * block + 20, 7) for slot in "sc" for update in (0, 1)
        ]
        routes = [
            router.route(asked(step, slot=slot, update=update, rank=rank))
            for step, slot, update in keys
            for rank in (0, 1)
        ]
        assert all(route == routes[0] for route in routes)
        blocks.append(routes[0])
    assert {route.effect for route in blocks} == {None, *EFFECTS}, "between blocks it is drawn anew"
    assert router.route(asked(9)).stream == "mixed"
    assert [router.route(asked(20 * b, seed=6)) for b in range(1, 40)] != blocks, "another seed, another run"


def test_the_papers_default_draws_for_every_update() -> None:
    for one, effects in ((True, {None, *EFFECTS}), (False, {None})):
        router = Pdsr(PdsrSettings(one_effect_a_batch=one))
        routes = [router.route(asked(0, slot="critic", update=update)) for update in range(60)]
        assert {route.stream for route in routes} == {"effect", GENERAL}
        assert {route.effect for route in routes} == effects


def test_every_item_of_a_batch_may_have_its_own_effect() -> None:
    routes = [Pdsr(PdsrSettings(p_switch=1.0)).route(asked(step)) for step in range(5)]
    assert all(dict(route.pools) == pytest.approx(dict.fromkeys(EFFECTS, 1 / 3)) for route in routes)


@pytest.mark.parametrize(
    ("settings", "ends", "general"),
    [
        (PdsrSettings(), {}, set()),
        (PdsrSettings(mixed_until=5), {"mixed": 5}, {"mixed"}),
        (PdsrSettings(mixed_until=5, mixed_general=0.0), {"mixed": 5}, set()),
        (PdsrSettings(mixed_until=5, mixed_general=1.0), {"mixed": 5}, {"mixed"}),
    ],
)
def test_the_router_says_until_when_it_mixes_all_and_whether_general_items_are_among_them(
    settings: PdsrSettings, ends: dict[str, int], general: set[str]
) -> None:
    needs = describe_pdsr(settings)
    assert (needs.ends, needs.general_streams) == (ends, general)
    assert needs.begins == ({"effect": 5, GENERAL: 5} if settings.mixed_until else {})
    routes = [Pdsr(settings).route(asked(step)) for step in range(9)]
    assert [route.stream == "mixed" for route in routes] == [step < ends.get("mixed", 0) for step in range(9)]
    assert {route.stream for route in routes if GENERAL in route.pools} - {GENERAL} == general


def test_the_range_of_sigma_must_not_be_empty() -> None:
    assert BsDmdSettings(sigma_min=0.2, sigma_max=0.3).sigma_max == 0.3
    for low, high in ((0.3, 0.3), (0.9, 0.1)):
        with pytest.raises(ValidationError, match=f"sigma_min must be below sigma_max, which is {high}"):
            BsDmdSettings(sigma_min=low, sigma_max=high)


@pytest.mark.parametrize(
    ("steps", "tau_max", "strict"), [(8, 750.0, True), (2, 750.0, True), (2, 750.0, False), (3, 600.0, True)]
)
def test_what_check_is_told_of_the_samplers_steps_is_what_the_loss_finds(
    steps: int, tau_max: float, strict: bool
) -> None:
    bound = describe_ts_dmd(TsDmdSettings(tau_max=tau_max, strict=strict)).sampler_below
    assert bound is not None
    found = lowest_sigma(Sampler(steps=steps)) < bound
    if found:
        assert len(generator_sigmas(Schedule(steps), tau_max, strict=strict))
    else:
        with pytest.raises(ValueError, match="no step of the sampler"):
            generator_sigmas(Schedule(steps), tau_max, strict=strict)


@pytest.mark.parametrize(
    ("settings", "streams", "general"),
    [
        (PdsrSettings(), {"effect", GENERAL}, True),
        (PdsrSettings(p_switch=1.0), {"effect"}, False),
        (PdsrSettings(p_switch=0.0), {GENERAL}, True),
        (PdsrSettings(p_switch=1.0, mixed_until=5), {"effect", "mixed"}, True),
        (PdsrSettings(p_switch=1.0, mixed_until=5, mixed_general=0.0), {"effect", "mixed"}, False),
    ],
)
def test_what_the_router_says_of_itself(settings: PdsrSettings, streams: set[str], general: bool) -> None:
    needs = describe_pdsr(settings)
    assert needs.streams == streams
    assert needs.general is general


def test_strictly_below_750_leaves_the_papers_three_steps() -> None:
    schedule = Schedule(8, 3.0)
    paper = [642.857, 500.0, 300.0]
    assert (generator_sigmas(schedule, 750, strict=True) * 1000).tolist() == pytest.approx(paper, abs=1e-2)
    assert (generator_sigmas(schedule, 750, strict=False) * 1000).tolist() == pytest.approx([750.0, *paper], abs=1e-2)
    # The released code's "last five steps".
    assert len(generator_sigmas(schedule, 834, strict=False)) == 5


def test_a_bound_below_every_step_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"tau_max 200.*raise tau_max"):
        generator_sigmas(Schedule(8, 3.0), 200, strict=True)


def test_ta_fm_draws_uniformly_and_shifts_once_by_default() -> None:
    uniform = torch.linspace(0, 1, 4001)[:-1]
    sigma = draw_sigma("uniform", Schedule(8, 3.0), uniform, uniform)
    assert float(sigma.median()) == pytest.approx(0.75, abs=1e-3)


def test_the_released_rule_has_its_median_at_966() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2, 200_000, generator=generator)
    sigma = draw_sigma("released", Schedule(8, 3.0), draws[0], draws[1])
    assert float(sigma.median()) * 1000 == pytest.approx(966, abs=3)


def test_students_own_steps_are_all_drawn() -> None:
    uniform = torch.linspace(0, 1, 801)[:-1]
    schedule = Schedule(8, 3.0)
    drawn = draw_sigma("student-steps", schedule, uniform, uniform)
    assert torch.equal(drawn.unique(), schedule.sigmas().unique())


def test_a_first_phase_of_general_items_alone_is_said_to_draw_from_the_general_pool() -> None:
    needs = describe_pdsr(PdsrSettings(p_switch=1.0, mixed_until=3, mixed_general=1.0))
    assert (needs.general, needs.general_streams) == (True, {"mixed"})
