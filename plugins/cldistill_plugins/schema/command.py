"""`cldistill schema`: the manifest's JSON schema, for completion and hints in editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it there instead of printing it.")
    ] = None,
) -> None:
    """Print the manifest's JSON schema for editors, with the options of every installed component."""
    from cldistill.catalogue import load_catalogue
    from cldistill_plugins.schema.json_schema import schema_text

    text = schema_text(load_catalogue())
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
