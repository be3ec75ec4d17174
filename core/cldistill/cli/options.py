"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="A manifest file, or the name of a recipe.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one value, e.g. losses.1.options.tau_max=700."),
]
FilesOption = Annotated[
    bool, typer.Option("--files/--no-files", help="Whether pictures, teachers and adapters must be there.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result, warnings and errors.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Let the libraries speak; show where errors arise.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
