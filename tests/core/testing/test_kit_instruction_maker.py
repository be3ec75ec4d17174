"""The kit's check of instruction makers: an honest one passes, and each fault is seen and named."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from cldistill import testing
from cldistill.component import AnyComponent, Needs, Settings, instruction_maker
from cldistill.records import InstructionRequest
from cldistill.testing import ConformanceError

CALLS = count()


class Nothing(Settings):
    """No options."""


def component(write: Callable[[InstructionRequest], Any], **attributes: Any) -> AnyComponent:
    class Fake:
        concurrency = attributes.get("concurrency", 1)

        @property
        def identity(self) -> Any:
            identity = attributes.get("identity", "fake")
            return identity() if callable(identity) else identity

        def instruction(self, request: InstructionRequest) -> Any:
            return write(request)

    return instruction_maker("fake", "writes", Nothing, lambda s: Needs(), lambda s, c: Fake())


def good(request: InstructionRequest) -> str | None:
    return None if request.seed == 2 else f"{request.category} {random.Random(request.seed).randint(0, 9)}"


def test_an_honest_maker_conforms() -> None:
    testing.check_instruction_maker(component(good), fresh=False)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (component(lambda request: f"{random.random()}"), "global generator"),
        (component(lambda request: f"{next(CALLS)}"), "gives two instructions"),
        (component(lambda request: "two\nlines"), "one line"),
        (component(lambda request: " padded "), "one line"),
        (component(lambda request: ""), "one line"),
        (component(lambda request: 3), "one line"),
        (component(good, concurrency=0), "concurrency"),
        (component(good, identity=lambda: str(next(CALLS))), "identity"),
        (component(good, identity=None), "identity"),
        (component(lambda request: str(request.picture.write_bytes(b""))), "changed a picture"),
    ],
)
def test_each_fault_is_named(made: AnyComponent, problem: str) -> None:
    with pytest.raises(ConformanceError, match=problem):
        testing.check_instruction_maker(made, fresh=False)
