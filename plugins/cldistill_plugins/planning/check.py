"""`cldistill check`: judge a manifest before anything is loaded.  No torch."""

from __future__ import annotations

import typer

from cldistill.cli.options import FilesOption, ManifestArgument, SetOption
from cldistill.errors import readable
from cldistill_plugins.ranks.api import refuse_uncut, wants_fsdp


def check(manifest: ManifestArgument, overrides: SetOption = None, files: FilesOption = True) -> None:
    """Judge a manifest before anything is loaded; every mistake comes with its file and line."""
    from cldistill.manifest.check import check_manifest
    from cldistill.manifest.prompts import preview_prompts
    from cldistill.manifest.rules import unserved

    checked = check_manifest(manifest, overrides or (), files=files)
    if wants_fsdp():
        refuse_uncut(checked.base.settings)
    preview_prompts(checked)
    items = sum(len(rows) for rows in checked.items.values())
    seen = f"{items} items" if files else "files not looked at"
    effects = f"{len(checked.effects)} effect{'s' if len(checked.effects) != 1 else ''}"
    losses = f"{len(checked.losses)} loss{'es' if len(checked.losses) != 1 else ''}"
    streams = ", ".join(checked.streams)
    typer.echo(
        f"{checked.manifest.name}: fits together. {effects}, {losses}, "
        f"slots {', '.join(checked.manifest.slots)}; streams {streams}; {seen}."
    )
    for line in [*checked.file_lines(), *unserved(checked)]:
        typer.echo(f"  {readable(line)}")
