"""`cldistill instructions`: general instructions for a folder of unlabelled pictures, by templates or a vision model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cldistill.cli.options import JsonOption
from cldistill.errors import OptionsError, nearest

if TYPE_CHECKING:
    from cldistill.component import AnyComponent, Settings


def instructions(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL to write, for general: {instructions: …}.")],
    maker: Annotated[
        str, typer.Option("--maker", "-m", help="Who writes them (`cldistill plugins` lists).")
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

    from cldistill.catalogue import load_catalogue
    from cldistill.component import BuildContext
    from cldistill.manifest.checked import default_cache
    from cldistill.progress.live import LiveStages
    from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
    from cldistill.progress.stages import SilentStages
    from cldistill_plugins.instructions.write import InstructionPlan, write_instructions

    component = load_catalogue().get("instruction_maker", maker).component
    settings = read_options(component, options or ())
    plan = InstructionPlan(images, output, per_picture, pictures, read_categories(categories), seed, fresh)
    console = Console(highlight=False)
    built = component.build(settings, BuildContext(Path.cwd(), default_cache(), output.absolute().parent, seed=seed))
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
    from cldistill.records import CATEGORIES

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in CATEGORIES:
            raise typer.BadParameter(f"{name!r} is none{nearest(name, CATEGORIES)}", param_hint="--categories")
    if not names:
        raise typer.BadParameter("name at least one", param_hint="--categories")
    return names


def read_options(component: AnyComponent, words: Sequence[str]) -> Settings:
    """Return the settings of a component from ``KEY=VALUE`` words, whose values are YAML.

    Raises:
        OptionsError: one line for each mistake.
    """
    import yaml
    from pydantic import ValidationError

    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise OptionsError(f"--set {word}: write KEY=VALUE")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise OptionsError(f"--set {word}: the value is no YAML ({error})") from None
    try:
        settings: Settings = component.settings.model_validate(values, context={"root": Path.cwd()})
        return settings
    except ValidationError as error:
        known = component.settings.model_fields
        lines = []
        for details in error.errors(include_url=False):
            key = ".".join(map(str, details["loc"]))
            hint = nearest(key, known) if details["type"] == "extra_forbidden" else ""
            said = {"missing": "is missing", "extra_forbidden": "unknown option"}.get(details["type"], details["msg"])
            text = str(details.get("ctx", {}).get("error", said))
            lines.append(f"--set {key or '…'}: {component.name}: {text}{hint}")
        raise OptionsError("\n".join(lines)) from None
