"""``python -m cldistill_plugins.effectbench.bank OUT --sources DIR``: write the six effects' training pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .effect import EffectError
from .pairs import write_bank
from .six import SIX


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cldistill_plugins.effectbench.bank",
        description="Write each effect's training pairs: OUT/<effect>/source, OUT/<effect>/target and effect.json.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--sources", type=Path, required=True, metavar="DIR", help="pool of pictures to apply them to")
    parser.add_argument("--pairs", type=int, default=20, help="pairs an effect (default: 20)")
    parser.add_argument("--seed", type=int, default=7, help="chooses sources and draws (default: 7)")
    given = parser.parse_args(arguments)
    try:
        folders = write_bank(given.out, SIX.values(), given.sources, given.pairs, given.seed)
    except EffectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for folder in folders:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {given.pairs} pairs, {size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
