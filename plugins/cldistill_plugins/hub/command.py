"""`cldistill push`: what is uploaded is judged and shown first; then one commit, private unless the public was asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cldistill.errors import readable


def push(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder that a run wrote as collection/.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the hub; made if it is not there.")],
    licence: Annotated[
        str | None, typer.Option("--license", "--licence", help="Licence of the collection, such as apache-2.0.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="OWNER/NAME", help="The base's hub id, where the collection has none.")
    ] = None,
    public: Annotated[bool, typer.Option("--public/--private", help="Whether everybody sees it.")] = False,
    message: Annotated[str, typer.Option("--message", "-m", help="What the commit is called.")] = "Upload the collection",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded, and stop.")] = False,
) -> None:  # fmt: skip
    """Upload a collection to the Hugging Face hub, with a card that names its base and licence."""
    from cldistill_plugins.hub.card import front_matter, hub_card
    from cldistill_plugins.hub.files import read_upload
    from cldistill_plugins.hub.upload import must_be_name, upload

    must_be_name(repository)
    found = read_upload(collection)
    if licence is None and found.licence is None and sys.stdin.isatty():
        typer.echo(
            f"{readable(found.base_licence)}\nThe effects carry the licences of the pictures and adapters that taught them."
        )
        licence = typer.prompt("Licence of the collection (an SPDX name as the hub writes it, or other)", "apache-2.0")
    card = hub_card(found, repository, licence, base_model)
    where = "public: everybody can read it" if public else "private: you, and whom you let in, can read it"
    typer.echo(f"{repository} ({where})")
    for path in found.files:
        typer.echo(f"  {path.relative_to(collection).as_posix()}  {path.stat().st_size / 1e6:,.1f} MB")
    if found.left_out:
        typer.echo(readable(f"  left here: {', '.join(found.left_out)} (no part of a collection)"))
    if dry_run:
        typer.echo(readable(front_matter(card)))
        return
    done = upload(found, card, repository, public=public, message=message)
    typer.echo(f"Uploaded: {done.url}")
    typer.echo(f"Use it:   cldistill generate {done.pinned} --image photo.png --effect {found.effects[0]}")
