"""`cldistill group`: a bank that is too large for one collection becomes several, each of effects that go well together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cldistill.cli.options import ManifestArgument, SetOption

if TYPE_CHECKING:
    from cldistill_plugins.deployment.group import GroupingOrder
    from cldistill_plugins.deployment.split import Groups


def group(
    manifest: ManifestArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the split, its manifests and its runs.")],
    into: Annotated[int | None, typer.Option(min=1, help="How many collections.")] = None,
    at_most: Annotated[int | None, typer.Option(min=1, help="Effects that one collection may hold.")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train every collection afterwards; resumes by itself.")
    ] = False,
    changed_plugins: Annotated[
        bool,
        typer.Option(
            "--changed-plugins", help="With --train: go on although plugins have changed; the runs record it."
        ),
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="How interference is measured, e.g. evaluation=FOLDER."),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Split a bank into several collections of effects that interfere least, from measured interference."""
    from cldistill.manifest.check import check_manifest
    from cldistill_plugins.deployment.group import GroupingOrder, group_command, how_many
    from cldistill_plugins.deployment.settings import LeastInterferenceSettings
    from cldistill_plugins.schema.api import read_settings

    # Paths stay as they were typed: they end up in results, which name no folder of this machine.
    settings = read_settings(LeastInterferenceSettings, options or (), "--option", Path())
    checked = check_manifest(manifest, overrides or ())
    command = group_command(sys.argv[1:])
    count = how_many(len(checked.effects), into, at_most)
    _carry_out(GroupingOrder(checked, settings, count, output, command, bool(overrides)), train, changed_plugins)


def _carry_out(order: GroupingOrder, train: bool, changed_plugins: bool) -> None:
    from rich.console import Console

    from cldistill.errors import Stopped
    from cldistill.progress.live import LiveStages
    from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
    from cldistill.storage.files import default_cache
    from cldistill_plugins.deployment.group import group_bank, train_groups

    console = Console()
    try:
        with graceful_stop() as stop:
            stop.promise = OUTSIDE_LOOP
            found = group_bank(order, default_cache(), LiveStages(console), lambda: bool(stop))
    except Stopped as stopped:
        console.print(str(stopped), markup=False)
        raise typer.Exit(3) from None
    _print(console, found)
    if train and not train_groups(found, console, order.command, ["plugins"] if changed_plugins else []):
        raise typer.Exit(3)


def _print(console: Any, groups: Groups) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("group", "effects", "", "manifest", box=None)
    for part in groups.groups:
        table.add_row(escape(part.name), str(len(part.effects)), escape(_short(part.effects)), escape(part.manifest))
    console.print(table)
    if groups.measured:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in groups.figures.items())
        console.print(f"{groups.measured}: {figures}", markup=False, highlight=False)
    console.print(str(groups.folder / "groups.json"), markup=False, highlight=False, soft_wrap=True)


def _short(names: tuple[str, ...], most: int = 6) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
