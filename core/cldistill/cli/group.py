"""The click group behind ``cldistill``: the engine's own commands, and those that plugins contribute.

A contributed command is listed by its summary; the function that it runs is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cldistill.catalogue import Catalogue, load_catalogue
from cldistill.component import Command
from cldistill.errors import PluginLoadError, nearest
from cldistill.plugins import Owner


class ContributedCommand(TyperCommand):
    """A plugin's command as ``--help`` lists it; `load` makes the one that runs."""

    def __init__(self, command: Command, owner: Owner) -> None:
        super().__init__(command.name, help=command.summary, callback=None)
        self.command, self.owner = command, owner

    def load(self) -> Any:
        """Return the target as a command that takes its arguments; PluginLoadError where it cannot be imported."""
        module, _, function = self.command.target.partition(":")
        try:
            target = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise PluginLoadError(f"command {self.name!r} of {self.owner} cannot be loaded: {error}") from error
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(self.name)(target)
        return get_command(app)


class CommandGroup(TyperGroup):
    """The engine's commands, then those of the installed plugins by name; where two have one name, neither is run."""

    @cached_property
    def catalogue(self) -> Catalogue:
        """The installed plugins, discovered when the first command is looked up that the engine does not have."""
        return load_catalogue()

    @cached_property
    def contributed(self) -> Mapping[str, list[ContributedCommand]]:
        """Name -> the commands that plugins contribute under it."""
        found: dict[str, list[ContributedCommand]] = {}
        for plugin in self.catalogue.plugins.loaded:
            for command in plugin.commands:
                found.setdefault(command.name, []).append(ContributedCommand(command, plugin.owner))
        return {name: found[name] for name in sorted(found) if name not in self.commands}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of ``--help``."""
        return [*super().list_commands(ctx), *self.contributed]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command of the engine, a plugin's as it is listed, or None."""
        own = super().get_command(ctx, cmd_name)
        return own or next(iter(self.contributed.get(cmd_name, ())), None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command (imported here) and remaining words of what was typed; PluginLoadError for none or several."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            known = f"no command is called {name!r}{nearest(name, self.list_commands(ctx))}"
            raise PluginLoadError("\n".join([known, *self.catalogue.first_failure()]))
        _, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, ContributedCommand):
            several = self.contributed[name]
            if len(several) > 1:
                owners = " and ".join(str(each.owner) for each in several)
                raise PluginLoadError(
                    f"the command {name!r} is registered more than once, by {owners}; uninstall one or name it in "
                    "CLDISTILL_DISABLE_PLUGINS"
                )
            command = command.load()
        return name, command, rest
