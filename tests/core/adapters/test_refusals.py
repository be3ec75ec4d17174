"""Adapter files that cannot be used: the message says what is wrong, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cldistill.adapters.files import fit, load_adapter, match
from cldistill.adapters.header import read_header
from cldistill.errors import AdapterFormatError
from cldistill.records import BaseDescription

Write = Callable[..., Path]
Shapes = dict[str, tuple[int, int]]
NAME = "transformer_blocks.0.attn.to_q"


def pair(name: str = NAME, rank: int = 2, out: int = 32, wide: int = 32) -> dict[str, Tensor]:
    return {
        f"transformer.{name}.lora_A.weight": torch.ones(rank, wide),
        f"transformer.{name}.lora_B.weight": torch.ones(out, rank),
    }


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({f"transformer.{NAME}.dora_scale": torch.ones(32)}, "DoRA"),
        ({f"transformer.{NAME}.lora_magnitude_vector": torch.ones(32)}, "DoRA"),
        ({f"transformer.{NAME}.lora_magnitude_vector.default.weight": torch.ones(32)}, "DoRA"),
        ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
        ({f"diffusion_model.{NAME}.diff": torch.ones(32, 32)}, "full weight differences"),
        ({f"transformer.{NAME}.lora_B.bias": torch.ones(32)}, "biases"),
        ({"lora_unet_x.lokr_t2": torch.ones(2, 2)}, "Tucker"),
    ],
)
def test_what_would_be_mounted_wrongly_is_refused(extra: dict[str, Tensor], kind: str, write: Write) -> None:
    # Stock diffusers drops dora_scale and loads the rest: another network than the one that was trained.
    path = write(pair() | extra)
    with pytest.raises(AdapterFormatError, match=kind) as error:
        read_header(path)
    assert str(path) in str(error.value)
    assert "`cldistill convert`" in str(error.value)


def test_dora_by_its_config_is_refused(write: Write) -> None:
    path = write(pair(), lora_adapter_metadata=json.dumps({"transformer.use_dora": True}))
    with pytest.raises(AdapterFormatError, match="use_dora"):
        read_header(path)


def test_a_module_that_the_base_lacks(write: Write, description: BaseDescription, shapes: Shapes) -> None:
    path = write(pair() | pair("transformer_blocks.7.attn.to_q"))
    with pytest.raises(AdapterFormatError) as error:
        fit(path, description.modules)
    message = str(error.value)
    assert f"{path}: 1 of 2 modules are not in the base" in message
    assert "'transformer_blocks.7.attn.to_q'" in message
    assert "did you mean" in message
    with pytest.raises(AdapterFormatError, match="1 of 2 modules"):
        load_adapter(path, shapes)


def test_another_shape_names_both(write: Write, description: BaseDescription, shapes: Shapes) -> None:
    path = write(pair(out=3072, wide=3072))
    with pytest.raises(AdapterFormatError) as error:
        fit(path, description.modules)
    assert f"{NAME!r} is 3072 x 3072 (out x in) in the file and 32 x 32 in the base" in str(error.value)
    assert str(path) in str(error.value)
    report = match(read_header(path), shapes)
    assert (report.fits, report.covered, report.total) == (False, 0, 1)
    assert report.mismatched == {NAME: ((3072, 3072), (32, 32))}


@pytest.mark.parametrize("prefix", ["text_encoder.layers.0.q_proj", "lora_te1_layers_0_q_proj"])
def test_a_text_encoders_part_is_left_out_with_a_line(prefix: str, write: Write, description: BaseDescription) -> None:
    part = {f"{prefix}.lora_A.weight": torch.ones(2, 8), f"{prefix}.lora_B.weight": torch.ones(8, 2)}
    report = fit(write(pair() | part), description.modules).report
    assert str(report) == "1/1 modules, scale 1.0; its text encoder's part (2 tensors) is left out"
    with pytest.raises(AdapterFormatError, match="adapts a text encoder alone"):
        read_header(write(part))


def test_one_module_in_two_spellings(write: Write, shapes: Shapes) -> None:
    flat = "lora_unet_" + NAME.replace(".", "_")
    twice = pair() | {f"{flat}.lora_down.weight": torch.ones(2, 32), f"{flat}.lora_up.weight": torch.ones(32, 2)}
    with pytest.raises(AdapterFormatError, match="several modules of the file are the base's"):
        load_adapter(write(twice), shapes)
    bare = pair() | {key.removeprefix("transformer."): value for key, value in pair().items()}
    with pytest.raises(AdapterFormatError, match="appears twice"):
        read_header(write(bare))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"transformer.x.lora_A.weight": torch.ones(2, 8)}, "no partner"),
        ({"transformer.x.lokr_w1": torch.ones(2, 2)}, "no partner"),
        (pair("x") | {"transformer.x.lora_B.weight": torch.ones(8, 3)}, "differ in rank"),
        ({"x.lora_down.weight": torch.ones(2, 8, 1, 1), "x.lora_up.weight": torch.ones(8, 2, 1, 1)}, "only linear"),
        ({"blocks.0.weight": torch.ones(2, 2)}, "no part of a LoRA"),
        (pair("x") | {"other.alpha": torch.tensor(2.0)}, "no partner"),
        (pair("x") | {"transformer.x.alpha": torch.ones(2, dtype=torch.float32)}, "not one number"),
        (
            {f"x.{part}.{name}.weight": torch.ones(2, 2) for part in ("lora_A", "lora_B") for name in "ab"},
            "one adapter",
        ),
    ],
)
def test_broken_contents(tensors: dict[str, Tensor], words: str, write: Write) -> None:
    path = write(tensors)
    with pytest.raises(AdapterFormatError, match=words) as error:
        read_header(path)
    assert str(path) in str(error.value)


def test_broken_files(tmp_path: Path, write: Write) -> None:
    whole = write(pair()).read_bytes()
    cases = {"pickle.safetensors": b"\x80\x02}q\x00.", "cut.safetensors": whole[:-10], "header.safetensors": whole[:40]}
    cases |= {"empty.safetensors": b"", "json.safetensors": b"\x04" + bytes(7) + b"nope" + bytes(64)}
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(AdapterFormatError, match="not a safetensors file, or a damaged one"):
            read_header(path)
    with pytest.raises(AdapterFormatError, match="no such adapter file"):
        read_header(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("lacking", ["dtype", "shape", "data_offsets"])
def test_a_tensor_whose_entry_is_not_whole(tmp_path: Path, write: Write, lacking: str) -> None:
    whole = write(pair()).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    entries = json.loads(whole[8 : 8 + size])
    for entry in entries.values():
        entry.pop(lacking, None)
    header = json.dumps(entries).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])
    with pytest.raises(AdapterFormatError, match=rf"odd\.safetensors: not .*a tensor has no {lacking}\); download"):
        read_header(path)


def test_folders(tmp_path: Path, write: Write) -> None:
    with pytest.raises(AdapterFormatError, match=r"holds no \.safetensors"):
        read_header(tmp_path)
    path = write(pair())
    assert read_header(tmp_path).path == path
    write(pair(), "second.safetensors")
    with pytest.raises(AdapterFormatError, match="holds several files"):
        read_header(tmp_path)
    named = write(pair(), "pytorch_lora_weights.safetensors")
    assert read_header(tmp_path).path == named
