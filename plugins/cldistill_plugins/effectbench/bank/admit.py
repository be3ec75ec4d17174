"""``python -m cldistill_plugins.effectbench.bank.admit REPORT ...``: which effects the bank is made of.

A collection can be no better than the LoRAs that it is made of, and a product ships effects whose LoRAs work.  So an effect is
admitted when its teacher, a LoRA of twenty pairs, is bad in at most half of the training pictures that none of its pairs is
made of.  No student is looked at, no held-out picture, and among the admitted the catalogue's order decides, not the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .catalogue import ADMISSION, catalogue
from .effect import EffectError

SYSTEM = "teacher"
METRICS = ("bad_case", "closeness")
MOST_BAD = 0.5
"""Share of an effect's pictures that may be bad."""


def admission(reports: Sequence[Mapping[str, Any]], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The teachers' doings in reports of ``cldistill eval``: each effect's mean bad cases and closeness, and the admitted.

    Args:
        before: what was found earlier, about other effects on the same pictures; a report's own figures replace it.

    Raises:
        EffectError: a report has no such system or metric, or is of other pictures.
    """
    effects = dict(before["effects"]) if before else {}
    pictures = before["pictures"] if before else None
    try:
        for report in reports:
            values = report["values"][SYSTEM]
            pictures = pictures or report["pictures"]
            if report["pictures"] != pictures:
                raise EffectError("the effects were tried on different pictures: give all reports anew, with --fresh")
            effects |= {
                name: {metric: round(_mean(pools[metric]), 4) for metric in METRICS}
                for name, pools in values.items()
                if name in catalogue()
            }
    except KeyError as error:
        raise EffectError(f"the report has no {error.args[0]!r}: it is not one of effectbench-admission") from None
    known = {name: effects[name] for name in catalogue() if name in effects}
    names = [name for name, figures in known.items() if figures["bad_case"] <= MOST_BAD]
    return {"pictures": pictures, "most_bad": MOST_BAD, "effects": known, "admitted": names}


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cldistill_plugins.effectbench.bank.admit")
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="report.json of effectbench-admission")
    parser.add_argument("--output", type=Path, metavar="FILE", help="added to (default: the registry's own file)")
    parser.add_argument("--fresh", action="store_true", help="forget what the file says of other effects")
    given = parser.parse_args(arguments)
    out = given.output or Path(str(files("cldistill_registry").joinpath(ADMISSION)))
    try:
        before = None if given.fresh or not out.is_file() else json.loads(out.read_text(encoding="utf-8"))
        found = admission([json.loads(file.read_text(encoding="utf-8")) for file in given.reports], before)
    except (EffectError, OSError, ValueError) as error:
        print(f"error: {', '.join(map(str, given.reports))}: {error}", file=sys.stderr)
        return 2
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    drawn = sum(catalogue()[name].stochastic for name in found["admitted"])
    print(f"{len(found['admitted'])} of {len(found['effects'])} effects admitted, {drawn} of them stochastic: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
