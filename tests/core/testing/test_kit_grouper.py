"""The kit's check of groupers: an honest one passes, and each fault is seen and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cldistill import testing
from cldistill.component import AnyComponent, Needs, Settings, grouper
from cldistill.protocols import GroupingRequest
from cldistill.records import Grouping
from cldistill.testing import ConformanceError

torch.set_num_threads(1)


class Nothing(Settings):
    """No options."""


def in_order(request: GroupingRequest) -> tuple[tuple[str, ...], ...]:
    names = [effect.name for effect in request.effects]
    return tuple(tuple(names[index :: request.groups]) for index in range(request.groups))


def component(group: Callable[[GroupingRequest], Any]) -> AnyComponent:
    class Fake:
        def group(self, request: GroupingRequest) -> Any:
            return group(request)

    return grouper("fake", "groups", Nothing, lambda s: Needs(), lambda s, c: Fake())


def test_a_grouper_that_looks_at_gradients_conforms() -> None:
    def group(request: GroupingRequest) -> Grouping:
        slots = request.run().slots
        for effect in request.effects:
            context = request.update(effect.name, 0)
            x = context.random.normal((context.batch.size, *context.batch.latent_shape), "x")
            loss = context.student(x, torch.full((context.batch.size,), 0.5)).square().mean()
            gradients = torch.autograd.grad(loss, list(slots.parameters("student").values()))
            assert {item.pool for item in context.batch.items} == {effect.name}
            assert any(bool(gradient.any()) for gradient in gradients)
        return Grouping(in_order(request))

    testing.check_grouper(component(group), fresh=False)


def spoil(request: GroupingRequest) -> Grouping:
    with torch.no_grad():
        next(iter(request.run().slots.parameters("student").values())).add_(1.0)
    return Grouping(in_order(request))


def lopsided(request: GroupingRequest) -> Grouping:
    names = [effect.name for effect in request.effects]
    head = [(name,) for name in names[: request.groups - 1]]
    return Grouping((*head, tuple(names[request.groups - 1 :])))


def forgotten(request: GroupingRequest) -> Grouping:
    return Grouping(tuple(group[:-1] or group for group in in_order(request)))


def unsaid(request: GroupingRequest) -> Grouping:
    return Grouping(in_order(request), {"manga": {"gold": 0.5}})


def random_draw(request: GroupingRequest) -> Grouping:
    torch.rand(1)
    return Grouping(in_order(request))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (spoil, "changed the student's weights"),
        (lopsided, "puts more than 3 of 5 effects"),
        (forgotten, "must put each effect into one group"),
        (unsaid, "must say in `measured`"),
        (random_draw, "global generator of torch"),
    ],
)
def test_a_fault_is_named(group: Callable[[GroupingRequest], Grouping], message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        testing.check_grouper(component(group), fresh=False)
