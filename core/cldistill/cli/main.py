"""The command line: commands and exit codes.  What takes time is imported by the command that needs it."""

from __future__ import annotations

import sys

import typer

from cldistill.cli.check import check, plan, schema
from cldistill.cli.collections import generate, inspect
from cldistill.cli.plugins import plugins
from cldistill.cli.run import run
from cldistill.cli_add import add
from cldistill.cli_edit import remove, rename
from cldistill.cli_eval import evaluate
from cldistill.cli_group import group
from cldistill.cli_instructions import instructions
from cldistill.cli_report import report
from cldistill.cli_study import study
from cldistill.cli_teachers import teachers
from cldistill.errors import CldistillError

app = typer.Typer(
    help="Distil many image-editing effect LoRAs, and few-step sampling with them, into one LoRA file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    run, check, plan, plugins, inspect, generate, schema, teachers, group, add, remove, rename, instructions, report, study,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.command("eval")(evaluate)  # not a function of that name: it would hide Python's own


def main() -> None:
    """Run the command line; a user error is one message on stderr and exit code 2."""
    try:
        app()
    except CldistillError as error:
        print(f"cldistill: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
