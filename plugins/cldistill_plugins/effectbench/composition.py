"""Two effects in one prompt, against the truth of the composition.

    python -m cldistill_plugins.effectbench.composition MANIFEST --collection DIR --pairs-of-effects 20

An output *succeeds* if the truth of its composition, ``B(A(picture))``, is nearer (HED-VGG LPIPS, all pictures through the
base's VAE) than the source, A alone, B alone and the other order.  The system ``truth`` is a fresh draw of the composition
itself: what no system can beat.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cldistill.errors import CldistillError

if TYPE_CHECKING:
    from cldistill_plugins.effectbench.composed_measure import Values
    from cldistill_plugins.evaluation.api import Composed


def composition(
    manifest: Annotated[str, typer.Argument(help="The collection's manifest, with `evaluate:`; a file or a recipe.")],
    collection: Annotated[Path, typer.Option(help="Folder of the collection.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the JSON goes.")] = Path("composition.json"),
    pairs_of_effects: Annotated[
        int, typer.Option(min=1, help="How many times two effects; both orders are made.")
    ] = 20,
    pictures: Annotated[int, typer.Option(min=1, help="Held-out pictures.")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="Truth draws where an effect is stochastic.")] = 4,
    teachers: Annotated[
        bool, typer.Option("--teachers", help="Also sum both teachers' adapters, at their own steps.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the pairs, the noise and the truth draws.")] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one value of the manifest.")] = None,
) -> None:
    """Ask a collection for two effects at once, in both orders, and compare with one after the other."""
    from cldistill.progress.live import LiveStages
    from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
    from cldistill.storage.files import atomic_write_text
    from cldistill_plugins.effectbench.bank import knows
    from cldistill_plugins.effectbench.composed_measure import CompositionJudge
    from cldistill_plugins.evaluation.api import CompositionOrder, compose

    order = CompositionOrder(
        manifest, collection, pairs_of_effects, pictures, output.parent, None, overrides or (), teachers, seed, knows
    )
    stages = LiveStages()
    with graceful_stop() as stop:
        stop.promise = OUTSIDE_LOOP
        composed = compose(order, stages, lambda: bool(stop))
    judge = CompositionJudge(composed, composed.cache / "truths", draws, seed)
    with stages.stage("comparing with the truth", len(composed.sources) * len(composed.pairs) // 2) as advance:
        values = judge.measure(advance)
    data = as_json(composed, values, seed=seed, draws=draws, teachers=teachers)
    atomic_write_text(output, json.dumps(data, indent=1, allow_nan=False) + "\n")
    _print(data, output)


def as_json(composed: Composed, values: Values, *, seed: int, draws: int, teachers: bool) -> dict[str, Any]:
    """Return the result as it is committed."""
    from cldistill_plugins.effectbench.composed_measure import TRUTH, summarise
    from cldistill_plugins.evaluation.api import SUMMED, TITLES, provenance

    titles = {**TITLES, TRUTH: "a fresh draw of the truth"}
    words = ["python", "-m", "cldistill_plugins.effectbench.composition", *sys.argv[1:]]
    found: dict[str, Any] = _plain(
        {
            "format": 1,
            "name": "composition",
            **provenance(shlex.join(words), seed),
            "draws": draws,
            "pictures": [path.stem for path in composed.sources],
            "pairs": [pair.name for pair in composed.pairs],
            "systems": [
                {"name": name, "title": titles.get(name, name), "evaluations": composed.evaluations.get(name)}
                for name in values
            ],
            "summary": summarise(values),
            "values": values,
            "not_run": []
            if teachers
            else [{"what": titles[SUMMED], "why": "not asked for (--teachers)", "cost": "a teacher's steps a picture"}],
        }
    )
    return found


def _plain(value: Any) -> Any:
    """Write ``nan`` as null: JSON has no other word for it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(data: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console, names = Console(), Column("system", no_wrap=True)
    table = Table(names, "evaluations", "success", "both effects", "order right", "distance", box=None)
    for system in data["systems"]:
        found = data["summary"][system["name"]]
        shares = [_share(found[name]) for name in ("success", "both_effects", "order_right")]
        count = system["evaluations"]
        table.add_row(system["name"], "–" if count is None else str(count), *shares, f"{found['distance']['mean']:.4f}")
    console.print(table)
    console.print(str(output), markup=False, highlight=False, soft_wrap=True)


def _share(interval: dict[str, Any]) -> str:
    from cldistill_plugins.evaluation.api import ONE_PICTURE

    if interval["mean"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['mean']:.0%} ({ONE_PICTURE})"
    return f"{interval['mean']:.0%} ({interval['low']:.0%}–{interval['high']:.0%})"


def main() -> None:
    """Run it; a user error is one message on stderr and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(composition)
    try:
        app()
    except CldistillError as error:
        print(f"composition: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
