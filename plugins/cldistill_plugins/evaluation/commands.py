"""`cldistill eval`: systems, effects and held-out pictures of a manifest, measured and reported."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cldistill.cli.options import ManifestArgument, SetOption
from cldistill.progress.program import program
from cldistill_plugins.sharding.api import ShardOption


def evaluate(
    manifest: ManifestArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the evaluation (default: evaluations/NAME).")
    ] = None,
    overrides: SetOption = None,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing", help="Report systems that are not trained yet as not run, and go on without them."
        ),
    ] = False,
    shard: ShardOption = None,
) -> None:
    """Compare the systems of a manifest's `evaluate:` on held-out pictures; Ctrl-C saves, the same command goes on.

    Writes report.json, report.md, report.html and every picture. Nothing is trained but teachers that a system asks for.
    With --shard it makes a share of the pictures into the cache; the last call, without it, finds them and measures.
    """
    from cldistill.manifest.check import check_manifest
    from cldistill_plugins.evaluation.check import enter
    from cldistill_plugins.sharding.api import WHOLE, take_shard

    share = take_shard(shard)
    checked = check_manifest(manifest, overrides or (), measuring=True)
    plan = enter(checked, skip_missing=skip_missing)
    folder = output or Path("evaluations") / checked.manifest.name

    from rich.console import Console

    from cldistill.errors import readable
    from cldistill.manifest.rules import blind
    from cldistill_plugins.evaluation.evaluate import evaluate_manifest
    from cldistill_plugins.evaluation.report.page import lacking
    from cldistill_plugins.evaluation.report.record import read_evaluation
    from cldistill_plugins.evaluation.summary import summary_tables, verdict

    console = Console()
    for line in blind(checked) if share == WHOLE else ():  # before pictures are made, which may take hours
        console.print(readable(line), markup=False, highlight=False, soft_wrap=True)
    command = shlex.join([*program(), *sys.argv[1:]])
    done = evaluate_manifest(checked, plan, folder, console, command, command, share)
    if not done.finished:
        raise typer.Exit(3)
    if share != WHOLE:
        console.print(
            f"Share {share}: its pictures are in the cache, {done.made} of them new. Once all shares are, one process with "
            "--shard 1/1 measures.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    measured = read_evaluation(folder)
    for table in summary_tables(measured, console.width) if measured.summary else ():
        console.print(table)
    lines = [f"Report:     {lacking() or folder / 'report.html'}", f"Figures:    {folder / 'report.md'}, {done.report}"]
    absent = [f"Not measured: {entry.component}: {entry.reason}" for entry in measured.not_measured]
    for line in [*absent, *lines]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict(measured), markup=False, highlight=False, soft_wrap=True)
    if not measured.metrics:
        raise typer.Exit(1)


def report(
    folder: Annotated[Path, typer.Argument(metavar="EVALUATION", help="A folder that `cldistill eval` wrote.")],
    limit: Annotated[
        float, typer.Option(min=0.0, metavar="MB", help="How many megabytes of pictures to put in.")
    ] = 48.0,
    side: Annotated[int, typer.Option(min=16, help="Longest side of a picture in the page, in pixels.")] = 768,
) -> None:
    """Write report.html of an evaluation: tables, plots and pictures in one file that opens from disk."""
    from cldistill_plugins.evaluation.report.html import write_report

    written = write_report(folder, limit, side)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
