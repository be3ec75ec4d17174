"""The benchmark of start-up, with one teacher of real shapes: a later start reads none of its bytes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from cldistill.storage import files, finite

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmark_startup.py"
RANK = 4  # 74 MB: answers about smaller files are not kept


@pytest.mark.slow
def test_a_later_start_reads_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    benchmark = runpy.run_path(str(SCRIPT))
    manifest = benchmark["write_manifest"](tmp_path, 1, RANK)
    status = (tmp_path / "0.safetensors").stat()
    assert status.st_size > files.NOTED
    assert benchmark["start"](manifest) == 1

    def read(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    files._noted.cache_clear()  # as in a process of its own
    monkeypatch.setattr(files, "sha256_file", read)
    monkeypatch.setattr(finite, "_first", read)
    assert benchmark["start"](manifest) == 1
