"""The volume of a command: with ``-q`` its result, warnings and errors alone, with ``-v`` what the libraries tell as well.

It lies in the environment, so that the processes that a command starts say as much as it does.
"""

from __future__ import annotations

import logging
import os

QUIET, VERBOSE = "CLDISTILL_QUIET", "CLDISTILL_VERBOSE"


def set_volume(quiet: bool, verbose: bool) -> None:
    """Set what was asked for; of the two, ``verbose`` wins."""
    if verbose:
        os.environ[VERBOSE] = "1"
        for library in ("TRANSFORMERS", "DIFFUSERS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "info")
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    elif quiet:
        os.environ[QUIET] = "1"
    for library in () if verbose else ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
        logging.getLogger(library).setLevel(logging.ERROR)  # each import of torchao draws warnings that ask nothing


def is_quiet() -> bool:
    """Return whether progress is left out."""
    return QUIET in os.environ and not is_verbose()


def is_verbose() -> bool:
    """Return whether libraries speak, and errors come with their traceback."""
    return VERBOSE in os.environ
