"""The check of an observer: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import torch

from cldistill.component import AnyComponent
from cldistill.errors import PluginError
from cldistill.hookspecs import RunHooks
from cldistill.records import StepResult, UpdateResult
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.contexts import tiny_run
from cldistill.training.observers import manager_of
from cldistill.training.run import Run


def step_result(step: int = 1) -> StepResult:
    """Return a step with an update of the student and one of the critic, the latter skipped for a loss that was not finite."""
    student = UpdateResult("student", 0, "effect", ("invert",), {"a-loss": 0.5}, {"a-loss/sigma": 0.7}, 1.25)
    critic = UpdateResult("critic", 0, "general", ("general",), {"its-loss": float("nan")}, {}, 0.0, skipped=True)
    return StepResult(step, (student, critic), seconds=0.5, forwards=7, peak_memory_mb=100.0)


def check_observer(component: AnyComponent, options: Options = None, *, fresh: bool = True) -> None:
    """Assert that its hooks are ones that are called, that it lives through a run and a failure, and only watches.

    ``fresh``: see `cldistill.testing.check_component`.
    """
    checker, _ = check_component(component, "observer", options, fresh=fresh)
    settings = read_settings(component, options)
    with scratch_context() as context:
        run = tiny_run(output=context.output)
        before = {slot: run.slots.state(slot) for slot in run.slots.names}
        _live_through(checker, component.build(settings, context), run, ending="finished")
        _live_through(checker, component.build(settings, context), run, ending="failed")
        same = all(
            torch.equal(value, before[slot][name]) for slot in before for name, value in run.slots.state(slot).items()
        )
        checker.require(same, "changed the weights of the run; an observer only watches")
        checker.require(run.slots.active is None, "left an adapter slot active; use `with run.slots.scope(...)`")


def _live_through(checker: Checker, observer: object, run: Run, ending: str) -> None:
    hooks = _manager(checker, observer).hook
    path: Path = run.output / "checkpoints" / "step-000002"
    calls: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("run_started", hooks.run_started, {"start_step": 0}),
        ("step_finished", hooks.step_finished, {"result": step_result(1)}),
        ("step_finished", hooks.step_finished, {"result": step_result(2)}),
        ("checkpoint_saved", hooks.checkpoint_saved, {"step": 2, "path": path}),
    ]
    if ending == "finished":
        calls.append(("run_finished", hooks.run_finished, {"step": 2, "stopped": False}))
    else:
        calls.append(("run_failed", hooks.run_failed, {"error": RuntimeError("out of memory")}))
    for name, call, arguments in calls:
        try:
            with checker.leaves_global_random_alone("seed a generator of its own"):
                call(run=run, **arguments)
        except Exception as error:
            if isinstance(error, AssertionError):
                raise
            checker.fail(f"{name} failed, so a run would switch it off: {type(error).__name__}: {error}")


def _manager(checker: Checker, observer: object) -> pluggy.PluginManager:
    try:
        manager = manager_of(observer)
    except PluginError as error:
        checker.fail(
            f"has a hook that does not exist or takes other arguments ({error}); see cldistill.hookspecs.RunHooks"
        )
    marked = {caller.name for caller in manager.get_hookcallers(observer) or []}
    checker.require(
        bool(marked), "implements no hook: mark methods of RunHooks' names with @hookimpl (cldistill.markers)"
    )
    forgotten = [n for n in vars(RunHooks) if not n.startswith("_") and hasattr(observer, n) and n not in marked]
    checker.require(not forgotten, f"{forgotten} lack the marker @hookimpl and would never be called")
    return manager
