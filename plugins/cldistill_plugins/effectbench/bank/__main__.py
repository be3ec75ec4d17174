"""``python -m cldistill_plugins.effectbench.bank OUT --effects 50``: write a bank: pairs, and the list for a manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path

from rich.progress import track

from .catalogue import bank_of, hard_bank, named, settings
from .effect import EffectError, EffectRecord
from .effects_file import write_effects_file
from .pairs import SOURCES, choose, copy_licences, for_pairs, pictures_in, write_effect
from .six import SIX


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        effects = chosen_effects(given.effects)
        pool = for_pairs(pictures_in(given.sources or Path(str(files(SOURCES[0]).joinpath(SOURCES[1])))))
        if given.pairs < 1 or len(pool) < given.pairs:
            raise EffectError(f"the pool holds {len(pool)} pictures, but {given.pairs} pairs an effect were asked for")
        given.out.mkdir(parents=True, exist_ok=True)
        copy_licences(pool[0].parent, given.out)
        _write(given.out, effects, pool, given)
        listed = write_effects_file(given.out, effects)
        for size in given.lists:
            write_effects_file(given.out, effects[:size])
    except EffectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(effects)} effects of {given.pairs} pairs in {given.out}; in a manifest: `effects: {listed}`")
    return 0


def chosen_effects(asked: Sequence[str]) -> list[EffectRecord]:
    """Return the effects that a number, ``quickstart``, ``hard`` or names ask for."""
    if list(asked) == ["quickstart"]:
        return list(SIX.values())
    if list(asked) == ["hard"]:
        return hard_bank()
    if len(asked) == 1 and asked[0].isdecimal():
        return bank_of(int(asked[0]))
    return [named(name) for name in asked]


def _write(out: Path, effects: Sequence[EffectRecord], pool: Sequence[Path], given: argparse.Namespace) -> None:
    with ProcessPoolExecutor(given.processes) as workers:
        jobs = [
            workers.submit(write_effect, out / e.name, e, choose(pool, e, given.pairs, given.seed), given.seed)
            for e in effects
        ]
        for job in track(jobs, description="writing pairs"):
            job.result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cldistill_plugins.effectbench.bank",
        description="Write each effect's training pairs (OUT/<effect>/source, target, effect.json) and OUT/effects-N.yaml.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    what = "how many of the catalogue's effects (10, 20, 50, 100, 180), their names, `quickstart`, or `hard` (not admitted)"
    parser.add_argument("--effects", nargs="+", default=["50"], metavar="N|NAME", help=f"{what} (default: 50)")
    parser.add_argument(
        "--lists", nargs="*", type=int, default=[], metavar="N", help="lists of the first N effects, too"
    )
    parser.add_argument("--sources", type=Path, metavar="DIR", help="pool of pictures (default: the miniature's)")
    parser.add_argument("--pairs", type=int, default=settings()["pairs"], help="pairs an effect (default: 20)")
    parser.add_argument("--seed", type=int, default=settings()["seed"], help="chooses sources and draws (default: 7)")
    parser.add_argument("--processes", type=int, default=2, help="processes that make pairs (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
