"""A stream of queries through every way of deploying a bank (paper, Table 2): what is routed, loaded and right."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill_plugins.evaluation.api import mean_interval

from .loads import Mounts
from .queries import Query
from .routers import Router


@dataclass(frozen=True)
class Layout:
    """The files of a bank on the disk, of which `serve` loads one a query."""

    name: str
    """``one-per-effect``, ``one-collection`` or ``groups``."""
    files: Mapping[str, Path]
    """Effect -> the file that has it."""
    bytes_each: Mapping[Path, int]
    """Sizes of the files: of those on disk, or of what stands for them."""

    @property
    def storage(self) -> int:
        """Bytes of all its files."""
        return sum(self.bytes_each.values())


@dataclass(frozen=True)
class Routed:
    """The files to which one router sent every query, and the seconds that it took."""

    router: str | None
    """None: the user pressed a button."""
    picks: Sequence[str | None]
    seconds: Sequence[float]
    refused: int = 0


def press_buttons(queries: Sequence[Query]) -> Routed:
    """Route as a product does whose users choose an effect from a list: nothing to find, nothing to err."""
    return Routed(None, [query.effect for query in queries], [0.0] * len(queries))


def ask_router(router: Router, queries: Sequence[Query], advance: Callable[[int], None]) -> Routed:
    """Route every query by itself, as it would come in, and time it; the first is asked once before, to warm up."""
    if router.name == "text-encoder" and queries:
        router.route(queries[0].text)
    picks: list[str | None] = []
    seconds: list[float] = []
    for query in queries:
        started = time.perf_counter()
        picks.append(router.route(query.text))
        seconds.append(time.perf_counter() - started)
        advance(1)
    return Routed(router.name, picks, seconds, getattr(router, "refused", 0))


def serve(layout: Layout, routed: Routed, queries: Sequence[Query], mounts: Mounts, seed: int = 0) -> dict[str, Any]:
    """Serve the stream: mount each query's file where another one is mounted, and say what it cost and what was right.

    A query that the router could not place keeps the mounted file and is wrong.  The first load counts as one.
    """
    mounts.forget()
    loads: list[float] = []
    waits: list[float] = []
    for pick, seconds in zip(routed.picks, routed.seconds, strict=True):
        taken = None if pick is None else mounts.need(layout.files[pick])
        if taken is not None:
            loads.append(taken)
        waits.append(seconds + (taken or 0.0))
    effect_right = [float(pick == query.effect) for pick, query in zip(routed.picks, queries, strict=True)]
    file_right = [
        float(pick is not None and layout.files[pick] == layout.files[query.effect])
        for pick, query in zip(routed.picks, queries, strict=True)
    ]
    return {
        "layout": layout.name,
        "router": routed.router,
        "files": len(set(layout.files.values())),
        "storage_bytes": layout.storage,
        "routing_seconds": interval(routed.seconds, seed),
        "effect_accuracy": interval(effect_right, seed),
        "effect_accuracy_described": described(effect_right, queries, seed),
        "file_accuracy": interval(file_right, seed),
        "loads": len(loads),
        "load_seconds": interval(loads, seed) if loads else None,
        "wait_seconds": interval(waits, seed),
        "unanswered": routed.refused,
    }


def described(right: Sequence[float], queries: Sequence[Query], seed: int) -> dict[str, float | int | None] | None:
    """Accuracy on the queries that describe what they mean, None where there are none."""
    kept = [value for value, query in zip(right, queries, strict=True) if query.described]
    return interval(kept, seed) if kept else None


def interval(values: Sequence[float], seed: int = 0) -> dict[str, float | int | None]:
    """Mean over queries (or loads) with its 95 % bootstrap interval, as plain data; of a single one there is no interval."""
    found = mean_interval(list(values), seed=seed)
    low, high = (found.low, found.high) if found.n > 1 else (None, None)
    return {"mean": found.mean, "low": low, "high": high, "n": found.n}
