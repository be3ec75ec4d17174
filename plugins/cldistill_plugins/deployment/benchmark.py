"""The deployment benchmark: banks of several sizes, each laid out and routed in every way (paper, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cldistill.collection.collection import build_base
from cldistill.collection.index import read_index
from cldistill.errors import DataError, NotMeasured
from cldistill_plugins.deployment.split import Groups
from cldistill_plugins.endpoint.api import Endpoint

from .loads import Mounts, effect_files, family_names
from .queries import TEMPLATES, BankEffect, Query, make_queries, read_phrases
from .routers import Router, TextRouter, VlmRouter
from .table import Layout, Routed, ask_router, press_buttons, serve


@dataclass(frozen=True)
class BenchmarkPlan:
    """The banks, files and routers that `run_benchmark` measures, as its command line names them."""

    bank: Sequence[BankEffect]
    collection: Path
    """A real collection: its base is the one that adapters are mounted on, its file's size stands for every collection."""
    sizes: Sequence[int]
    queries: int = 200
    seed: int = 0
    at_most: int = 50
    """Effects that one collection holds; a larger bank is split."""
    adapters: Path | None = None
    rank: int = 16
    groups: Sequence[Groups] = ()
    phrases: Path | None = None
    endpoint: Endpoint | None = None
    base: str | None = None


@dataclass
class Result:
    """Rows and mistakes that `run_benchmark` found, written by its command line."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    not_measured: list[dict[str, str]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    adapters: dict[str, int] = field(default_factory=dict)


SHOWN_MISTAKES = 10


def run_benchmark(plan: BenchmarkPlan, advance: Callable[[int], None] = lambda done: None) -> Result:
    """Measure every row.

    Raises:
        DataError: a size that the bank does not have.
        cldistill.errors.EndpointError: an endpoint is named and does not work.
    """
    for size in plan.sizes:
        if not 1 <= size <= len(plan.bank):
            raise DataError(f"--sizes {size}: the bank has {len(plan.bank)} effects")
    index = read_index(plan.collection)
    base = build_base(index, plan.base, "cpu", {})
    result = Result()
    with TemporaryDirectory() as scratch:
        names = [effect.name for effect in plan.bank[: max(plan.sizes)]]
        files, stand_ins = effect_files(base, names, plan.adapters, Path(scratch), plan.rank)
        result.adapters = {"own": len(files) - stand_ins, "stand_ins": stand_ins, "rank_of_stand_ins": plan.rank}
        mounts = Mounts(base, family_names(index, plan.base))
        for size in plan.sizes:
            effects = plan.bank[:size]
            queries = make_queries(effects, read_phrases(plan.phrases), plan.queries, plan.seed)
            layouts = list(
                _layouts(plan, effects, {effect.name: files[effect.name] for effect in effects}, Path(scratch))
            )
            for routed in _routed(plan, effects, queries, result, advance):
                result.rows += [{"effects": size, **serve(x, routed, queries, mounts, plan.seed)} for x in layouts]
                _note_mistakes(result, size, routed, queries)
    return result


def _layouts(
    plan: BenchmarkPlan, effects: Sequence[BankEffect], own: dict[str, Path], scratch: Path
) -> Iterator[Layout]:
    names = [effect.name for effect in effects]
    weights = read_index(plan.collection).file
    yield Layout("one-per-effect", own, {path: path.stat().st_size for path in own.values()})
    yield Layout("one-collection", dict.fromkeys(names, weights), {weights: weights.stat().st_size})
    if len(names) > plan.at_most:
        files = grouped_files(names, plan.groups, weights, plan.at_most, scratch)
        yield Layout("groups", files, {path: path.stat().st_size for path in set(files.values())})


def grouped_files(
    names: Sequence[str], groups: Sequence[Groups], weights: Path, at_most: int, scratch: Path
) -> dict[str, Path]:
    """Effect -> its group's file: of the split of exactly these effects where there is one, else by blocks of ``at_most``.

    A group that is not trained yet is stood in for by a copy of ``weights``, in ``scratch``.
    """
    split = next((g for g in groups if {n for part in g.groups for n in part.effects} == set(names)), None)
    if split is not None:
        found = {name: split.file_of(name) for name in names}
    else:
        count = -(-len(names) // at_most)
        found = {
            name: scratch / f"block-{len(names)}-{i * count // len(names)}.safetensors" for i, name in enumerate(names)
        }
    places: dict[Path, Path] = {}
    for path in found.values():
        if path not in places:
            places[path] = path if path.is_file() else scratch / f"group-{len(names)}-{len(places)}.safetensors"
            if not places[path].is_file():
                places[path].write_bytes(weights.read_bytes())
    return {name: places[path] for name, path in found.items()}


def _routed(
    plan: BenchmarkPlan,
    effects: Sequence[BankEffect],
    queries: Sequence[Query],
    result: Result,
    advance: Callable[[int], None],
) -> Iterator[Routed]:
    yield press_buttons(queries)
    makers: dict[str, Callable[[], Router]] = {
        TextRouter.name: lambda: TextRouter(effects),
        VlmRouter.name: lambda: _vlm(plan, effects),
    }
    for name, make in makers.items():
        try:
            router = make()
        except NotMeasured as error:
            if all(row["what"] != name for row in result.not_measured):
                result.not_measured.append({"what": name, "reason": str(error)})
            continue
        yield ask_router(router, queries, advance)


def _vlm(plan: BenchmarkPlan, effects: Sequence[BankEffect]) -> VlmRouter:
    if plan.endpoint is None:
        raise NotMeasured("no endpoint was named (--endpoint and --model)")
    return VlmRouter(effects, plan.endpoint)


def _note_mistakes(result: Result, size: int, routed: Routed, queries: Sequence[Query]) -> None:
    wrong = [
        {"typed": query.text, "meant": query.effect, "picked": pick}
        for query, pick in zip(queries, routed.picks, strict=True)
        if pick != query.effect
    ]
    if wrong:
        result.mistakes.append(
            {"effects": size, "router": routed.router, "count": len(wrong), "first": wrong[:SHOWN_MISTAKES]}
        )


def query_facts(plan: BenchmarkPlan) -> dict[str, Any]:
    """Say how the queries were made."""
    phrases = read_phrases(plan.phrases)
    return {
        "count": plan.queries,
        "templates": len(TEMPLATES),
        "effects_with_phrases": sum(effect.name in phrases for effect in plan.bank[: max(plan.sizes)]),
        "made": "drawn from phrases and templates that were fixed before any router ran; no log of a product",
    }
