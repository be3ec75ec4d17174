"""`cldistill instructions`: general instructions for a folder of unlabelled pictures, by templates or a vision model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.options import JsonOption
from cldistill.errors import OptionsError, nearest


def instructions(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL to write, for general: {instructions: …}.")],
    maker: Annotated[
        str,
        typer.Option("--maker", "-m", help="templates: sentences with gaps, offline; mllm: a vision model looks."),
    ] = "templates",
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the maker, e.g. model=qwen-vl.")
    ] = None,
    per_picture: Annotated[int, typer.Option(min=1, help="Instructions for each picture.")] = 1,
    pictures: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures, by name.")] = None,
    categories: Annotated[
        str, typer.Option(help="What may be asked for, separated by commas.")
    ] = "add,remove,adjust,style",
    seed: Annotated[int, typer.Option(help="Another seed, other instructions.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make everything anew, over a file of other options too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write instructions for unlabelled pictures; Ctrl-C keeps what is done, and the same command goes on."""
    from rich.console import Console

    from cldistill.progress.live import LiveStages
    from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
    from cldistill.progress.stages import SilentStages
    from cldistill.storage.files import default_cache
    from cldistill_plugins.instructions.makers import MAKERS
    from cldistill_plugins.instructions.write import InstructionPlan, write_instructions
    from cldistill_plugins.schema.api import read_settings

    if maker not in MAKERS:
        raise OptionsError(f"--maker: no instruction maker is called {maker!r}{nearest(maker, MAKERS)}")
    settings = read_settings(MAKERS[maker].settings, options or (), "--set", Path.cwd())
    plan = InstructionPlan(images, output, per_picture, pictures, read_categories(categories), seed, fresh)
    console = Console(highlight=False)
    built = MAKERS[maker].make(settings, default_cache())
    with graceful_stop() as stop:
        stop.promise = OUTSIDE_LOOP
        outcome = write_instructions(
            plan, built, SilentStages() if as_json else LiveStages(console), lambda: bool(stop)
        )
    if as_json:
        typer.echo(json.dumps({"output": str(output), **asdict(outcome)}))
        return
    shares = ", ".join(f"{count} {category}" for category, count in outcome.categories.items())
    console.print(f"{output}: {outcome.written} instructions ({shares})", markup=False, soft_wrap=True)
    if outcome.refused:
        console.print(
            f"{outcome.refused} were refused or unreadable and are left out; the same command asks for them again"
        )


def read_categories(text: str) -> tuple[str, ...]:
    """Return the named categories, each once."""
    from cldistill_plugins.instructions.request import CATEGORIES

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in CATEGORIES:
            raise typer.BadParameter(f"{name!r} is none{nearest(name, CATEGORIES)}", param_hint="--categories")
    if not names:
        raise typer.BadParameter("name at least one", param_hint="--categories")
    return names
