"""What a grouper promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from cldistill.component import AnyComponent
from cldistill.protocols import Grouper
from cldistill.records import EffectInfo, Grouping
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.contexts import tiny_dataset, tiny_run
from cldistill.training.run import Run
from cldistill_plugins.deployment.group_run import GroupRequest

EFFECTS = tuple(EffectInfo(name, f"turn it into {name}") for name in ("manga", "gold", "snow", "glass", "lego"))


def grouping_request(groups: int = 2, effects: Sequence[EffectInfo] = EFFECTS, run: Run | None = None) -> GroupRequest:
    """Return a request over small pictures of ``effects`` on a tiny base; ``run``: one that `tiny_run` made, instead."""

    def make() -> Run:
        tiny = run or tiny_run(slots=("student",))
        return replace(tiny, dataset=tiny_dataset(tiny.base, effects=effects), effects=tuple(effects), batch_size=2)

    return GroupRequest(effects, groups, make)


def check_grouper(
    component: AnyComponent, options: Options = None, *, effects: Sequence[EffectInfo] = EFFECTS, fresh: bool = True
) -> None:
    """Assert that each effect is in one group, groups are balanced, the same each time, and the run is left as it was.

    Args:
        effects: What is to be grouped, for a grouper whose options name effects.
        fresh: See `cldistill.testing.check_component`.
    """
    checker, _ = check_component(component, "grouper", options, fresh=fresh)
    settings = read_settings(component, options)
    with scratch_context(tuple(effects)) as context:
        grouper: Grouper = component.build(settings, context)
        for groups in (1, 2, len(effects)):
            run = tiny_run(slots=("student",))
            before = run.slots.state("student")
            with checker.leaves_global_random_alone("draw from the update's `random`, or seed a generator of its own"):
                found = grouper.group(grouping_request(groups, effects, run))
            _well_formed(checker, found, [effect.name for effect in effects], groups)
            same = all(torch.equal(value, before[name]) for name, value in run.slots.state("student").items())
            checker.require(
                same, "changed the student's weights: another grouper, or a second call, would measure others"
            )
            checker.require(run.slots.active is None, "left an adapter slot active; use `with run.slots.scope(...)`")
        again = component.build(settings, context).group(grouping_request(2, effects))
        once = grouper.group(grouping_request(2, effects))
        checker.require(again == once, "the same request gives two groupings; draw everything from a seed")


def _well_formed(checker: Checker, found: Grouping, effects: Sequence[str], groups: int) -> None:
    checker.require(isinstance(found, Grouping), f"must return a Grouping, not {type(found).__name__}")
    named = [name for group in found.groups for name in group]
    checker.require(
        sorted(named) == sorted(effects),
        f"must put each effect into one group: asked for {effects}, got {found.groups}",
    )
    checker.require(
        len(found.groups) == groups and all(found.groups),
        f"must make {groups} groups that are not empty: {found.groups}",
    )
    most = math.ceil(len(effects) / groups)
    checker.require(
        max(map(len, found.groups)) <= most,
        f"puts more than {most} of {len(effects)} effects into one of {groups} groups: `--at-most` relies on that limit",
    )
    unknown = {name for row in (found.interference, *found.interference.values()) for name in row} - set(effects)
    checker.require(not unknown, f"gives an interference of {sorted(unknown)}, which it was not asked for")
    numbers = [value for row in found.interference.values() for value in row.values()]
    checker.require(
        all(isinstance(n, (int, float)) and math.isfinite(n) for n in [*numbers, *found.figures.values()]),
        "interference and figures must be plain finite numbers: use float(...)",
    )
    checker.require(not numbers or bool(found.measured.strip()), "must say in `measured` what its interference is")
