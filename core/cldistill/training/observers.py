"""Calls the observers of a run: on the main process only, and an observer that fails is reported, never fatal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext

import pluggy

from cldistill.errors import CheckpointError, PluginError, Stopped, nearest
from cldistill.hookspecs import RunHooks
from cldistill.markers import PROJECT
from cldistill.training.run import ExportedRun, Run


def manager_of(observer: object) -> pluggy.PluginManager:
    """Put one observer behind `RunHooks`; PluginError where it marks a hook that does not exist, or with other arguments."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RunHooks)
    try:
        manager.register(observer)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = [name for name in vars(RunHooks) if not name.startswith("_")]
        unknown = [caller.name for caller in manager.get_hookcallers(observer) or [] if caller.name not in hooks]
        hint = "".join(f"; it has no hook {name!r}{nearest(name, hooks)}" for name in unknown)
        raise PluginError(
            f"observer {type(observer).__name__} does not fit cldistill.hookspecs.RunHooks{hint or f': {error}'}"
        ) from error
    return manager


def check_observers(observers: Iterable[object]) -> None:
    """Refuse observers whose hooks do not exist; see `manager_of`."""
    for observer in observers:
        manager_of(observer)


def warn(run: Run, text: str) -> None:
    """Say something that a person should see, on standard error, once for all processes."""
    if run.is_main:
        print(f"warning: {text}", file=sys.stderr)


class Observers:
    """The run's observers behind `cldistill.hookspecs.RunHooks`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plugins: list[tuple[str, pluggy.PluginManager]] = []
        if run.is_main:
            for observer in run.observers:
                self._plugins.append((type(observer).__name__, manager_of(observer)))

    def tell(self, hook: str, **arguments: object) -> None:
        """Call a hook of all observers; one that fails is switched off."""
        with nullcontext() if hook == "run_failed" else self._run.alone():  # after a failure other ranks may be gone
            for name, manager in list(self._plugins):
                try:
                    getattr(manager.hook, hook)(run=self._run, **arguments)
                except CheckpointError:  # the run's own log does not fit the checkpoint: no training over that
                    raise
                except Exception as error:  # a tracker that is down must not cost a night of training
                    said = f"{type(error).__name__}: {error}"
                    warn(self._run, f"observer {name} failed in {hook} and is switched off: {said}")
                    self._plugins.remove((name, manager))

    def run_exported(self, exported: ExportedRun) -> list[Exception]:
        """Tell all observers, and return their errors; a stop goes through at once."""
        errors: list[Exception] = []
        for _, manager in self._plugins:
            try:
                manager.hook.run_exported(run=self._run, exported=exported)
            except Stopped:
                raise
            except Exception as error:
                errors.append(error)
        return errors
