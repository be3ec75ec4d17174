"""LoRA files as they lie there: wrapped names, damaged values, configs of somebody else, and what is no adapter at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cldistill.adapters.files import fit, load_adapter
from cldistill.adapters.header import read_header
from cldistill.errors import CldistillError
from cldistill.records import BaseDescription
from cldistill.storage.headers import BITS

Write = Callable[..., Path]
NAME = "transformer_blocks.0.attn.to_q"


def pair(key: str = f"transformer.{NAME}", rank: int = 2, out: int = 32, wide: int = 32) -> dict[str, Tensor]:
    return {f"{key}.lora_A.weight": torch.ones(rank, wide), f"{key}.lora_B.weight": torch.ones(out, rank)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "key",
    [
        f"_orig_mod.{NAME}", f"transformer._orig_mod.{NAME}", f"_orig_mod.transformer.{NAME}",
        f"_fsdp_wrapped_module.{NAME}", f"model.base_model.model.{NAME}", f"base_model.model._orig_mod.{NAME}",
        "transformer_blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.attn.to_q",
        f"module._orig_mod.model.base_model.model.{NAME}", "_fsdp_wrapped_module.transformer_blocks.0._orig_mod.attn.to_q",
        "lora_unet__orig_mod_transformer_blocks_0_attn_to_q",
    ],
)  # fmt: skip
def test_wrapped_names_fit(key: str, write: Write, description: BaseDescription) -> None:
    fitted = fit(write(pair(key)), description.modules)
    assert fitted.report.modules == (NAME,)
    assert "_orig_mod" not in next(iter(fitted.header.modules))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_number_that_is_not_finite_is_refused_by_name(
    value: float, dtype: torch.dtype, write: Write, description: BaseDescription
) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in pair().items()}
    tensors[f"transformer.{NAME}.lora_B.weight"][31, 1] = value
    with pytest.raises(CldistillError, match=r"lora_B\.weight' holds NaN or infinity"):
        fit(write(tensors), description.modules)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_alpha_that_is_not_finite_is_refused(value: float, write: Write) -> None:
    with pytest.raises(CldistillError, match=f"an alpha is {value}"):
        read_header(write(pair() | {f"transformer.{NAME}.alpha": torch.tensor(value)}))


def test_alpha_0_is_told(write: Write, description: BaseDescription) -> None:
    path = write(pair() | {f"transformer.{NAME}.alpha": torch.tensor(0.0)})
    assert (
        str(fit(path, description.modules).report) == "1/1 modules, scale 0.0, of which those with alpha 0 do nothing"
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.uint8])
def test_integer_weights_are_refused(dtype: torch.dtype, write: Write) -> None:
    with pytest.raises(CldistillError, match="quantised or integers are not mounted"):
        read_header(write({key: tensor.to(dtype) for key, tensor in pair().items()}))


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "pointer that Git-LFS keeps"),
        (b"\n<!DOCTYPE html><html><title>Log in</title>", "web page that was saved under this name"),
        (b"<html>", "web page"),
        (b"\x80\x02}q\x00.", "pickled ones can run code"),
    ],
)
def test_what_is_no_adapter_is_called_what_it_is(begin: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(begin)
    with pytest.raises(CldistillError, match=words):
        read_header(path)


def test_pefts_file_under_another_name_keeps_the_alpha_of_the_config_beside_it(write: Write) -> None:
    path = write(pair(f"base_model.model.{NAME}"), "manga-v2.safetensors")
    (path.parent / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8}))
    assert read_header(path).scales == (4.0,)
    assert read_header(write(pair(), "other.safetensors")).scales == (1.0,)  # not peft's: the config is another file's


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [
        ("to_q", 5.0), (NAME, 5.0), (r"attn\.to_q", 5.0), (f"^{NAME}", 5.0), (f"^{NAME}$", 5.0), ("(to_k|to_q)", 5.0),
        ("to_k|to_q", 5.0), ("^to_q", 1.0), ("o_q", 1.0), ("to_k", 1.0), ("attn", 1.0),
    ],
)  # fmt: skip
def test_patterns_are_lists_of_names(pattern: str, scale: float, write: Write) -> None:
    config = {"transformer.lora_alpha": 2, "transformer.alpha_pattern": {pattern: 10}}
    assert read_header(write(pair(), lora_adapter_metadata=json.dumps(config))).scales == (scale,)


def test_the_first_pattern_that_fits_is_taken(write: Write) -> None:
    config = {"transformer.alpha_pattern": {"to_q": 4, f"^{NAME}": 8, "attn.to_q": 16}}
    assert read_header(write(pair(), lora_adapter_metadata=json.dumps(config))).scales == (2.0,)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*.*)*x", "(", "*", "(" * 500 + ")" * 500, "(x{1000}){1000}", r"\d+"])
def test_no_regular_expression_of_a_file_is_run(pattern: str, write: Write) -> None:
    config = {"transformer.alpha_pattern": {pattern: 10}}
    with pytest.raises(CldistillError, match="regular expression"):
        read_header(write(pair(), lora_adapter_metadata=json.dumps(config)))


def hostile(dice: random.Random, raw: bytes) -> bytes:
    """Return a file in which some one thing is not as it should be."""
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    one = dice.choice([key for key in header if key != "__metadata__"])
    odd = dice.choice(
        [None, 5, -1, 2**63, 2**70, 1.5, float("nan"), "x", "\x1b[31m", "\ud800", [], {}, [1], [[1]], True, ""]
    )
    kind = dice.randrange(8)
    if kind == 0:
        return raw[: dice.randrange(len(raw))]
    if kind == 1:
        flipped = bytearray(raw)
        flipped[dice.randrange(8 + size)] ^= 1 << dice.randrange(8)
        return bytes(flipped)
    if kind == 2:
        header[one][dice.choice(["dtype", "shape", "data_offsets"])] = odd
    elif kind == 3:
        header[one]["dtype"] = dice.choice([*BITS])
    elif kind == 4:
        header["__metadata__"] = dice.choice([odd, {"x": odd}, {"lora_adapter_metadata": json.dumps(odd)}])
    elif kind == 5:
        key = dice.choice(["lora_alpha", "alpha_pattern", "rank_pattern", "r", "use_rslora", "use_dora"])
        header["__metadata__"] = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": odd})}
    elif kind == 6:
        header[dice.choice(["", "x", "\x1b[2J", "x.lora_A" * 500, "module." * 1500 + "x.lora_A.weight", "\ud800"])] = (
            header.pop(one)
        )
    else:
        begin, end = header[one]["data_offsets"]
        header[one]["data_offsets"] = [begin + dice.choice([-4, 4]), end + dice.choice([-4, 0, 4])]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_hostile_files_are_refused_in_a_sentence_or_loaded(
    write: Write, description: BaseDescription, tmp_path: Path
) -> None:
    """A short part of the campaign: what fits can be loaded, and whatever does not is told without control characters."""
    dice, path = random.Random(0), tmp_path / "case.safetensors"
    whole = write(pair(), lora_adapter_metadata=json.dumps({"transformer.lora_alpha": 4})).read_bytes()
    refused = 0
    for _ in range(300):
        path.write_bytes(hostile(dice, whole))
        try:
            load_adapter(path, description.modules)
        except CldistillError as error:
            refused += 1
            assert str(error).replace("\n", "").isprintable() and len(str(error)) < 2000
    assert 150 < refused < 300


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__": {"x": ' + b"[" * 1_000_000,
        b"{" + b'"k":[],' * 1_500_000,
        b'{"a": "' + b"x" * 33_000_000 + b'"}',
    ],
    ids=["deep", "millions of keys", "too long"],
)
def test_headers_without_end_are_refused_at_once(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CldistillError, match="not a safetensors file, or a damaged one"):
        read_header(path)
