"""Atomic writing: old content or new, never half, never a left-over after an exception."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from cldistill.storage import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_write_makes_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    files.atomic_write_text(path, "eins\n")
    files.atomic_write_text(path, "zwei · ü\n")
    assert path.read_bytes() == "zwei · ü\n".encode()
    assert names(path.parent) == ["b.txt"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.atomic_write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_write_aside_shows_the_folder_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "thing"
    with files.write_aside(folder) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "x").write_text("1")
        assert not folder.exists()
        assert aside.parent == folder.parent
        assert aside.name.startswith(".")
    assert (folder / "deep" / "x").read_text() == "1"
    assert names(folder.parent) == ["thing"]


def test_write_aside_replaces_an_old_folder_completely(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "stale").write_text("old")
    with files.write_aside(folder) as aside:
        (aside / "fresh").write_text("new")
    assert names(folder) == ["fresh"]
    assert names(tmp_path) == ["thing"]


def test_write_aside_clears_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]"
    kept = [
        ".a[b]c.host.7.01234567.partial",
        ".a[b].host.7.01234567.part",
        ".ab.host.7.01234567.partial",
        ".a[b].partial",
    ]
    for path in (files.partial_path(folder), files.partial_path(folder), *(tmp_path / name for name in kept)):
        (path / "sub").mkdir(parents=True)
    with files.write_aside(folder) as aside:
        (aside / "x").write_text("x")
    assert {path.name for path in tmp_path.iterdir()} == {"a[b]", *kept}


def test_write_aside_undoes_itself_on_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "kept").write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), files.write_aside(folder) as aside:
        (aside / "fresh").write_text("new")
        raise RuntimeError("half-way")
    assert names(folder) == ["kept"]
    assert names(tmp_path) == ["thing"]


def test_every_file_and_folder_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def seen_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def seen_rename(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    with files.write_aside(tmp_path / "thing") as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "x").write_text("1")
    assert events == ["deep", "x", aside.name, "rename to thing", tmp_path.name]


def test_hashes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_bytes(data) == expected
    assert files.sha256_file(tmp_path / "x") == expected


def test_two_writers_never_prepare_a_file_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers repeat process ids, and may share a host's name."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = {files.partial_path(tmp_path / "x").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(f".x.{socket.gethostname()}.1.") for name in names)
    long = tmp_path / ("é" * 126 + ".t")  # 254 of the 255 bytes that a name may have
    files.atomic_write_text(long, "there")
    assert long.read_text() == "there"
