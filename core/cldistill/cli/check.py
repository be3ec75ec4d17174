"""Commands that look and change nothing: check, plan, schema.  No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.options import FilesOption, JsonOption, ManifestArgument, SetOption


def check(manifest: ManifestArgument, overrides: SetOption = None, files: FilesOption = True) -> None:
    """Judge a manifest before anything is loaded; every mistake comes with its file and line."""
    from cldistill.manifest.check import check_manifest
    from cldistill.manifest.prompts import preview_prompts

    checked = check_manifest(manifest, overrides or (), files=files)
    preview_prompts(checked)
    items = sum(len(rows) for rows in checked.items.values())
    seen = f"{items} items" if files else "files not looked at"
    streams = ", ".join(checked.streams)
    typer.echo(
        f"{checked.manifest.name}: fits together. {len(checked.effects)} effects, {len(checked.losses)} losses, "
        f"slots {', '.join(checked.manifest.slots)}; streams {streams}; {seen}."
    )
    for line in checked.teacher_lines():
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


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it there instead of printing it.")
    ] = None,
) -> None:
    """Print the manifest's JSON schema for editors, with the options of every installed component."""
    from cldistill.catalogue import load_catalogue
    from cldistill.manifest.json_schema import schema_text

    text = schema_text(load_catalogue())
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
