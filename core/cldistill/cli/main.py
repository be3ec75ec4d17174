"""The command line: the engine's own commands and exit codes.  Plugins contribute the others (`cldistill.cli.group`)."""

from __future__ import annotations

import sys

import typer

from cldistill.cli.check import check, plan
from cldistill.cli.group import CommandGroup
from cldistill.cli.plugins import plugins
from cldistill.cli.run import run
from cldistill.errors import CldistillError

app = typer.Typer(
    cls=CommandGroup,
    help="Distil many image-editing effect LoRAs, and few-step sampling with them, into one LoRA file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, check, plan, plugins):
    app.command()(command)


def main() -> None:
    """Run the command line; a user error is one message on stderr and exit code 2."""
    try:
        app()
    except CldistillError as error:
        print(f"cldistill: {error}", file=sys.stderr)
        sys.exit(2)
