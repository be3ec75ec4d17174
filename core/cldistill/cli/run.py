"""`cldistill run`: check, refuse what would overwrite another run, then hand over to the runner."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.launch import command_words
from cldistill.cli.options import ManifestArgument, QuietOption, SetOption, VerboseOption
from cldistill.errors import CheckpointError
from cldistill.manifest.checked import RunRequest
from cldistill.progress.volume import is_quiet, set_volume
from cldistill.records import Change
from cldistill.storage.files import only_writer


def run(
    manifest: ManifestArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run (default: runs/NAME).")
    ] = None,
    overrides: SetOption = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh",
            help="Go on with the run in the folder (the default if it is one of this manifest), or set it aside.",
        ),
    ] = None,
    changed_plugins: Annotated[
        bool, typer.Option("--changed-plugins", help="Go on although plugins have changed; the run records it.")
    ] = False,
    changed_ranks: Annotated[
        bool, typer.Option("--changed-ranks", help="Go on with another number of processes; the run records it.")
    ] = False,
    ignore_memory: Annotated[
        bool,
        typer.Option("--ignore-memory", help="Start although the plan says that the device has too little memory."),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train, export and measure a manifest; Ctrl-C saves, and the same command goes on."""
    from cldistill.manifest.check import check_manifest
    from cldistill.manifest.prompts import preview_prompts

    set_volume(quiet, verbose)
    checked = check_manifest(manifest, overrides or ())
    preview_prompts(checked)

    from rich.console import Console

    from cldistill.runner import execute  # and with it torch, which knows the devices

    folder = output or Path("runs") / checked.manifest.name
    kept, told = None if resume is False else folder, tuple(overrides or ())
    named: dict[Change, bool] = {"plugins": changed_plugins, "ranks": changed_ranks}
    may_change = [change for change, given in named.items() if given]
    request = RunRequest(checked, manifest, told, ignore_memory, kept, bool(resume), may_change)
    for plugin in checked.catalogue.plugins.loaded:
        plugin.run_asked(request=request)
    flags = [*(f"--changed-{change}" for change in may_change), *(["--ignore-memory"] if ignore_memory else [])]
    command = resume_command(manifest, folder, overrides or (), flags)
    if resume is False:
        set_aside(folder)
    outcome = execute(checked, folder, Console(quiet=is_quiet()), command, may_change=may_change)
    if not outcome.finished:
        raise typer.Exit(3)
    if is_quiet() and outcome.collection is not None:
        typer.echo(str(outcome.collection))


def resume_command(manifest: str, folder: Path, overrides: Sequence[str], flags: Sequence[str] = ()) -> str:
    """Return the command that goes on with a run."""
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join([*command_words(), "run", manifest, "--output", str(folder), *settings, *flags])


def set_aside(folder: Path) -> None:
    """Rename a run that ``--fresh`` would overwrite: ``OUT`` becomes ``OUT.1``, or the next free number.

    Of several processes under ``accelerate launch`` only the first does it; the others wait for it when they connect.

    Raises:
        CheckpointError: it is the current folder, or one around it: that would be renamed under our feet.
    """
    if not (folder / "checkpoints").exists() or int(os.environ.get("RANK", "0")) != 0:
        return
    if Path.cwd().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"--fresh would rename the folder that you are in ({folder.resolve()}); start from another one, or move its "
            "checkpoints/ away yourself"
        )
    with only_writer(folder):
        number = 1
        while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(kept)
    typer.echo(f"the run that was in {folder} is now in {kept}")
