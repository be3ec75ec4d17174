"""`python -m cldistill_plugins.deployment`: the deployment table, as JSON and on the screen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic import ValidationInfo

from cldistill.component import resolve_path
from cldistill.errors import CldistillError

if TYPE_CHECKING:
    from cldistill_plugins.deployment.benchmark import BenchmarkPlan, Result

BANK = "package:cldistill_registry/effects/effectbench.yaml"


def deployment(
    collection: Annotated[Path, typer.Option(help="A trained collection: its base and its file are what is measured.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the JSON goes.")] = Path("deployment.json"),
    bank: Annotated[str, typer.Option(help="Catalogue of effects; the first N are the bank of N.")] = BANK,
    sizes: Annotated[str, typer.Option(help="Sizes of the bank.")] = "10,20,50,100,150,180",
    queries: Annotated[int, typer.Option(min=1, help="Queries a size.")] = 200,
    seed: Annotated[int, typer.Option(help="Draws the queries.")] = 0,
    adapters: Annotated[
        Path | None, typer.Option(help="Folder of <effect>.safetensors; others are stood in for.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the stand-ins.")] = 16,
    groups: Annotated[
        list[Path] | None, typer.Option(help="What `cldistill group` wrote; repeat it for each size.")
    ] = None,
    at_most: Annotated[int, typer.Option(min=1, help="Effects that one collection holds.")] = 50,
    base: Annotated[
        str | None, typer.Option(help="Base model, where it is not the one in the collection's header.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible API for the VLM router.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model there.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="NAME of the environment variable with the key.")] = None,
) -> None:
    """Route and serve 200 queries by a file an effect, by one collection, and by several; write what it cost."""
    from cldistill.storage.files import atomic_write_text
    from cldistill_plugins.deployment.benchmark import BenchmarkPlan, query_facts, run_benchmark
    from cldistill_plugins.deployment.queries import read_bank
    from cldistill_plugins.deployment.split import read_groups
    from cldistill_plugins.evaluation.api import provenance

    plan = BenchmarkPlan(
        bank=read_bank(_resolve(bank)), collection=collection, sizes=_sizes(sizes), queries=queries, seed=seed,
        at_most=at_most, adapters=adapters, rank=rank, groups=[read_groups(path) for path in groups or ()], base=base,
        endpoint=_endpoint(endpoint, model, api_key_env),
    )  # fmt: skip
    with _progress(plan) as advance:
        result = run_benchmark(plan, advance)
    command = "python -m cldistill_plugins.deployment " + " ".join(sys.argv[1:])
    data = {
        "format": 1, "name": "deployment", **provenance(command, seed), "queries": query_facts(plan),
        "adapters": result.adapters, "rows": result.rows, "not_measured": result.not_measured, "mistakes": result.mistakes,
    }  # fmt: skip
    atomic_write_text(output, json.dumps(data, indent=1) + "\n")
    _print(result, output)


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers, as 10,20,50", param_hint="--sizes") from error


def _resolve(bank: str) -> Path:
    path = resolve_path(bank, cast(ValidationInfo, SimpleNamespace(context={"root": Path.cwd()})))
    assert isinstance(path, Path)
    return path


def _endpoint(url: str | None, model: str | None, api_key_env: str | None) -> Any:
    if url is None:
        return None
    from pydantic import ValidationError

    from cldistill_plugins.endpoint.api import Endpoint, EndpointSettings

    try:
        settings = EndpointSettings.model_validate({"endpoint": url, "model": model, "api_key_env": api_key_env})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}", param_hint="--endpoint/--model") from error
    return Endpoint.of(settings, "check --endpoint, --model and --api-key-env")


def _progress(plan: BenchmarkPlan) -> Any:
    from cldistill.progress.live import LiveStages

    routers = 1 if plan.endpoint is None else 2
    return LiveStages().stage("routing queries", len(plan.sizes) * plan.queries * routers)


def _print(result: Result, output: Path) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    heads = ("routing s", "effect right", "(described)", "file right", "loads", "load s", "MB")
    table = Table("effects", Column("files", no_wrap=True), "router", *heads, box=None)
    for row in result.rows:
        load = row["load_seconds"]
        table.add_row(
            str(row["effects"]), f"{row['layout']} ({row['files']})", row["router"] or "button",
            f"{row['routing_seconds']['mean']:.4f}", f"{row['effect_accuracy']['mean']:.0%}",
            f"{told['mean']:.0%}" if (told := row["effect_accuracy_described"]) else "–",
            f"{row['file_accuracy']['mean']:.0%}", str(row["loads"]), f"{load['mean']:.4f}" if load else "–",
            f"{row['storage_bytes'] / 1e6:.1f}",
        )  # fmt: skip
    console.print(table)
    for missing in result.not_measured:
        console.print(f"not measured: {missing['what']}: {missing['reason']}", markup=False, highlight=False)
    console.print(str(output), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run it; a user error is one message on stderr and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(deployment)
    try:
        app()
    except CldistillError as error:
        print(f"deployment: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
