"""`cldistill convert`: the nearest plain LoRA of an adapter file, written beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cldistill.errors import AdapterFormatError, readable


def convert(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="LoHa, DoRA, LoKr, weight differences, fused projections.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The LoRA to write, a .safetensors file.")],
    rank: Annotated[int, typer.Option(min=1, help="Largest rank of a module.")] = 64,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="FOLDER", help="The base model's folder or package: name; DoRA needs it."),
    ] = None,
) -> None:
    """Make the nearest plain LoRA of an adapter that is not mounted as it is, and say how near it is."""
    from cldistill.component import find_path

    if output.suffix != ".safetensors":
        raise AdapterFormatError(f"--output {output}: must end in .safetensors")
    if output.exists():
        raise AdapterFormatError(f"--output {output}: is there already; choose another name")
    from cldistill_plugins.converting.convert import convert_file
    from cldistill_plugins.converting.read import BaseWeights

    weights = BaseWeights(find_path(base, Path.cwd())) if base is not None else None
    for line in convert_file(file, output, rank, weights).lines():
        typer.echo(readable(line))
