"""`cldistill add`: grow a collection by effects, in a folder of its own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.launch import command_words
from cldistill.cli.options import SetOption
from cldistill.cli.run import set_aside
from cldistill.records import Change
from cldistill_plugins.incremental.growing_manifest import STEPS, grown_name


def add(
    collection: Annotated[
        Path,
        typer.Argument(metavar="COLLECTION", help="Folder that a run wrote as collection/, or OWNER/NAME[@REVISION]."),
    ],
    effects: Annotated[
        list[Path],
        typer.Argument(
            metavar="NEW_EFFECT",
            help="Folder of pairs, a teacher's .safetensors file, or its OWNER/NAME[@REVISION].",
        ),
    ],
    names: Annotated[list[str] | None, typer.Option("--name", help="Name of the new effect; once for each.")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="What its teacher hears, where no effect.json says it.")
    ] = None,
    pairs: Annotated[list[Path] | None, typer.Option("--pairs", help="Pairs of a new effect given as a file.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Generator steps.")] = STEPS,
    mixed: Annotated[
        int | None,
        typer.Option(
            "--mixed",
            min=0,
            help="How many of them are a first phase, on mixed batches (default: 60 % if the collection had one).",
        ),
    ] = None,
    begun_by: Annotated[
        Path | None,
        typer.Option(
            "--begun-by",
            metavar="COLLECTION",
            help="What the collection's run went on from, where that was trained on mixed batches (default: found).",
        ),
    ] = None,
    rehearse: Annotated[
        int | None,
        typer.Option("--rehearse", min=1, help="Pictures on which each old effect is rehearsed (default: 5 to 20)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run (default: beside the collection's, -plus-N)."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="The base, if it was a local folder.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Pictures to show effects on that have none (left).")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="RUN/checkpoints/step-N of the collection (default: found beside it)."),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Begin optimiser and average anew, checkpoint or not.")] = False,
    overrides: SetOption = None,
    changed_plugins: Annotated[
        bool, typer.Option("--changed-plugins", help="Go on although plugins have changed; the run records it.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set a run aside that is in the folder already.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Whether to compare old and grown collection afterwards.")
    ] = True,
) -> None:
    """Teach a collection new effects; the collection itself teaches the old ones, so their teachers may be gone."""
    from rich.console import Console

    from cldistill.adapters.hub import local_path
    from cldistill_plugins.incremental.effects import spread
    from cldistill_plugins.incremental.prepare import AddRequest, must_be_of_base, prepare_growth
    from cldistill_plugins.incremental.print_plan import print_growth
    from cldistill_plugins.ranks.api import refuse_missing_processes
    from cldistill_plugins.resuming.api import refuse_another

    collection = local_path(collection)
    given = spread(effects, names or (), prompts or (), pairs or ())
    ask = (lambda name: str(typer.prompt(f"Prompt that {name} is asked for with"))) if sys.stdin.isatty() else None
    request = AddRequest(
        collection,
        given,
        steps,
        mixed=mixed,
        begun_by=local_path(begun_by) if begun_by else None,
        rehearsed=rehearse,
        base=base,
        pictures=pictures,
        checkpoint=checkpoint,
        use_checkpoint=not anew,
        overrides=overrides or (),
        ask=ask,
    )
    prepared = prepare_growth(request)
    may_change: list[Change] = ["plugins"] if changed_plugins else []
    console, folder = Console(), output or default_output(collection, len(given))
    if not fresh:
        refuse_another(prepared.checked, folder, may_change=may_change)
    if not plan:
        refuse_missing_processes(sys.argv[1:])
    if int(os.environ.get("RANK", "0")) == 0:
        print_growth(prepared, console, measure=measure)
        console.print(f"Output: {folder}", markup=False, highlight=False, soft_wrap=True)
    if plan:
        return
    must_be_of_base(prepared)  # a base on the hub is fetched for this
    if fresh:
        set_aside(folder)

    from cldistill_plugins.incremental.run import grow

    if not grow(prepared, folder, console, again(sys.argv[1:]), measure=measure, may_change=may_change):
        raise typer.Exit(3)


def default_output(collection: Path, count: int) -> Path:
    """Return ``RUN-plus-N`` beside the run whose ``collection/`` it is, or ``COLLECTION-plus-N``.

    One from the hub grows in ``runs/``: its own folder is the hub's cache.
    """
    from cldistill.adapters.hub import SNAPSHOT

    folder = collection.absolute()
    if (found := SNAPSHOT.search(folder.as_posix())) is not None:
        return Path("runs", grown_name(found[2], count))
    folder = folder.resolve()
    run = folder.parent if folder.name == "collection" else folder
    return run.with_name(grown_name(run.name, count))


def again(arguments: Sequence[str]) -> str:
    """Return the command that goes on with the run: the same one, without what would begin it anew."""
    return shlex.join([*command_words(), *(word for word in arguments if word != "--fresh")])


CollectionArgument = Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder of the collection.")]
EffectArgument = Annotated[str, typer.Argument(metavar="EFFECT", help="Its name in the collection.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a changed copy there; by default the folder is changed itself."),
]


def remove(collection: CollectionArgument, effect: EffectArgument, output: OutputOption = None) -> None:
    """Take an effect out of a collection's catalogue; the weights go on knowing it."""
    from cldistill_plugins.incremental.edit import remove_effect

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
    from cldistill_plugins.incremental.edit import rename_effect

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
