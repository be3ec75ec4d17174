"""Every NaN and infinity is found, in every type, and nothing else is taken for one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cldistill.storage import files, finite
from cldistill.storage.finite import first_not_finite

TYPES = {
    "F64": (torch.float64, torch.int64), "F32": (torch.float32, torch.int32), "BF16": (torch.bfloat16, torch.int16),
    "F16": (torch.float16, torch.int16), "F8_E5M2": (torch.float8_e5m2, torch.int8),
    "F8_E4M3": (torch.float8_e4m3fn, torch.int8),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", TYPES)
def test_it_agrees_with_torch_on_random_bits(name: str) -> None:
    dtype, bits = TYPES[name]
    info = torch.iinfo(bits)
    every = torch.randint(info.min, info.max, (4000,), dtype=bits, generator=torch.Generator().manual_seed(0)).view(
        dtype
    )
    edges = torch.tensor(
        [0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny], dtype=torch.float64
    )
    values = torch.cat([every, edges.to(dtype)])
    is_bad = partial(finite._is_bad, name)
    for index, good in enumerate(torch.isfinite(values.float() if dtype.itemsize == 1 else values).tolist()):
        assert is_bad(bytes(values[index : index + 1].view(torch.uint8).tolist())) is not good
    good = values[torch.isfinite(values.double())]
    assert not is_bad(bytes(good.view(torch.uint8).tolist()))


def test_one_bad_value_anywhere_is_named_and_good_files_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "CHUNK", 64)
    monkeypatch.setattr(files, "NOTED", 0)
    tensors = {name: torch.ones(50) for name in "abc"}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    assert first_not_finite(path) is None
    assert len(list((tmp_path / "cache/finite").iterdir())) == 1
    tensors["b"][37] = float("nan")
    other = tmp_path / "y.safetensors"
    save_file(tensors, other)
    assert first_not_finite(other) == "b"
    assert len(list((tmp_path / "cache/finite").iterdir())) == 2
