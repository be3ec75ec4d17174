"""Damage on disk is found out; a write that is killed leaves the old or the new; a folder has one writer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cldistill.storage import files
from cldistill.storage.tensors import TensorCache, content_key, tensors_digest

KEY = content_key("entry")


def made() -> dict[str, Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.zeros(3, dtype=torch.bfloat16)}


def read_again(root: Path) -> int:
    """Read the entry with a fresh process's eyes, see that it is right, and return how often it was made."""
    cache = TensorCache(root)
    assert tensors_digest(cache.get(KEY, made)) == tensors_digest(made())
    return cache.computed


@pytest.mark.parametrize("seed", range(4))
def test_any_damage_of_a_cache_entry_is_found_and_mended(tmp_path: Path, seed: int) -> None:
    assert (read_again(tmp_path), read_again(tmp_path)) == (1, 0)
    path = TensorCache(tmp_path).path(KEY)
    whole, places = path.read_bytes(), torch.Generator().manual_seed(seed)
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in [start, len(whole) - 1, *torch.randint(8, len(whole), (12,), generator=places).tolist()]:
        raw = bytearray(whole)
        raw[place] ^= 1 << seed
        path.write_bytes(raw)
        made_again = read_again(tmp_path)  # a blank of the padding that became another is no damage
        assert made_again or place < start
        assert path.read_bytes() == whole or not made_again
    for spoilt in (b"", whole[:-1], whole[:20], b"\xff" * 300, b"[" * 5000):
        path.write_bytes(spoilt)
        assert read_again(tmp_path) == 1
    path.unlink()
    path.mkdir()
    assert (read_again(tmp_path), read_again(tmp_path)) == (1, 0)


def killed_at(point: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a fork that kills itself before its ``point``-th change of the disk; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def before(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def change(*given: object, **more: object) -> object:
                nonlocal count
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)

            return change

        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
            setattr(os, name, before(name, getattr(os, name)))
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_an_entry_of_a_version_without_digests_is_as_good_as_missing(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.path(KEY).parent.mkdir(parents=True)
    save_file(made(), cache.path(KEY))
    assert not cache.has(KEY)  # what is asked before a run is what is found while it reads
    assert read_again(tmp_path) == 1
    assert cache.has(KEY)


@pytest.mark.skipif(sys.platform != "linux", reason="two folders change names in one step on Linux alone")
@pytest.mark.slow
def test_a_folder_that_is_replaced_never_lacks_its_name(tmp_path: Path) -> None:
    folder, point = tmp_path / "collection", 0

    def fill(text: str) -> None:
        with files.write_aside(folder) as aside:
            (aside / "sub").mkdir()
            for path in (aside / "x", aside / "sub/y"):
                path.write_text(text)

    fill("old")
    alive = True
    while alive:
        point += 1
        alive = killed_at(point, lambda: fill("new"))
        assert {path.read_text() for path in (folder / "x", folder / "sub/y")} in ({"old"}, {"new"})
    assert point > 10
    assert (folder / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["collection"]  # the last one found what the killed ones left


def test_the_second_writer_is_refused_and_the_first_named(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib
sys.path[:0] = {sys.path!r}
from cldistill.storage.files import only_writer
with only_writer(pathlib.Path({str(tmp_path / "run")!r})):
    print("in", flush=True)
    sys.stdin.read()
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"in\n"
    with (
        pytest.raises(BlockingIOError, match=f"process {first.pid} on .* is writing there"),
        files.only_writer(tmp_path / "run"),
    ):
        pass
    first.kill()
    first.wait()
    with files.only_writer(tmp_path / "run"):  # the lock died with its process
        pass


def test_the_words_of_libraries_become_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as found, files.naming(tmp_path / "x"):
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")])
    assert (found.value.errno, found.value.filename) == (28, str(tmp_path / "x"))
    with pytest.raises(OSError, match="No space left") as found, files.naming(tmp_path / "x"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert (found.value.errno, found.value.filename) == (28, str(tmp_path / "x"))
