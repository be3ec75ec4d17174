"""Teachers come and go: a few stay in memory, and a file is hashed once as long as it is the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cldistill.data.teachers import TeacherBank
from cldistill.storage import files
from cldistill.storage.files import file_digest
from cldistill.weights import AdapterState, LoraWeights


def fetcher(name: str, asked: list[str]) -> Callable[[], AdapterState | None]:
    """Return a teacher source that writes down when it is asked; the bare base for ``bare``."""

    def fetch() -> AdapterState | None:
        asked.append(name)
        weights = {"m": LoraWeights(torch.zeros(1, 2), torch.zeros(2, 1), 1.0)}
        return None if name == "bare" else AdapterState(weights, name, f"digest of {name}")

    return fetch


def test_the_oldest_teacher_leaves_and_comes_back_when_it_is_asked_for() -> None:
    asked: list[str] = []
    bank = TeacherBank({name: fetcher(name, asked) for name in "abc"}, keep=2)
    for name in "ababcab":
        state = bank.state(name)
        assert state is not None and state.source == name
    assert asked == ["a", "b", "c", "a", "b"]


def test_a_digest_needs_no_second_load() -> None:
    asked: list[str] = []
    names = ("a", "b", "bare")
    bank = TeacherBank({name: fetcher(name, asked) for name in names}, keep=1)
    bank.state("a")
    bank.state("b")
    assert [bank.digest(name) for name in names] == ["digest of a", "digest of b", None]
    assert [bank.digest(name) for name in names] == ["digest of a", "digest of b", None]
    assert asked == ["a", "b", "bare"]


def test_a_digest_that_the_source_tells_asks_for_no_adapter() -> None:
    asked: list[str] = []
    bank = TeacherBank({name: fetcher(name, asked) for name in "ab"}, known={"a": lambda: "told"})
    assert [bank.digest(name) for name in "ab"] == ["told", "digest of b"]
    assert asked == ["b"]


def test_a_large_file_is_not_hashed_again_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(files, "NOTED", 2)
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"one")
    told = file_digest(path)
    files._noted.cache_clear()  # as a new process begins
    monkeypatch.setattr(files.hashlib, "file_digest", None)
    assert file_digest(path) == told == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(1, 1))
    with pytest.raises(TypeError):
        file_digest(path)


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"one")
    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda f, a: reads.append(f.name) or real(f, a))
    assert file_digest(path) == file_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
    assert len(reads) == 2
