"""Discovery of plugins: every entry point of the group ``cldistill``, each in isolation.

pluggy's own loader stops at the first broken entry point and drops one of two that share a name, so this one walks
`importlib.metadata.entry_points` itself, sorted.  A plugin that cannot be used becomes a `PluginFailure`; a run fails
only if its manifest needs something that is then missing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pluggy

from cldistill.component import KINDS, AnyComponent, Command, Component, Kind, Settings
from cldistill.errors import PluginLoadError
from cldistill.hookspecs import PluginHooks
from cldistill.markers import PROJECT
from cldistill.storage.files import sha256_file, source_digest
from cldistill.storage.untrusted import GROUP

DISABLE_VARIABLE = "CLDISTILL_DISABLE_PLUGINS"
"""Environment variable: comma-separated names of entry points that are not even imported."""

HOOK_KINDS: Mapping[str, Kind] = {f"register_{kind}s": kind for kind in KINDS}
COMMANDS_HOOK = "register_commands"
HOOKS = (*HOOK_KINDS, COMMANDS_HOOK, "run_asked", "run_assembled")


@dataclass(frozen=True)
class Owner:
    """Whose component it is: entry point, distribution and version."""

    plugin: str
    distribution: str
    version: str
    module: str = ""
    """The module that its entry point names."""

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"

    def source_digest(self) -> str:
        """Hash the Python files of the package in which its module lies, or the module alone; ``""`` where there is no file."""
        spec = find_spec(self.module) if self.module else None
        if spec is None or spec.origin is None:
            return ""
        file = Path(spec.origin)
        return source_digest(file.parent) if "." in self.module or file.name == "__init__.py" else sha256_file(file)


NOBODY = Owner("unnamed", "unknown", "unknown")
"""Owner of what no entry point names: a module that a test or a notebook registers."""


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that works, with all that it registered."""

    owner: Owner
    components: tuple[AnyComponent, ...]
    commands: tuple[Command, ...] = ()
    run_asked: Callable[..., object] = lambda **_: None
    """Its answer to the hook of that name; raises what refuses the run."""
    run_assembled: Callable[..., object] = lambda **_: None


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that cannot be used, and why."""

    name: str
    distribution: str
    version: str
    error: BaseException

    def __str__(self) -> str:
        where = f"plugin {self.name!r} of {self.distribution} {self.version}"
        return f"{where}: {type(self.error).__name__}: {self.error}"


@dataclass(frozen=True)
class PluginSet:
    """The outcome of one discovery."""

    loaded: tuple[LoadedPlugin, ...] = ()
    failures: tuple[PluginFailure, ...] = ()
    disabled: tuple[str, ...] = ()
    """Names that were asked to be left out, whether or not such a plugin is installed."""


def disabled_plugins() -> tuple[str, ...]:
    """Return the names in `DISABLE_VARIABLE`."""
    return tuple(name for name in (part.strip() for part in os.environ.get(DISABLE_VARIABLE, "").split(",")) if name)


def discover(points: Iterable[EntryPoint] | None = None, disabled: Collection[str] | None = None) -> PluginSet:
    """Import and register every enabled plugin; never raises for what a plugin does wrong.

    ``points`` default to the installed entry points of `GROUP`, ``disabled`` to `disabled_plugins`.
    """
    skip = tuple(disabled_plugins() if disabled is None else disabled)
    wanted = [point for point in (entry_points(group=GROUP) if points is None else points) if point.name not in skip]
    loaded: list[LoadedPlugin] = []
    failures: list[PluginFailure] = []
    for point in sorted(wanted, key=lambda point: (point.name, _identity(point.dist)[0], point.value)):
        owner = Owner(point.name, *_identity(point.dist), point.module)
        try:
            loaded.append(register(point.load(), owner))
        except (Exception, SystemExit) as error:  # a plugin may do anything while it is imported
            failures.append(PluginFailure(owner.plugin, owner.distribution, owner.version, error))
    return PluginSet(tuple(loaded), tuple(failures), skip)


def register(plugin: object, owner: Owner = NOBODY) -> LoadedPlugin:
    """Check the hooks of one plugin (a module or an object) and collect the components and commands that they give.

    Each plugin has a manager of its own: one can neither see nor wrap the hooks of another.

    Raises:
        PluginLoadError: an unknown hook or argument, a default, a missing marker, or a result that is no component.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(PluginHooks)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginLoadError(f"{error}; hooks: {', '.join(HOOKS)}") from error
    _check_markers(plugin, manager)
    components = tuple(component for hook, kind in HOOK_KINDS.items() for component in _components(manager, hook, kind))
    commands, hook = tuple(_commands(manager)), manager.hook
    return LoadedPlugin(owner, components, commands, hook.run_asked, hook.run_assembled)


def _check_markers(plugin: object, manager: pluggy.PluginManager) -> None:
    callers = manager.get_hookcallers(plugin) or []
    marked = {caller.name for caller in callers}
    for name in HOOKS:
        if name not in marked and inspect.isroutine(getattr(plugin, name, None)):
            raise PluginLoadError(f"{name} lacks the marker @hookimpl (cldistill.markers) and would never be called")
    if not marked:
        raise PluginLoadError(f"it implements no hook; hooks: {', '.join(HOOKS)}")
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.kwargnames:  # pluggy never fills an argument that has a default
                names = ", ".join(implementation.kwargnames)
                raise PluginLoadError(f"{caller.name}: arguments with defaults ({names}) are never filled; remove them")


def _results(manager: pluggy.PluginManager, hook: str, what: str) -> Iterable[Any]:
    caller = getattr(manager.hook, hook)
    results = caller()
    if caller.get_hookimpls() and not results:
        raise PluginLoadError(f"{hook} returned None; it must return a sequence of {what}")
    return (part for result in results for part in result)


def _components(manager: pluggy.PluginManager, hook: str, kind: Kind) -> Iterable[AnyComponent]:
    for component in _results(manager, hook, "components"):
        if not isinstance(component, Component):
            raise PluginLoadError(f"{hook} returned {component!r}, which is no cldistill.component.Component")
        if component.kind != kind:
            raise PluginLoadError(f"{hook} returned {component.name!r}, which is a {component.kind}, not a {kind}")
        if not (isinstance(component.settings, type) and issubclass(component.settings, Settings)):
            raise PluginLoadError(f"{hook}: the settings of {component.name!r} must derive from cldistill's Settings")
        yield component


def _commands(manager: pluggy.PluginManager) -> Iterable[Command]:
    for command in _results(manager, COMMANDS_HOOK, "commands"):
        if not isinstance(command, Command):
            raise PluginLoadError(f"{COMMANDS_HOOK} returned {command!r}, which is no cldistill.component.Command")
        module, colon, function = command.target.partition(":")
        if not (colon and module and function.isidentifier()):
            raise PluginLoadError(
                f"{COMMANDS_HOOK}: the target of {command.name!r} must be 'package.module:function', not {command.target!r}"
            )
        yield command


@lru_cache  # of one with many entry points, the metadata (its whole README, often) would be parsed for each of them
def _identity(dist: Distribution | None) -> tuple[str, str]:
    """Return name and version of a distribution."""
    return ("unknown", "unknown") if dist is None else (dist.name, dist.version)
