"""`cldistill plugins`: what is installed, what it offers, and what failed to load."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cldistill.catalogue import Catalogue, label, load_catalogue
from cldistill.cli.options import JsonOption
from cldistill.component import AnyComponent
from cldistill.errors import PluginLoadError, nearest


def plugins(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A plugin, part or command to list alone.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every plugin and component with its settings, and every plugin that failed, with the cause."""
    catalogue = load_catalogue() if name is None else narrowed(load_catalogue(), name)
    if as_json:
        typer.echo(json.dumps(describe(catalogue), indent=2))
    else:
        _print(catalogue)


def narrowed(catalogue: Catalogue, name: str) -> Catalogue:
    """Return what is called ``name`` alone: a plugin, whole or failed, and parts and commands of any.

    Raises:
        PluginLoadError: nothing is; with the nearest name.
    """
    known, found = {failure.name for failure in catalogue.failures}, []
    for plugin in catalogue.plugins.loaded:
        known |= {plugin.owner.plugin, *(c.name for c in plugin.components), *(c.name for c in plugin.commands)}
        whole = plugin.owner.plugin == name
        components = tuple(component for component in plugin.components if whole or component.name == name)
        commands = tuple(command for command in plugin.commands if whole or command.name == name)
        if whole or components or commands:
            found.append(replace(plugin, components=components, commands=commands))
    failures = tuple(failure for failure in catalogue.failures if failure.name == name)
    if not found and not failures:
        raise PluginLoadError(f"no plugin, part or command is called {name!r}{nearest(name, known)}")
    return Catalogue(replace(catalogue.plugins, loaded=tuple(found), failures=failures, disabled=()))


def describe(catalogue: Catalogue) -> dict[str, Any]:
    """Return all that is installed as plain data."""
    return {
        "plugins": [
            {
                "name": plugin.owner.plugin,
                "distribution": plugin.owner.distribution,
                "version": plugin.owner.version,
                "components": [
                    {"kind": c.kind, "name": c.name, "summary": c.summary, "settings": settings_rows(c)}
                    for c in plugin.components
                ],
                "commands": [{"name": command.name, "summary": command.summary} for command in plugin.commands],
            }
            for plugin in catalogue.plugins.loaded
        ],
        "failures": [
            {"name": f.name, "distribution": f.distribution, "version": f.version,
             "error": f"{type(f.error).__name__}: {f.error}"}
            for f in catalogue.failures
        ],
        "disabled": list(catalogue.plugins.disabled),
        "clashes": list(catalogue.clashes()),
    }  # fmt: skip


def settings_rows(component: AnyComponent) -> list[dict[str, str]]:
    """Return name, type, default and meaning of every setting."""
    return [
        {
            "name": field.alias or name,
            "type": type_name(field.annotation),
            "default": _default(field),
            "help": " ".join((field.description or "").split()),
        }
        for name, field in component.settings.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        factory: Callable[..., Any] = field.default_factory
        return _value(factory()) if factory in (list, dict, tuple, set) else "(computed)"
    return "(required)" if field.default is PydanticUndefined else _value(field.default)


def _value(value: Any) -> str:
    return str(value) if not isinstance(value, str) else repr(value)


def _short(text: str) -> str:
    """Cut a long default for the table; ``--json`` has it whole."""
    return text if len(text) <= 60 else text[:57] + "..."


def type_name(annotation: Any) -> str:
    """Return a type as people write it: ``float | None``, ``'standard' | 'rescaled'``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if annotation is type(None):
        return "None"
    if origin is not None:
        inner = ", ".join("..." if argument is Ellipsis else type_name(argument) for argument in arguments)
        return f"{type_name(origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _print(catalogue: Catalogue) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for plugin in catalogue.plugins.loaded:
        owner = plugin.owner
        console.print(f"[bold]{owner.plugin}[/] ({owner.distribution} {owner.version})", highlight=False)
        for component in plugin.components:
            console.print(f"  [bold cyan]{component.name}[/], {label(component.kind)}: {escape(component.summary)}",
                          soft_wrap=True, highlight=False)  # fmt: skip
            table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
            for row in settings_rows(component):
                name, default = escape(row["name"]), escape(_short(row["default"]))
                table.add_row("   ", name, escape(row["type"]), f"= {default}", escape(row["help"]))
            if table.row_count:
                console.print(table)
        for command in plugin.commands:
            console.print(f"  [bold cyan]{command.name}[/], command: {escape(command.summary)}",
                          soft_wrap=True, highlight=False)  # fmt: skip
    for failure in catalogue.failures:
        console.print(f"[bold red]failed[/] {escape(str(failure))}", soft_wrap=True, highlight=False)
    for clash in catalogue.clashes():
        console.print(f"[bold red]clash[/] {escape(clash)}", soft_wrap=True, highlight=False)
    if catalogue.plugins.disabled:
        console.print(f"left out by CLDISTILL_DISABLE_PLUGINS: {', '.join(catalogue.plugins.disabled)}")
