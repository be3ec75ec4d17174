"""The command line: the engine's own command and exit codes.  Plugins contribute the others (`cldistill.cli.group`)."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from cldistill.cli.group import CommandGroup
from cldistill.cli.options import QuietOption, VerboseOption
from cldistill.cli.run import run
from cldistill.errors import CldistillError, readable
from cldistill.progress.signals import leave_with_parent
from cldistill.progress.volume import is_verbose, set_volume

logging.getLogger("cldistill").addHandler(logging.NullHandler())  # errors are printed once, below

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, pretty_exceptions_enable=False)


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


app.command()(run)


def main() -> None:
    """Run the command line; a user error is one message on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what its encoding lacks is written out, and stops nothing
            stream.reconfigure(errors="backslashreplace")
    if "TORCHELASTIC_RUN_ID" in os.environ:  # before torch, which is long to import
        leave_with_parent()  # a rank whose launcher is gone would wait for the others for ever
    try:
        app()
    except (CldistillError, OSError) as error:
        said = str(error) if isinstance(error, CldistillError) else readable(system_error(error))
        logging.getLogger("cldistill").error("%s", said)  # for the log of a run
        if is_verbose():
            print(readable(traceback.format_exc()), file=sys.stderr)  # an error below it may quote a secret
        print(f"cldistill: {said}", file=sys.stderr)
        sys.exit(2)


ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change the permissions there, or choose another place"),
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "move away what lies there, or choose another place",
    errno.ENOTDIR: "a file lies where a folder must be: move it away, or choose another place",
    errno.EISDIR: "a folder lies where a file must be: move it away, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.EAGAIN: "wait for its end, stop it, or choose another folder",
    errno.EIO: "the disk or its connection is damaged: choose another place",
}


def system_error(error: OSError) -> str:
    """Return an error of the operating system in one sentence: where, what, and what to do."""
    place = error.filename2 or error.filename  # of a rename, the name that was wanted
    told = error.strerror or f"{type(error).__name__}: {error}"
    advice = ADVICE.get(error.errno or 0, "see that it is there and can be used")
    return f"{f'{place}: ' if place else ''}{told}; {advice}, then give the same command again (what was saved before is whole)"
