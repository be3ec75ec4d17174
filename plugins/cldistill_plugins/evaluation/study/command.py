"""`cldistill study`: make the page of a blind study, and tally what its evaluators saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

PathsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="EVALUATION | ANSWERS", help="A folder of `cldistill eval`; with --tally answer files."),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the study; with --tally of the table (the key's own).")
]
TallyOption = Annotated[
    Path | None, typer.Option("--tally", metavar="KEY", help="Count answer files of the study that has this key.json.")
]
SystemOption = Annotated[
    list[str] | None, typer.Option("--system", help="A system to compare, 2 to 6 of them; by default all.")
]


def study(
    paths: PathsArgument,
    output: OutputOption = None,
    tally: TallyOption = None,
    systems: SystemOption = None,
    sets: Annotated[int, typer.Option(min=1, help="How many sets an evaluator sees.")] = 50,
    seed: Annotated[int, typer.Option(help="Decides which sets are drawn (never their order), and the bootstrap.")] = 0,
    example: Annotated[bool, typer.Option(help="Show the effect on another picture beside the instruction.")] = True,
    title: Annotated[str | None, typer.Option(help="Heading of the page; evaluators read it.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="With --tally: take files with unanswered sets.")] = False,
) -> None:
    """Ask people which system is best, blindly, and count what they said.

    `cldistill study EVALUATION --output STUDY` writes STUDY/study.html for the evaluators and STUDY/key.json, which you
    keep. `cldistill study --tally STUDY/key.json answers/*.json` makes the table of their answers.
    """
    if tally is not None:
        _count(tally, paths, output, seed, partial)
        return
    if output is None:
        raise typer.BadParameter("say where the study goes", param_hint="--output")
    if len(paths) != 1:
        raise typer.BadParameter(
            "name one folder of an evaluation (or, to count answers, add --tally KEY)", param_hint="EVALUATION"
        )
    _make(paths[0], output, systems, sets, seed, example, title)


def _make(
    folder: Path, output: Path, systems: list[str] | None, sets: int, seed: int, example: bool, title: str | None
) -> None:
    from cldistill_plugins.evaluation.study.key import KEY, PAGE
    from cldistill_plugins.evaluation.study.page import TITLE, write_study

    key = write_study(folder, output, systems, sets, seed, example, title or TITLE)
    compared = ", ".join(system.label for system in key.systems)
    typer.echo(f"{output / PAGE}: {len(key.sets)} sets of {len(key.systems)} candidates ({compared})")
    typer.echo(f"Give evaluators that file alone: {output / KEY} says which candidate is which.")
    typer.echo(f"Count what they save with: cldistill study --tally {output / KEY} ANSWERS...")


def _count(key_path: Path, answers: list[Path], output: Path | None, seed: int, partial: bool) -> None:
    from rich.console import Console

    from cldistill.storage.files import atomic_write_text
    from cldistill_plugins.evaluation.study.answers import read_answers
    from cldistill_plugins.evaluation.study.key import read_key
    from cldistill_plugins.evaluation.study.preferences import tally
    from cldistill_plugins.evaluation.study.show import markdown, table

    key = read_key(key_path)
    found = tally(key, read_answers(key, answers, partial), seed)
    folder = output or (key_path if key_path.is_dir() else key_path.parent)
    atomic_write_text(folder / "tally.json", json.dumps(found.to_json(key, seed), indent=2) + "\n")
    atomic_write_text(folder / "tally.md", markdown(key, found))
    Console().print(table(key, found))
    typer.echo(f"{folder / 'tally.json'}, {folder / 'tally.md'}")
