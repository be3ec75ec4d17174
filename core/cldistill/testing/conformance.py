"""Checks that hold for components of every kind, and the error that reports a failed one; each kind's checks use them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import rich.style  # noqa: F401 (draws from the global generator when it is first imported, as httpx does)
import torch

from cldistill.component import AnyComponent, Kind, Needs, RunOutline, Settings
from cldistill.testing.elsewhere import OUTLINE, SALTED, other_process, reason
from cldistill.testing.elsewhere import scratch_context as scratch_context

Ask = Callable[[Callable[..., Any], Any], list[Any]]
Options = Mapping[str, Any] | Settings | None
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft")
"""Packages that ``describe`` must not import: with any of them ``cldistill check`` takes many seconds."""


class ConformanceError(AssertionError):
    """A part breaks a promise of its kind; the text says which, and what to change."""


class Checker:
    """Reports in the name of one component."""

    def __init__(self, component: AnyComponent) -> None:
        self.name = f"{component.kind.replace('_', ' ')} {component.name!r}"

    def require(self, holds: bool, problem: str) -> None:
        """Raise `ConformanceError` unless ``holds``."""
        if not holds:
            self.fail(problem)

    def fail(self, problem: str) -> NoReturn:
        """Raise `ConformanceError`."""
        raise ConformanceError(f"{self.name}: {problem}")

    @contextmanager
    def leaves_global_random_alone(self, instead: str) -> Iterator[None]:
        """Fail if the block draws from the generators of torch, numpy or Python that the whole process shares."""
        before = _random_states()
        yield
        after = _random_states()
        moved = [name for name in before if before[name] != after[name]]
        self.require(
            not moved,
            f"draws from the global generator of {', '.join(moved)}, so a resumed run would not be the unbroken one; {instead}",
        )


def _random_states() -> dict[str, bytes]:
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": numpy["state"]["key"].tobytes() + str(numpy["state"]["pos"]).encode(),
        "random": repr(random.getstate()).encode(),
    }


def read_settings(component: AnyComponent, options: Options) -> Settings:
    """Return settings of ``options`` as a manifest would have them read (relative paths start from the current folder)."""
    if isinstance(options, Settings):
        return options
    settings: Settings = component.settings.model_validate(dict(options or {}), context={"root": Path.cwd()})
    return settings


def check_component(
    component: AnyComponent, kind: Kind, options: Options, *, fresh: bool = True, ask: Ask | None = None,
    outline: RunOutline | None = None,
) -> tuple[Checker, Needs]:  # fmt: skip
    """Check what holds for every kind: strict frozen settings, and a pure ``describe`` that imports no torch.

    Args:
        fresh: False leaves out the interpreter of its own in which the latter is seen (for parts that a test file defines).
        ask: Asks a part of this kind something (a function of `cldistill.testing.elsewhere`) that it must answer alike in
            that interpreter, in one with another salt of ``hash()``, and in another environment.
        outline: The run around it, by default `OUTLINE`.
    """
    checker = Checker(component)
    checker.require(component.kind == kind, f"is registered as a {component.kind}, not as a {kind}: use {kind}(...)")
    checker.require(bool(component.summary.strip()), "has no summary: `cldistill plugins` prints it")
    config = component.settings.model_config
    checker.require(
        config.get("extra") == "forbid" and config.get("frozen") is True,
        "its settings must keep Settings' model_config (extra='forbid', frozen=True): a misspelt option must be an error",
    )
    settings = read_settings(component, options)
    outline = outline or OUTLINE
    needs = component.needs(settings, outline)
    checker.require(isinstance(needs, Needs), f"describe must return Needs, not {type(needs).__name__}")
    checker.require(component.needs(settings, outline) == needs, "describe must give equal Needs for equal settings")
    if ask is not None:
        changed = reason(lambda: ask(component.build, settings))
        checker.require(changed is None, str(changed))
    if fresh:
        _check_fresh(checker, component, settings, ask)
    return checker, needs


_SCRIPT = """
import importlib, json, sys
from functools import reduce
job = json.load(sys.stdin)
sys.path[:] = job["path"]
for module in job["modules"]:
    importlib.import_module(module)
module, name = job["settings"]
settings = reduce(getattr, name.split("."), sys.modules[module]).model_validate(job["options"])
def function(role):
    module, name = job[role]
    if "<" in name:
        hook = getattr(sys.modules[module], job["hook"])
        return next(getattr(c, role) for c in hook() if c.name == job["name"])
    return reduce(getattr, name.split("."), sys.modules[module])
from cldistill.component import Component
from cldistill.testing.elsewhere import OUTLINE
Component(job["kind"], job["name"], "", type(settings), function("describe"), None).needs(settings, OUTLINE)
heavy = [package for package in job["heavy"] if package in sys.modules]
answer = None
if job["ask"] is not None:
    answer = getattr(importlib.import_module("cldistill.testing.elsewhere"), job["ask"])(function("build"), settings)
print(json.dumps({"heavy": heavy, "answer": answer}))
"""


def _check_fresh(checker: Checker, component: AnyComponent, settings: Settings, ask: Ask | None) -> None:
    functions: tuple[Callable[..., Any], ...] = (component.describe, component.build)
    modules = [component.settings.__module__, *(function.__module__ for function in functions)]
    job = {
        "path": sys.path, "modules": modules, "heavy": HEAVY, "name": component.name, "kind": component.kind,
        "settings": [component.settings.__module__, component.settings.__qualname__],
        "describe": [component.describe.__module__, getattr(component.describe, "__qualname__", "<object>")],
        "build": [component.build.__module__, getattr(component.build, "__qualname__", "<object>")],
        "hook": f"register_{component.kind}s", "options": settings.model_dump(mode="json"),
        "ask": None if ask is None else ask.__name__,
    }  # fmt: skip
    command, environment = [sys.executable, "-c", _SCRIPT], other_process()
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False, env=environment)
    checker.require(
        done.returncode == 0,
        "cannot be described in an interpreter of its own (settings, describe and build must be importable from modules; "
        f"fresh=False leaves this out):\n{done.stderr.strip()}",
    )
    said = json.loads(done.stdout.splitlines()[-1])
    checker.require(
        not said["heavy"],
        f"its modules import {', '.join(said['heavy'])}, which makes `cldistill check` slow; import them inside build, "
        "or inside the methods that need them",
    )
    checker.require(
        ask is None or said["answer"] == ask(component.build, settings),
        f"another process gets other {ask.__name__ if ask else ''}: {SALTED}, and nothing of machine, user, rank or time",
    )
