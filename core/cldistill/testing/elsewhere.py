"""The same questions to a part in another process, on another machine: its answers must not change (imports no torch)."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest import mock

from cldistill.component import BuildContext, RunOutline
from cldistill.records import EffectInfo, Prompts, Route, RouteRequest
from cldistill.testing.tiny_base_settings import TinyBaseSettings, describe_tiny_base

if TYPE_CHECKING:
    from cldistill.protocols import Keyed, PromptIsolator, StreamRouter

Build = Callable[[Any, BuildContext], Any]
EFFECTS = tuple(EffectInfo(name, f"turn it into {name}") for name in ("manga", "gold", "snow", "clay", "neon"))
DRAWS = 60
OUTLINE = RunOutline(steps=100_001, base=describe_tiny_base(TinyBaseSettings()).base)
"""The run around a part under test: many generator steps on the tiny base."""


@contextmanager
def scratch_context(effects: tuple[EffectInfo, ...] = (), outline: RunOutline | None = None) -> Iterator[BuildContext]:
    """Yield a build context over a temporary folder."""
    with TemporaryDirectory() as name:
        root = Path(name)
        for part in ("cache", "output"):
            (root / part).mkdir()
        yield BuildContext(root, root / "cache", root / "output", effects=effects, outline=outline or OUTLINE)


def draw_route(router: StreamRouter, random: Keyed, step: int, effects: Sequence[str]) -> Route:
    """Draw the route of the student's first update in a step; ``random`` is the run's."""
    shared = random.child("train")
    own = shared.child(step, "student", 0, "route")
    return router.route(RouteRequest(step, OUTLINE.steps, "student", 0, effects, own, shared))


def routes(build: Build, settings: Any) -> list[Any]:
    """Build a router and return its first routes, as JSON holds them."""
    from cldistill.random import KeyedRandom

    names = [effect.name for effect in EFFECTS]
    with scratch_context(EFFECTS) as context:
        router = build(settings, context)
        found = [draw_route(router, KeyedRandom(7), step, names) for step in range(DRAWS)]
    return [[route.stream, sorted([pool, chance] for pool, chance in route.pools.items())] for route in found]


def prompts(build: Build, settings: Any) -> list[Any]:
    """Build a prompt isolator and return what it says of each effect and of an instruction, as JSON holds it."""
    with scratch_context(EFFECTS) as context:
        isolator: PromptIsolator = build(settings, context)
        found: list[Prompts] = [isolator.isolate(effect) for effect in EFFECTS]
        found.append(isolator.general("make it darker"))
    return [[said.student, said.teacher, said.unconditional, said.trigger] for said in found]


@contextmanager
def salted_hashes() -> Iterator[None]:
    """Let ``hash(...)`` give what it gives in a process with another ``PYTHONHASHSEED`` (sets keep their order)."""
    real = builtins.hash

    def salted(value: object) -> int:
        for_a_dict = sys._getframe(1).f_code.co_name == "__hash__"
        return real(value) if for_a_dict or type(value) is int else real(("another salt", real(value)))

    with mock.patch.object(builtins, "hash", salted):
        yield


@contextmanager
def variables_read() -> Iterator[set[str]]:
    """Yield the names of the environment variables that are read inside, those that are not set included."""
    names: set[str] = set()
    kind = type(os.environ)
    real = kind.__getitem__

    def noted(environment: Any, name: Any) -> Any:
        names.add(os.fsdecode(name))
        return real(environment, name)

    with mock.patch.object(kind, "__getitem__", noted):
        yield names


def changed_environment(name: str) -> Any:
    """Set one variable to another value inside."""
    return mock.patch.dict(os.environ, {name: "2" if os.environ.get(name) == "1" else "1"})


def other_process() -> dict[str, str]:
    """Return the environment of a process with another salt of ``hash()``, another rank, user, host and time zone."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    launched = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "USER": "another", "LOGNAME": "another"}
    return {**os.environ, **launched, "PYTHONHASHSEED": seed, "HOSTNAME": "another", "TZ": "Asia/Tokyo"}


def reason(ask: Callable[[], Any]) -> str | None:
    """Return why ``ask`` would answer otherwise in another process, None if nothing is found."""
    with variables_read() as names:
        expected = ask()
    if ask() != expected:
        return None  # it does not even answer alike here: what checks that says it better
    for name in sorted(names):
        with changed_environment(name):
            try:
                same = ask() == expected
            except Exception:  # a value that the variable cannot have says nothing
                same = True
        if not same:
            return (
                f"depends on the environment variable {name}: make it an option of the part, which the manifest records"
            )
    with salted_hashes():
        if ask() != expected:
            return f"depends on hash(): {SALTED}"
    return None


SALTED = (
    "Python salts the hash() of text, and so the order of a set, anew in every process; use the `random` that is given, "
    "hashlib, and sorted(...)"
)
