"""`cldistill generate`: every picture with every effect, by a model that is loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from cldistill.errors import readable
from cldistill_plugins.generation.job import (
    Cell,
    Edit,
    Existing,
    cells,
    read_edits,
    read_pictures,
    refuse_existing,
)
from cldistill_plugins.generation.options import BaseOption, CollectionArgument, DeviceOption, StepsOption

FOLDER = Path("generated")


@dataclass(frozen=True)
class Sampling:
    """Settings of all pictures of one call."""

    base: str | None
    device: str | None
    seed: int
    steps: int | None
    references: Sequence[Path]


def generate(
    collection: CollectionArgument,
    image: Annotated[
        list[Path], typer.Option("--image", "-i", help="Picture to edit, or a folder of them; repeat it for more.")
    ],
    effect: Annotated[
        list[str] | None, typer.Option("--effect", "-e", help="Effect; repeat it for more; A+B applies both in order.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every effect of the collection.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Of one picture with one effect: its file (out.png); else a folder (generated)."),
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", "-r", help="Further picture that each edit may look at.")
    ] = None,
    seed: Annotated[int, typer.Option(min=-(2**63), max=2**64 - 1, help="The same seed gives the same picture.")] = 0,
    steps: StepsOption = None,
    existing: Annotated[
        Existing, typer.Option("--existing", help="What becomes of files that are there.")
    ] = "refuse",
    sheet: Annotated[bool, typer.Option("--sheet/--no-sheet", help="Whether several pictures get a contact sheet.")] = True,
    base: BaseOption = None,
    device: DeviceOption = None,
) -> None:  # fmt: skip
    """Edit pictures with effects of a collection: every picture with every effect."""
    from cldistill.adapters.hub import local_path
    from cldistill_plugins.generation.sheet import sheet_paths

    # What can be wrong without the model is said before it is loaded.
    folder = local_path(collection)
    edits, pictures = read_edits(folder, effect or (), everything), read_pictures(image)
    references = read_pictures(reference or ())
    sampling = Sampling(base, device, seed, steps, references)
    alone = len(edits) * len(pictures) == 1 and not any(path.is_dir() for path in image)
    if alone and not (output is not None and output.is_dir()):
        target = output or Path("out.png")
        must_be_writable(target)
        wanted, sheets = [Cell(pictures[0], edits[0], target)], []
    else:
        target = output or FOLDER
        must_be_folder(target)
        wanted, sheets = list(cells(pictures, edits, target)), sheet_paths(target, len(pictures)) if sheet else []
        sheets = sheets if len(wanted) > 1 else []
    if existing == "refuse":
        refuse_existing([*(cell.output for cell in wanted), *sheets])
    make(wanted, sampling, skip=existing == "skip")
    if sheets:
        lay_out(folder, target, pictures, edits, wanted, sampling)


def make(wanted: Sequence[Cell], sampling: Sampling, *, skip: bool) -> None:
    """Make the pictures, and name the files; ``skip`` leaves those that are there."""
    from rich.console import Console

    from cldistill.progress.live import LiveStages

    left = [cell for cell in wanted if not (skip and cell.output.exists())]
    if len(left) < len(wanted):
        typer.echo(f"{len(wanted) - len(left)} of {len(wanted)} pictures are there already")
    if not left:
        return
    for folder in {cell.output.absolute().parent for cell in left}:  # said before a model is loaded
        TemporaryFile(dir=next(there for there in (folder, *folder.parents) if there.is_dir())).close()
    from cldistill_plugins.generation.mounted import Mounted

    mounted = Mounted(sampling.base, sampling.device)
    stages = LiveStages(Console(stderr=True, highlight=False))
    with stages.stage(f"editing {len(left)} picture{'s' if len(left) > 1 else ''}", len(left)) as advance:
        for cell in left:
            made = mounted.edit(cell.edit, [*sampling.references, cell.picture], sampling.seed, sampling.steps)
            cell.output.parent.mkdir(parents=True, exist_ok=True)
            save(made, cell.output)
            advance(1)
    for cell in left:  # after the bar, which a terminal shares with this
        typer.echo(readable(str(cell.output)))


def lay_out(
    collection: Path, folder: Path, pictures: Sequence[Path], edits: Sequence[Edit], made: Sequence[Cell], sampling: Sampling
) -> None:  # fmt: skip
    """Write the contact sheets, which say with what they were made, and name them."""
    from cldistill.adapters.hub import SNAPSHOT, pinned
    from cldistill.collection.index import read_index
    from cldistill_plugins.generation.sheet import write_sheets

    index = read_index(edits[0].collection)
    hub = [pinned(collection)] if SNAPSHOT.search(collection.as_posix()) else []
    words = [index.title, *hub, f"{sampling.steps or index.schedule.steps} steps", f"seed {sampling.seed}"]
    files = {(cell.picture, cell.edit): cell.output for cell in made}
    for path in write_sheets(folder, pictures, edits, files, " · ".join(words)):
        typer.echo(readable(f"contact sheet: {path}"))


def save(picture: object, path: Path) -> None:
    """Save a picture in one step: what is there is either the old file or the whole new one."""
    from io import BytesIO

    from PIL import Image

    from cldistill.storage.files import atomic_write_bytes

    assert isinstance(picture, Image.Image)
    Image.init()
    buffer = BytesIO()
    picture.save(buffer, format=Image.EXTENSION[path.suffix.lower()])
    atomic_write_bytes(path, buffer.getvalue())


def must_be_writable(path: Path) -> None:
    """Refuse a name that no picture can be saved under, or a folder that is not there, before one is made.

    Raises:
        typer.BadParameter: with what is usual.
    """
    from PIL import Image

    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--output")
    Image.init()
    if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise typer.BadParameter(
            f"{path.name!r} has no suffix of a picture; write .png, .jpg or .webp", param_hint="--output"
        )


def must_be_folder(path: Path) -> None:
    """Refuse the name of a file for several pictures.

    Raises:
        typer.BadParameter: with what to write.
    """
    from PIL import Image

    Image.init()
    if path.is_file() or (path.suffix.lower() in Image.EXTENSION and not path.is_dir()):
        raise typer.BadParameter(
            f"{path} is the name of one file, and several pictures were asked for; name a folder", param_hint="--output"
        )
