"""``python -m cldistill_plugins.effectbench.figures RUN --output OUT``: Figures 4, 5 and 9, as JSON and as plots."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cldistill.errors import CldistillError

JSON = "figures.json"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def figures(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of figures.json and the plots.")],
    run: Annotated[Path | None, typer.Argument(help="A run with a critic, for Figures 4 and 5.")] = None,
    effects: Annotated[int, typer.Option(min=1, help="Effects at most, spread evenly over the run's list.")] = 24,
    pairs: Annotated[int, typer.Option(min=1, help="Training pairs an effect.")] = 1,
    step: Annotated[int | None, typer.Option(help="Checkpoint (default: the newest).")] = None,
    curves: Annotated[
        list[str] | None, typer.Option(metavar="NAME=RUN", help="A run for Figure 9; repeat it for each.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help='{"name", "metric", "points": [[step, value], ...]}; repeatable.')
    ] = None,
    tau_max: Annotated[float, typer.Option(help="Bound of t_gen.")] = 750.0,
    tau_min: Annotated[float, typer.Option(help="Bound of t_critic.")] = 500.0,
    critic: Annotated[str, typer.Option(help="Slot of the fake score.")] = "critic",
    rows: Annotated[int, typer.Option(min=1, help="Noise levels in one call of a network; 1 for a large base.")] = 12,
) -> None:
    """Measure the vanishing gradient and the timestep bounds of a run, and draw training curves of several."""
    runs = dict(named(text) for text in curves or ())
    if run is None and not runs and not evaluation:
        raise typer.BadParameter("nothing to draw: give a RUN, or --curves NAME=RUN")

    from cldistill.storage.files import atomic_write_text
    from cldistill_plugins.effectbench.figures.curves import quality_charts, training_charts
    from cldistill_plugins.effectbench.figures.measure import MeasurementOptions
    from cldistill_plugins.evaluation.api import LIBRARIES, provenance

    charts = [*training_charts(runs), *quality_charts(evaluation or ())]
    measured: dict[str, Any] = {"run": None, "figure4": None, "figure5": None}
    if run is not None:
        measured = measured_run(run, effects, pairs, step, MeasurementOptions(tau_max, tau_min, critic, rows))
    command = shlex.join(["python", "-m", "cldistill_plugins.effectbench.figures", *sys.argv[1:]])
    seed = measured["run"]["seed"] if measured["run"] else None
    data = {"format": 1, **provenance(command, seed, (*LIBRARIES, "matplotlib")), **measured, "figure9": charts or None}
    atomic_write_text(output / JSON, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for path in draw(data, output):
        typer.echo(str(path))


def measured_run(folder: Path, effects: int, pairs: int, step: int | None, options: Any) -> dict[str, Any]:
    """Open a run and measure Figures 4 and 5 in it: both compare its critic with the teachers."""
    from cldistill.progress.live import LiveStages
    from cldistill_plugins.effectbench.figures.measure import measure
    from cldistill_plugins.effectbench.figures.opened import open_run

    stages = LiveStages()
    opened = open_run(folder, effects=effects, pairs=pairs, step=step, trained=[options.critic], stages=stages)
    for note in opened.notes:
        typer.echo(f"note: {note}", err=True)
    with stages.stage("comparing critic and teachers", len(opened.effects)) as advance:
        found = measure(opened, options, advance)
    facts = {
        "name": opened.run.name, "step": opened.step, "weights": "raw", "seed": opened.run.random.seed,
        "manifest_digest": opened.run.manifest_digest, "device": str(opened.run.accelerator.device),
        "notes": list(opened.notes),
    }  # fmt: skip
    return {"run": facts, **found}


def draw(data: dict[str, Any], output: Path) -> list[Path]:
    """Write a PNG for each figure that ``data`` has, and return them."""
    from cldistill_plugins.effectbench.figures.draw_bounds import draw_bounds
    from cldistill_plugins.effectbench.figures.draw_curves import draw_curves
    from cldistill_plugins.effectbench.figures.draw_vanishing import draw_vanishing
    from cldistill_plugins.effectbench.figures.style import write_figure

    written = []
    for number, drawing in ((4, draw_vanishing), (5, draw_bounds), (9, draw_curves)):
        found = data[f"figure{number}"]
        if found is not None:
            path = output / f"figure-{number}.png"
            write_figure(lambda drawing=drawing, found=found: drawing(found), path)  # type: ignore[misc]
            written.append(path)
    return written


def named(text: str) -> tuple[str, Path]:
    """Split ``NAME=RUN``."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"{text!r} is not NAME=RUN", param_hint="--curves")
    return name, Path(folder)


def main() -> None:
    """Run it; a user error is one message on stderr and exit code 2."""
    try:
        app()
    except CldistillError as error:
        print(f"figures: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
