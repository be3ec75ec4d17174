"""`cldistill init`: a commented manifest from a folder of LoRAs, of pairs, or both."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cldistill.errors import ManifestError, OptionsError, readable

if TYPE_CHECKING:
    from cldistill_plugins.init.found import FoundEffect


def init(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="LoRAs, folders of pairs, or folders of such; equal names are one effect."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The manifest (default: NAME.yaml in this folder).")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.")] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="EFFECT=TEXT", help="What an effect's LoRA was trained with; repeat it."),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Pictures for LoRAs that come without pairs.")
    ] = None,
    general: Annotated[
        Path | None, typer.Option("--general", help="Pictures with instructions that the student must not forget.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Pictures to measure on, that nothing is trained on.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The base: a hub id, or a folder in the diffusers layout.")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Copy a shipped recipe as it is.")] = None,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="A run on the shipped small base: minutes on a laptop.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a manifest that is there.")] = False,
) -> None:
    """Write a manifest for your LoRAs and folders of pairs; --recipe copies one, --miniature trains in minutes."""
    asks = sys.stdin.isatty()
    if recipe is not None:
        if paths or miniature:
            raise OptionsError("--recipe copies a recipe as it is; leave out paths and --miniature")
        write(output or Path(f"{name or recipe}.yaml"), recipe_text(recipe), force, check=False)
        return

    from cldistill_plugins.init.found import find_effects
    from cldistill_plugins.init.text import MINIATURE, Wanted, manifest_text, miniature_text, sample_effects

    if not paths and asks and not miniature:
        typer.echo("Where do your LoRAs or pairs lie?  A file, a folder with source/ and target/, or a folder of such.")
        paths = [Path(text).expanduser() for text in shlex.split(typer.prompt("Paths, separated by spaces"))]
    if not paths and not miniature:
        raise OptionsError(
            "init: name LoRAs, folders of pairs, or folders of such; or give --recipe NAME, or --miniature for a small run"
        )
    found, known = (find_effects(paths), dict[str, str]()) if paths else sample_effects()
    for effect in found if paths else ():
        typer.echo(readable(f"  {effect.name}: {effect.told}"))
    known |= told_prompts(prompts or (), found)
    default = output.stem if output is not None else _name(found)
    named = name or (_ask("Name of the run", default, asks) if asks else default)
    file = output or Path(f"{named}.yaml")
    refuse_existing(file, force)
    wanted = Wanted(
        named, found, {effect.name: _prompt(effect, known, asks) for effect in found}, file,
        pictures=_pictures(found if paths else (), pictures, asks),
        general=_general(general, asks and not miniature, MINIATURE if miniature else None),
        held_out=_folder(held_out, "--held-out"), **({} if model is None else {"model": model}),
    )  # fmt: skip
    write(file, miniature_text(wanted) if miniature else manifest_text(wanted), force)


def recipe_text(recipe: str) -> str:
    """Return a shipped recipe's text.

    Raises:
        OptionsError: there is none of that name; with the nearest.
    """
    from importlib.resources import files

    from cldistill.errors import nearest
    from cldistill.manifest.load import recipes
    from cldistill.storage.untrusted import RECIPES

    if recipe not in recipes():
        raise OptionsError(f"--recipe {recipe}: there is no such recipe{nearest(recipe, recipes())}")
    return files(RECIPES).joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")


def refuse_existing(file: Path, force: bool) -> None:
    """Refuse to overwrite a file, or to write where no folder is.

    Raises:
        OptionsError: with what to do.
    """
    if file.is_dir():
        raise OptionsError(f"{file} is a folder; name the file, for instance --output {file / 'run.yaml'}")
    if file.exists() and not force:
        raise OptionsError(f"{file} is there already; --force overwrites it, --output names another one")
    if not file.absolute().parent.is_dir():
        raise OptionsError(f"{file.parent}: no such folder; make it first, or name another one by --output")


def write(file: Path, text: str, force: bool, *, check: bool = True) -> None:
    """See that a manifest fits together and finds its files, write it, and say what comes next.

    Raises:
        ManifestError: it does not; nothing is written.
    """
    from cldistill.cli.launch import command_words
    from cldistill.storage.files import atomic_write_text

    refuse_existing(file, force)
    if check:
        from cldistill.manifest.check import validate
        from cldistill.manifest.load import parse_manifest
        from cldistill.manifest.prompts import preview_prompts

        try:
            preview_prompts(validate(parse_manifest(text, str(file), file.absolute().parent)))
        except ManifestError as error:
            raise ManifestError(f"nothing was written, since the manifest would not pass `check`:\n{error}") from error
    atomic_write_text(file, text)
    typer.echo(f"{file} is written. Next:")
    for word in ("check", "plan", "run"):
        typer.echo(f"  {shlex.join([*command_words(), word, str(file)])}")


def told_prompts(words: Sequence[str], found: Sequence[FoundEffect]) -> Mapping[str, str]:
    """Return effect -> prompt of ``--prompt EFFECT=TEXT``; where there is one effect, its name may be left out.

    Raises:
        OptionsError: no effect has that name, or there is no text.
    """
    from cldistill.errors import nearest

    names, known = [effect.name for effect in found], dict[str, str]()
    for word in words:
        effect, equals, text = word.partition("=")
        meant = equals and get_close_matches(effect[:100], names)  # a slip in the name is no part of a prompt
        if len(names) == 1 and effect not in names and not meant:
            effect, equals, text = names[0], "=", word
        if not equals or not text.strip():
            raise OptionsError(
                f"--prompt {word}: write EFFECT=TEXT, for instance --prompt {names[0]}='turn it into manga'"
            )
        if effect not in names:
            raise OptionsError(f"--prompt {word}: no effect is called {effect!r}{nearest(effect, names)}")
        known[effect] = text.strip()
    return known


def _prompt(effect: FoundEffect, known: Mapping[str, str], asks: bool) -> str:
    if effect.name in known:
        return known[effect.name]
    if asks:
        return _ask(f"Prompt that {effect.name} is asked for with", effect.prompt or "", asks)
    if effect.prompt:
        return effect.prompt
    raise OptionsError(
        f"{effect.name}: nothing says with which prompt it was trained; give --prompt {effect.name}='turn it into ...'"
    )


def _name(found: Sequence[FoundEffect]) -> str:
    return found[0].name if len(found) == 1 else f"{len(found)}-effects"


def _ask(question: str, default: str, asks: bool) -> str:
    assert asks
    return str(typer.prompt(question, default=default or None)).strip()


def _pictures(found: Sequence[FoundEffect], pictures: Path | None, asks: bool) -> Path | None:
    lonely = [effect.name for effect in found if effect.pairs is None]
    if not lonely:
        return None
    if pictures is None and asks:
        pictures = Path(_ask(f"Folder of pictures that {', '.join(lonely)} can edit (any twenty photos)", "", asks))
    if pictures is None:
        raise OptionsError(
            f"{', '.join(lonely)}: a LoRA without pairs needs pictures to edit; give --pictures FOLDER (any twenty photos)"
        )
    return _folder(pictures, "--pictures")


def _folder(folder: Path | None, option: str) -> Path | None:
    from cldistill_plugins.init.found import pictures_in

    if folder is None:
        return None
    full = folder.expanduser().absolute()
    if not pictures_in(full):
        raise OptionsError(f"{option} {folder}: holds no pictures")
    return full


def _general(general: Path | None, asks: bool, package: str | None) -> tuple[Path, Path] | None:
    """Return pictures and instructions: ``FOLDER.jsonl`` beside the folder, or a JSONL in it."""
    if general is None and package is not None:
        return Path(f"{package}/general"), Path(f"{package}/general/general.jsonl")
    if (
        general is None
        and asks
        and typer.confirm("Have you pictures with everyday instructions, to keep what the base can?")
    ):
        general = Path(_ask("Their folder", "data/general", asks))
    if general is None:
        return None
    folder = general.expanduser().absolute()
    lists = [folder.with_name(f"{folder.name}.jsonl"), *sorted(folder.glob("*.jsonl"))]
    there = [path for path in lists if path.is_file()]
    if not folder.is_dir() or not there:
        raise OptionsError(
            f"--general {general}: needs a folder of pictures and {general}.jsonl beside it, or a .jsonl in it; "
            f"`cldistill instructions {general}` writes one"
        )
    return folder, there[0]
