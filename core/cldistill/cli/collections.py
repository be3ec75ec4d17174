"""Commands on finished files: inspect an adapter or collection, and make a picture with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cldistill.cli.options import JsonOption
from cldistill.errors import ManifestError

if TYPE_CHECKING:
    from cldistill.records import BaseDescription

BaseOption = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Base model: a hub id or a folder.")]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An adapter file, a folder with one, or a collection.")],
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe any adapter or collection by its header: format, rank, scale, effects, and how it fits a base."""
    from cldistill.collection.inspect import inspect_file, render

    found = inspect_file(file, describe_model(base) if base is not None else None)
    if as_json:
        typer.echo(found.to_json())
        return
    from rich.console import Console

    Console().print(render(found))


def describe_model(model: str) -> BaseDescription:
    """Return the description of a model by the first installed base that can read its config.

    Raises:
        ManifestError: none can; with what each of them says.
    """
    from cldistill.catalogue import load_catalogue
    from cldistill.component import RunOutline

    reasons = []
    for entry in load_catalogue():
        component = entry.component
        if component.kind != "base_model" or "model" not in component.settings.model_fields:
            continue
        try:
            settings = component.settings.model_validate({"model": model}, context={"root": Path.cwd()})
            described: BaseDescription | None = component.needs(settings, RunOutline()).base
        except Exception as error:  # a plugin's own code on somebody else's model
            reasons.append(f"{component.name}: {error}")
            continue
        if described is not None:
            return described
    tried = "; ".join(reasons) or "none is installed"
    raise ManifestError(f"--base {model}: no installed base model can describe it ({tried})")


def generate(
    collection: Annotated[
        Path, typer.Argument(metavar="COLLECTION", help="Folder of a collection or of a split, or a LoRA file.")
    ],
    image: Annotated[list[Path], typer.Option("--image", "-i", help="Picture to edit; repeat it for references.")],
    effect: Annotated[list[str], typer.Option("--effect", "-e", help="Effect; repeat it to apply several in order.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the picture goes.")] = Path("out.png"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same picture.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps, where not the collection's own.")] = None,
    base: BaseOption = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default a GPU where there is one.")] = None,
) -> None:
    """Edit a picture with one or more effects of a collection."""
    from cldistill.collection.index import read_index, routed
    from cldistill.data.items import open_picture

    # What can be wrong without the model is said before it is loaded.
    collection = routed(collection, effect)
    read_index(collection).prompt(effect)
    pictures = [open_picture(path) for path in image]
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"{output.parent} is no folder", param_hint="--output")
    must_be_picture(output)

    from cldistill.collection import Collection

    made = Collection.load(collection, base=base, device=device).generate(
        pictures, effects=effect, seed=seed, steps=steps
    )
    made.save(output)
    typer.echo(str(output))


def must_be_picture(path: Path) -> None:
    """Refuse a name that no picture can be saved under, before one is made.

    Raises:
        typer.BadParameter: with what is usual.
    """
    from PIL import Image

    Image.init()
    if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise typer.BadParameter(
            f"{path.name!r} has no suffix of a picture; write .png, .jpg or .webp", param_hint="--output"
        )
