"""`cldistill add`: grow a collection by effects, in a folder of its own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.launch import command_words, start_missing_processes
from cldistill.cli.options import SetOption
from cldistill.cli.run import refuse_another, set_aside


def add(
    collection: Annotated[Path, typer.Argument(metavar="COLLECTION", help="Folder that a run wrote as collection/.")],
    effects: Annotated[
        list[Path], typer.Argument(metavar="NEW_EFFECT...", help="Folder of pairs, or a teacher's .safetensors file.")
    ],
    names: Annotated[list[str] | None, typer.Option("--name", help="Name of the new effect; once for each.")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="What its teacher hears, where no effect.json says it.")
    ] = None,
    pairs: Annotated[list[Path] | None, typer.Option("--pairs", help="Pairs of a new effect given as a file.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Generator steps.")] = 100,
    rehearse: Annotated[
        int, typer.Option("--rehearse", min=1, help="Pictures on which each old effect is rehearsed.")
    ] = 5,
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Set a run aside that is in the folder already.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Whether to compare old and grown collection afterwards.")
    ] = True,
) -> None:
    """Teach a collection new effects; the collection itself teaches the old ones, so their teachers may be gone."""
    from rich.console import Console

    from cldistill.add import AddRequest, must_be_of_base, prepare_growth
    from cldistill.add_effects import spread
    from cldistill.add_plan import print_growth

    given = spread(effects, names or (), prompts or (), pairs or ())
    request = AddRequest(collection, given, steps, rehearse, base, pictures, checkpoint, not anew, overrides or ())
    prepared = prepare_growth(request)
    console, folder = Console(), output or default_output(collection, len(given))
    if not fresh:
        refuse_another(prepared.checked, folder, wanted=False)
    if not plan:
        start_missing_processes(sys.argv[1:])
    if int(os.environ.get("RANK", "0")) == 0:
        print_growth(prepared, console)
        console.print(f"Output: {folder}", markup=False, highlight=False, soft_wrap=True)
    if plan:
        return
    must_be_of_base(prepared)  # a base on the hub is fetched for this
    if fresh:
        set_aside(folder)

    from cldistill.add_run import grow

    if not grow(prepared, folder, console, again(sys.argv[1:]), measure=measure):
        raise typer.Exit(3)


def default_output(collection: Path, count: int) -> Path:
    """Return ``RUN-plus-N`` beside the run whose ``collection/`` it is, or ``COLLECTION-plus-N``."""
    from cldistill.add_manifest import grown_name

    folder = collection.resolve()
    run = folder.parent if folder.name == "collection" else folder
    return run.with_name(grown_name(run.name, count))


def again(arguments: Sequence[str]) -> str:
    """Return the command that goes on with the run: the same one, without what would begin it anew."""
    return shlex.join([*command_words(), *(word for word in arguments if word != "--fresh")])
