"""What every component promises, whatever its kind, and the words in which a broken promise is reported."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import rich.style  # noqa: F401 (draws from the global generator when it is first imported, as httpx does)
import torch

from cldistill.component import AnyComponent, BuildContext, Kind, Needs, RunOutline, Settings
from cldistill.records import EffectInfo
from cldistill.testing.tiny_base_settings import TinyBaseSettings, describe_tiny_base

Options = Mapping[str, Any] | Settings | None
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft")
"""Packages that ``describe`` must not import: with any of them ``cldistill check`` takes many seconds."""


_TINY = describe_tiny_base(TinyBaseSettings()).base
OUTLINE = RunOutline(steps=1000, base=_TINY)
"""The run around a part under test: 1,000 generator steps on the tiny base."""


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


@contextmanager
def scratch_context(effects: tuple[EffectInfo, ...] = (), outline: RunOutline | None = None) -> Iterator[BuildContext]:
    """Yield a build context over a temporary folder."""
    with TemporaryDirectory() as name:
        root = Path(name)
        for part in ("cache", "output"):
            (root / part).mkdir()
        yield BuildContext(root, root / "cache", root / "output", effects=effects, outline=outline or OUTLINE)


def check_component(
    component: AnyComponent, kind: Kind, options: Options, *, fresh: bool = True, outline: RunOutline | None = None
) -> tuple[Checker, Needs]:
    """Check what holds for every kind: strict frozen settings, and a pure ``describe`` that imports no torch.

    ``outline``: the run around it, by default `OUTLINE`.  ``fresh=False`` leaves out the interpreter of its own in which the
    latter is seen (for parts that a test file defines).
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
    if fresh:
        _check_fresh(checker, component, settings)
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
module, name = job["describe"]
if "<" in name:
    hook = getattr(sys.modules[module], job["hook"])
    describe = next(c.describe for c in hook() if c.name == job["name"])
else:
    describe = reduce(getattr, name.split("."), sys.modules[module])
from cldistill.component import Component, RunOutline
from cldistill.testing.tiny_base_settings import TinyBaseSettings, describe_tiny_base
outline = RunOutline(steps=1000, base=describe_tiny_base(TinyBaseSettings()).base)
Component(job["kind"], job["name"], "", type(settings), describe, None).needs(settings, outline)
print("\\n".join(package for package in job["heavy"] if package in sys.modules))
"""


def _check_fresh(checker: Checker, component: AnyComponent, settings: Settings) -> None:
    functions: tuple[Callable[..., Any], ...] = (component.describe, component.build)
    modules = [component.settings.__module__, *(function.__module__ for function in functions)]
    job = {
        "path": sys.path, "modules": modules, "heavy": HEAVY, "name": component.name, "kind": component.kind,
        "settings": [component.settings.__module__, component.settings.__qualname__],
        "describe": [component.describe.__module__, getattr(component.describe, "__qualname__", "<object>")],
        "hook": f"register_{component.kind}s", "options": settings.model_dump(mode="json"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    checker.require(
        done.returncode == 0,
        "cannot be described in an interpreter of its own (settings, describe and build must be importable from modules; "
        f"fresh=False leaves this out):\n{done.stderr.strip()}",
    )
    checker.require(
        not done.stdout.split(),
        f"its modules import {', '.join(done.stdout.split())}, which makes `cldistill check` slow; import them inside build, "
        "or inside the methods that need them",
    )
