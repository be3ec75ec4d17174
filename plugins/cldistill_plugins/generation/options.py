"""Arguments that the commands on collections share."""

from __future__ import annotations

from typing import Annotated

import typer

BaseOption = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Base model: a hub id or a folder.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default a GPU where there is one.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Sampling steps, where not the collection's own.")]
CollectionArgument = Annotated[
    str,
    typer.Argument(metavar="COLLECTION", help="Folder of a collection or of a split, a LoRA file, or OWNER/NAME[@REVISION]."),
]  # fmt: skip
