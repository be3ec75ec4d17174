"""Calls that wait for a server, a bounded number at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

E = TypeVar("E")
R = TypeVar("R")


def in_parallel(entries: Iterable[E], call: Callable[[E], R], workers: int) -> Iterator[tuple[E, R]]:
    """Yield each entry with what ``call`` makes of it, as they are done, in no fixed order.

    At most ``workers`` calls are under way, and no entry is taken before one can start on it.  Once a call has raised, no
    other is started: what those under way make is yielded, then the first exception is raised.
    """
    rest = iter(entries)
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[R], E] = {pool.submit(call, entry): entry for entry in islice(rest, workers)}
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                entry = running.pop(future)
                failure = failure or future.exception()
                if failure is None:
                    running.update({pool.submit(call, more): more for more in islice(rest, 1)})
                if future.exception() is None:
                    yield entry, future.result()
    if failure is not None:
        raise failure
