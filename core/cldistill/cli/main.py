"""The command line: the engine's own commands and exit codes.  Plugins contribute the others (`cldistill.cli.group`)."""

from __future__ import annotations

import logging
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from cldistill.cli.check import check
from cldistill.cli.group import CommandGroup
from cldistill.cli.options import QuietOption, VerboseOption
from cldistill.cli.run import run
from cldistill.errors import CldistillError, printable
from cldistill.progress.volume import is_verbose, set_volume

logging.getLogger("cldistill").addHandler(logging.NullHandler())  # errors are printed once, below

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cldistill {version('cldistill')} (Python {sys.version.split()[0]}, torch {version('torch')})")
        raise typer.Exit


@app.callback()
def options(
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Distil many image-editing effect LoRAs, and few-step sampling with them, into one LoRA file."""
    set_volume(quiet, verbose)


for command in (run, check):
    app.command()(command)


def main() -> None:
    """Run the command line; a user error is one message on stderr and exit code 2."""
    try:
        app()
    except CldistillError as error:
        logging.getLogger("cldistill").error("%s", error)  # for the log of a run
        if is_verbose():
            print(printable(traceback.format_exc()), file=sys.stderr)  # an error below it may quote a secret
        print(f"cldistill: {error}", file=sys.stderr)
        sys.exit(2)
