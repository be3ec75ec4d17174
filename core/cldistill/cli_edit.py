"""`cldistill remove` and `cldistill rename`: a collection's catalogue, and what that cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CollectionArgument = Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection.")]
EffectArgument = Annotated[str, typer.Argument(metavar="EFFECT", help="Its name in the collection.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a changed copy there; by default the folder is changed itself."),
]


def remove(collection: CollectionArgument, effect: EffectArgument, output: OutputOption = None) -> None:
    """Take an effect out of a collection's catalogue; the weights go on knowing it."""
    from cldistill.collection_edit import remove_effect

    done = remove_effect(collection, effect, output)
    gone = done.effect
    typer.echo(f"{gone.name} is no longer in the catalogue of {done.path}.")
    typer.echo(
        "What this does not do: the weights are the same, byte for byte. They still know the effect, and the prompt\n"
        f"  {gone.prompt}\n"
        "still makes it in any program. To make the weights forget it, distil the other effects anew from their teachers.\n"
        f"Its trigger{f' {gone.trigger!r}' if gone.trigger else ''} stays taken: `cldistill add` gives it to no other effect."
    )
    _say_card(done.card)


def rename(
    collection: CollectionArgument, effect: EffectArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")], output: OutputOption = None,
) -> None:  # fmt: skip
    """Give an effect of a collection another name; its trigger and prompt stay."""
    from cldistill.collection_edit import rename_effect

    done = rename_effect(collection, effect, new, output)
    typer.echo(f"{effect} is now called {new} in the catalogue of {done.path}.")
    typer.echo(
        "Its trigger and prompt stay, for by those the weights know it; whoever typed the prompt need change nothing:\n"
        f"  {done.effect.prompt}\n"
        f"Scripts that name the effect must now say {new!r}."
    )
    _say_card(done.card)


def _say_card(changed: bool) -> None:
    if not changed:
        typer.echo(
            "README.md was written or changed by hand: look through it, parts of it may still name the old list."
        )
