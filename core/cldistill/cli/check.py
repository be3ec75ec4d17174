"""Commands that look and change nothing: check and plan.  No torch."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cldistill.cli.options import FilesOption, JsonOption, ManifestArgument, SetOption


def check(manifest: ManifestArgument, overrides: SetOption = None, files: FilesOption = True) -> None:
    """Judge a manifest before anything is loaded; every mistake comes with its file and line."""
    from cldistill.manifest.check import check_manifest
    from cldistill.manifest.prompts import preview_prompts
    from cldistill.manifest.rules import unserved

    checked = check_manifest(manifest, overrides or (), files=files)
    preview_prompts(checked)
    items = sum(len(rows) for rows in checked.items.values())
    seen = f"{items} items" if files else "files not looked at"
    streams = ", ".join(checked.streams)
    typer.echo(
        f"{checked.manifest.name}: fits together. {len(checked.effects)} effects, {len(checked.losses)} losses, "
        f"slots {', '.join(checked.manifest.slots)}; streams {streams}; {seen}."
    )
    for line in [*checked.teacher_lines(), *unserved(checked)]:
        typer.echo(f"  {line}")


def plan(
    manifest: ManifestArgument,
    overrides: SetOption = None,
    files: FilesOption = True,
    as_json: JsonOption = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the manifest with every default filled in, as YAML.")
    ] = False,
) -> None:
    """Show the resolved run before anything is loaded: parts, effects, prompts, calls, memory, disk."""
    from cldistill.manifest.check import check_manifest
    from cldistill.plan.plan import make_plan

    checked = check_manifest(manifest, overrides or (), files=files)
    if show:
        import yaml

        from cldistill.manifest.resolved import resolve

        typer.echo(yaml.safe_dump(resolve(checked), sort_keys=False, allow_unicode=True), nl=False)
        return
    planned = make_plan(checked)
    if as_json:
        typer.echo(json.dumps(planned.to_json(), indent=2))
        return
    from rich.console import Console

    from cldistill.plan.print import print_plan

    print_plan(planned, Console())
