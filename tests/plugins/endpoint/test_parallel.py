"""Calls in parallel: all are made, few at a time, and an error or an early end starts no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cldistill_plugins.endpoint.parallel import in_parallel


def test_every_entry_comes_back_with_its_result_and_few_run_at_a_time() -> None:
    lock, now, most = threading.Lock(), 0, 0
    together = threading.Barrier(3)

    def double(entry: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(timeout=10)  # passes only if three calls are under way at once
        with lock:
            now -= 1
        return 2 * entry

    assert dict(in_parallel(range(12), double, 3)) == {entry: 2 * entry for entry in range(12)}
    assert most == 3


def test_entries_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def entries() -> Iterator[int]:
        for entry in range(1000):
            taken.append(entry)
            yield entry

    made = in_parallel(entries(), str, 2)
    assert {next(made) for _ in range(3)} <= {(entry, str(entry)) for entry in range(6)}
    made.close()  # type: ignore[attr-defined]
    assert len(taken) <= 6


def test_after_an_error_nothing_is_started_and_nothing_is_lost() -> None:
    called: list[int] = []
    failed = threading.Event()

    def call(entry: int) -> int:
        called.append(entry)
        if entry == 1:
            failed.set()
            raise ValueError("entry 1")
        failed.wait(timeout=10)  # so that 0 and 2 end after 1 has failed
        return entry

    made: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match="entry 1"):
        for result in in_parallel(range(1000), call, 3):
            made.append(result)
    assert sorted(called) == [entry for entry, _ in sorted([*made, (1, 1)])]
    assert {0, 2} <= {entry for entry, _ in made}


def test_no_entries_are_no_work() -> None:
    assert list(in_parallel([], str, 4)) == []
