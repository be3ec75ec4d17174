"""Encodings are made once, and a change invalidates exactly what depends on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cldistill.data.encodings import Encoder
from cldistill.records import Item, Prompts
from cldistill.storage.tensors import TensorCache, content_key
from cldistill.testing.pictures import effect_items, picture, write_pairs
from cldistill.testing.tiny_base import TinyBase

PROMPTS = Prompts("zorvex make it bright", "make it bright", "", "zorvex")


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Two pairs on disk."""
    write_pairs(tmp_path / "pairs", 2)
    return effect_items(tmp_path / "pairs", "bright", "make it bright")


def encode(root: Path, items: list[Item], prompts: Prompts = PROMPTS, base: TinyBase | None = None) -> int:
    """Encode everything with a fresh process's eyes; return how many entries had to be computed."""
    cache = TensorCache(root)
    encoder = Encoder(base or TinyBase(), cache)
    for item in items:
        example = encoder.example(item, prompts)
        example.student(), example.teacher(), encoder.pair_target(item)
    return cache.computed


def test_a_second_run_computes_nothing(tmp_path: Path, items: list[Item]) -> None:
    assert encode(tmp_path / "cache", items) == 10  # two items: source, its geometry, target, two prompts
    assert encode(tmp_path / "cache", items) == 0


def test_a_changed_source_invalidates_all_of_its_item_and_nothing_else(tmp_path: Path, items: list[Item]) -> None:
    encode(tmp_path / "cache", items)
    picture(seed=99).save(items[0].sources[0])
    assert encode(tmp_path / "cache", items) == 5


def test_a_changed_target_invalidates_that_target(tmp_path: Path, items: list[Item]) -> None:
    encode(tmp_path / "cache", items)
    assert items[0].target is not None
    picture(seed=99).save(items[0].target)
    assert encode(tmp_path / "cache", items) == 1


def test_a_changed_prompt_invalidates_that_prompt(tmp_path: Path, items: list[Item]) -> None:
    encode(tmp_path / "cache", items)
    assert encode(tmp_path / "cache", items, replace(PROMPTS, student="quiblo make it bright")) == 2


def test_another_base_invalidates_everything(tmp_path: Path, items: list[Item]) -> None:
    encode(tmp_path / "cache", items)
    other = TinyBase()
    other.fingerprint = "another"
    assert encode(tmp_path / "cache", items, base=other) == 10


def test_a_renamed_file_is_the_same_picture(tmp_path: Path, items: list[Item]) -> None:
    encode(tmp_path / "cache", items)
    moved = items[0].sources[0].rename(items[0].sources[0].with_name("renamed.png"))
    assert encode(tmp_path / "cache", [replace(items[0], sources=(moved,)), items[1]]) == 0


def test_what_comes_back_is_what_was_encoded(tmp_path: Path, items: list[Item]) -> None:
    base = TinyBase()
    fresh = base.encode_prompt("make it bright", [picture(1)])
    key = content_key("x")
    TensorCache(tmp_path).get(key, lambda: fresh)
    stored = TensorCache(tmp_path).get(key, lambda: pytest.fail("must come from the disk"))
    assert all(torch.equal(stored[name], value) for name, value in fresh.items())


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    cache, key = TensorCache(tmp_path), content_key("x")
    cache.get(key, lambda: {"a": torch.ones(2)})
    cache.path(key).write_bytes(b"half")
    assert torch.equal(TensorCache(tmp_path).get(key, lambda: {"a": torch.zeros(2)})["a"], torch.zeros(2))


def test_an_entry_that_is_cut_short_or_too_long_is_not_there(tmp_path: Path) -> None:
    cache, key = TensorCache(tmp_path), content_key("x")
    assert not cache.has(key)
    cache.get(key, lambda: {"a": torch.ones(200), "b": torch.ones(3)})
    assert cache.has(key)
    whole = cache.path(key).read_bytes()
    for damaged in (
        b"",
        whole[:7],
        whole[:40],
        whole[:-1],
        whole + b"x",
        b"\xff" * 8 + whole[8:],
        whole[:8] + b"?" * 300,
    ):
        cache.path(key).write_bytes(damaged)
        assert not cache.has(key)
    again = TensorCache(tmp_path)
    again.get(key, lambda: {"a": torch.zeros(1)})
    assert again.has(key) and again.computed == 1


def test_nothing_half_written_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("cldistill.storage.files.fsync_file", full)
    with pytest.raises(OSError, match="no space"):
        TensorCache(tmp_path).get(content_key("x"), lambda: {"a": torch.ones(2)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cached_example_does_not_read_its_source(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, base = TensorCache(tmp_path / "cache"), TinyBase()
    first = Encoder(base, cache).example(items[0], PROMPTS)
    again = Encoder(base, TensorCache(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(again, "source", lambda item: pytest.fail("reads the source"))
        example = again.example(items[0], PROMPTS)
    assert (example.shape, example.batch_key) == (first.shape, first.batch_key) == ((16, 48), (4, 4))


def test_what_nobody_prepared_is_encoded_and_the_encoders_leave_again(tmp_path: Path, items: list[Item]) -> None:
    base = TinyBase()
    encoder = Encoder(base, TensorCache(tmp_path / "cache"))
    encoder.ensure([(items[0], PROMPTS)])
    assert encoder.cache.computed == 4  # source, geometry, two prompts
    assert base._table is None
    base.load_encoders()
    encoder.ensure([(items[0], PROMPTS)])
    assert encoder.cache.computed == 4
    assert base._table is not None, "nothing was encoded, so nothing is to be dropped"


def test_memory_is_bounded_and_evicted_entries_come_back(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, memory_limit=100)
    for index in range(5):
        cache.get(content_key(index), lambda index=index: {"a": torch.full((20,), float(index))})  # type: ignore[misc]
    again = cache.get(content_key(0), lambda: pytest.fail("must come from the disk"))
    assert again["a"][0] == 0


def test_no_two_lists_of_parts_share_a_key() -> None:
    keys = {
        content_key("ab", "c"),
        content_key("a", "bc"),
        content_key("abc"),
        content_key("a", "b", "c"),
        content_key(1),
        content_key("1"),
    }
    assert len(keys) == 6


def test_without_guidance_the_unconditional_prompt_is_not_even_encoded(tmp_path: Path, items: list[Item]) -> None:
    cache = TensorCache(tmp_path / "cache")
    base = TinyBase()
    base.guidance_scale = base.target_guidance_scale = 1.0
    example = Encoder(base, cache).example(items[0], PROMPTS)
    example.teacher()
    before = cache.computed
    example.unconditional()
    assert cache.computed == before


def test_a_prompt_that_sees_no_pictures_is_encoded_once(tmp_path: Path, items: list[Item]) -> None:
    base = TinyBase()
    base.prompt_sees_pictures = False
    assert encode(tmp_path / "cache", items, base=base) == 8  # two items share their two prompts
