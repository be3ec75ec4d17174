"""`cldistill report`: write the page of an evaluation anew, for instance with more of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="EVALUATION", help="A folder that `cldistill eval` wrote.")],
    limit: Annotated[
        float, typer.Option(min=0.0, metavar="MB", help="How many megabytes of pictures to put in.")
    ] = 48.0,
    side: Annotated[int, typer.Option(min=16, help="Longest side of a picture in the page, in pixels.")] = 768,
) -> None:
    """Write report.html of an evaluation: tables, plots and pictures in one file that opens from disk."""
    from cldistill.report.html import write_report

    written = write_report(folder, limit, side)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
