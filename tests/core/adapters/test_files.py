"""Every row of the table of key formats: what stock diffusers loads loads the same, and what it does not loads too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from cldistill.adapters.files import fit, load_adapter, match
from cldistill.adapters.header import read_header
from cldistill.adapters.slots import AdapterSlots
from cldistill.errors import AdapterFormatError
from cldistill.records import BaseDescription
from cldistill.storage.files import file_digest
from cldistill.weights import AdapterState, LokrWeights, LoraWeights

Write = Callable[..., Path]
Shapes = dict[str, tuple[int, int]]

A_B = ("lora_A.weight", "lora_B.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")

# name: prefix, flattened, parts, alpha tensors, format in words, whether stock diffusers loads it
ROWS: dict[str, tuple[str, bool, tuple[str, str], bool, str, bool]] = {
    "diffusers": ("transformer.", False, A_B, False, "transformer.*.lora_A/B", True),
    "ai-toolkit": ("diffusion_model.", False, A_B, False, "diffusion_model.*.lora_A/B", True),
    "ai-toolkit with alpha": ("diffusion_model.", False, A_B, True, "diffusion_model.*.lora_A/B + alpha", True),
    "comfyui": ("diffusion_model.", False, DOWN_UP, True, "diffusion_model.*.lora_down/up + alpha", True),
    "diffusion-pipe": ("diffusion_model.", False, DOWN_UP, False, "diffusion_model.*.lora_down/up", True),
    "kohya": ("lora_unet_", True, DOWN_UP, True, "lora_unet_*.lora_down/up + alpha", True),
    "musubi-tuner without alpha": ("lora_unet_", True, DOWN_UP, False, "lora_unet_*.lora_down/up", True),
    "lightning": ("", False, DOWN_UP, True, "(bare) *.lora_down/up + alpha", True),
    "diffsynth": ("", False, DEFAULT, False, "(bare) *.lora_A/B.default", True),
    "bare": ("", False, A_B, False, "(bare) *.lora_A/B", False),
    "bare down and up": ("", False, DOWN_UP, False, "(bare) *.lora_down/up", False),
    "peft": ("base_model.model.", False, A_B, False, "base_model.model.*.lora_A/B", False),
    "collectionlora": ("base_model.model.", False, DEFAULT, False, "base_model.model.*.lora_A/B.default", False),
    "transformer down and up": ("transformer.", False, DOWN_UP, True, "transformer.*.lora_down/up + alpha", False),
    "onetrainer": ("lora_transformer_", True, DOWN_UP, True, "lora_transformer_*.lora_down/up + alpha", False),
}
RANK, ALPHA = 4, 2.0


def spelled(row: str, lora: AdapterState) -> dict[str, Tensor]:
    prefix, flat, (down, up), alpha, _, _ = ROWS[row]
    tensors = {}
    for name, weights in lora.modules.items():
        assert isinstance(weights, LoraWeights)
        key = prefix + (name.replace(".", "_") if flat else name)
        tensors |= {f"{key}.{down}": weights.down, f"{key}.{up}": weights.up}
        if alpha:
            tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    return tensors


def delta(weights: LoraWeights | LokrWeights) -> Tensor:
    if isinstance(weights, LoraWeights):
        return weights.scale * weights.up.float() @ weights.down.float()
    return weights.scale * torch.kron(weights.w1.float(), weights.w2.float())


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_every_format_loads_all_modules_at_its_scale(
    row: str, lora: Callable[..., AdapterState], shapes: Shapes, write: Write, description: BaseDescription
) -> None:
    made = lora(list(shapes), RANK, float(RANK))  # top-level modules such as img_in and norm_out.linear included
    path = write(spelled(row, made))
    scale = ALPHA / RANK if ROWS[row][3] else 1.0
    header = read_header(path)
    assert header.format == ROWS[row][4]
    assert (header.ranks, header.scales) == ((RANK,), (scale,))
    report = fit(path, description.modules).report
    assert str(report) == f"{len(shapes)}/{len(shapes)} modules, scale {scale}"
    loaded = load_adapter(path, shapes)
    assert loaded.modules.keys() == shapes.keys()
    for name, weights in loaded.modules.items():
        torch.testing.assert_close(delta(weights), scale * delta(made.modules[name]))


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row, spec in ROWS.items() if spec[5]])
def test_what_stock_diffusers_loads_loads_the_same(
    row: str, lora: Callable[..., AdapterState], shapes: Shapes, write: Write
) -> None:
    path = write(spelled(row, lora(list(shapes), RANK, float(RANK))))
    stock = QwenImageEditPlusPipeline.lora_state_dict(path)
    assert len(stock) == 2 * len(shapes)
    for name, weights in load_adapter(path, shapes).modules.items():
        a, b = stock[f"transformer.{name}.lora_A.weight"], stock[f"transformer.{name}.lora_B.weight"]
        torch.testing.assert_close(delta(weights), b @ a)


def stock_output(
    backbone: nn.Module, forward: Callable[[], Tensor], tensors: dict[str, Tensor], **more: object
) -> Tensor:
    assert isinstance(backbone, QwenImageTransformer2DModel)
    backbone.load_lora_adapter(tensors, adapter_name="stock", **more)
    with torch.no_grad():
        output = forward()
    backbone.unload_lora()
    return output


def our_output(backbone: nn.Module, forward: Callable[[], Tensor], state: AdapterState) -> Tensor:
    slots = AdapterSlots(backbone)
    slots.mount(state)
    with slots.scope("teacher"), torch.no_grad():
        output = forward()
    slots.release()
    return output


def test_alpha_and_patterns_come_from_diffusers_header(
    backbone: nn.Module, forward: Callable[[], Tensor], lora: Callable[..., AdapterState], targets: list[str],
    shapes: Shapes, write: Write,
) -> None:  # fmt: skip
    # r = 4 and alpha = 16 is scale 4; one module has a rank of its own (2: scale 8), another an alpha (2: scale 0.5).
    odd, soft = "transformer_blocks.1.attn.to_q", "transformer_blocks.0.img_mlp.net.2"
    tensors = spelled("diffusers", lora(targets, 4, 4.0)) | spelled("diffusers", lora([odd], 2, 2.0))
    config = {
        "r": 4, "lora_alpha": 16, "rank_pattern": {odd: 2}, "alpha_pattern": {soft: 2}, "target_modules": targets,
    }  # fmt: skip
    path = write(tensors, lora_adapter_metadata=json.dumps({f"transformer.{k}": v for k, v in config.items()}))
    header = read_header(path)
    assert header.scales == (0.5, 4.0, 8.0)
    assert header.modules[odd].scale == 8.0
    assert header.modules[soft].scale == 0.5
    assert str(match(header, shapes)).endswith("scale 0.5 to 8")
    stock, metadata = QwenImageEditPlusPipeline.lora_state_dict(path, return_lora_metadata=True)
    want = stock_output(backbone, forward, stock, metadata=metadata)
    torch.testing.assert_close(our_output(backbone, forward, load_adapter(path, shapes)), want)


def test_without_the_header_scale_is_one(lora: Callable[..., AdapterState], targets: list[str], write: Write) -> None:
    assert read_header(write(spelled("diffusers", lora(targets, 4, 16.0)))).scales == (1.0,)


def test_rslora_divides_by_the_root_of_the_rank(
    lora: Callable[..., AdapterState], targets: list[str], write: Write
) -> None:
    metadata = json.dumps({"transformer.lora_alpha": 8, "transformer.r": 4, "transformer.use_rslora": True})
    assert read_header(write(spelled("diffusers", lora(targets, 4)), lora_adapter_metadata=metadata)).scales == (4.0,)


def test_pefts_config_beside_its_file_gives_alpha(
    lora: Callable[..., AdapterState], targets: list[str], write: Write
) -> None:
    path = write(spelled("peft", lora(targets, 4)), "adapter_model.safetensors")
    (path.parent / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "alpha_pattern": {}}))
    assert read_header(path.parent).scales == (2.0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_alpha_tensors_of_every_type(
    dtype: torch.dtype, lora: Callable[..., AdapterState], targets: list[str], write: Write
) -> None:
    tensors = spelled("kohya", lora(targets, 4))
    tensors |= {key: torch.tensor(6, dtype=dtype) for key in tensors if key.endswith(".alpha")}
    assert read_header(write(tensors)).scales == (1.5,)


def lokr_tensors(shapes: Shapes, targets: list[str], prefix: str, flat: bool, alpha: float | None) -> dict[str, Tensor]:
    """Full w1 (4 x 4), w2 decomposed at rank 2."""
    tensors = {}
    for index, name in enumerate(targets):
        out, wide = shapes[name]
        key = prefix + (name.replace(".", "_") if flat else name)
        generator = torch.Generator().manual_seed(index)
        tensors[f"{key}.lokr_w1"] = 0.3 * torch.randn(4, 4, generator=generator)
        tensors[f"{key}.lokr_w2_a"] = 0.3 * torch.randn(out // 4, 2, generator=generator)
        tensors[f"{key}.lokr_w2_b"] = 0.3 * torch.randn(2, wide // 4, generator=generator)
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_", "lycoris_", "transformer."])
def test_lokr_is_mounted_exactly_under_every_prefix(
    prefix: str, backbone: nn.Module, forward: Callable[[], Tensor], shapes: Shapes, targets: list[str], write: Write
) -> None:
    path = write(lokr_tensors(shapes, targets, prefix, prefix.endswith("_"), alpha=None))
    state = load_adapter(path, shapes)
    assert read_header(path).ranks == (2,)
    assert len(state.modules) == len(targets)
    # Stock loads one spelling of four, through peft's own LoKr layers: the same network.
    stock = lokr_tensors(shapes, targets, "transformer.", False, alpha=None)
    want = stock_output(backbone, forward, stock)
    torch.testing.assert_close(our_output(backbone, forward, state), want)


def test_lokr_scale_is_alpha_over_rank_and_one_where_nothing_is_decomposed(
    shapes: Shapes, targets: list[str], write: Write
) -> None:
    assert read_header(write(lokr_tensors(shapes, targets, "lycoris_", True, alpha=1.0))).scales == (0.5,)
    whole = {"diffusion_model.x.lokr_w1": torch.ones(2, 2), "diffusion_model.x.lokr_w2": torch.ones(4, 3)}
    header = read_header(write(whole | {"diffusion_model.x.alpha": torch.tensor(1e10)}))
    assert (header.scales, header.modules["x"].shape, header.ranks) == ((1.0,), (8, 6), (3,))


def test_names_are_looked_up_in_the_base_not_guessed(write: Write) -> None:
    # No rule over underscores can tell to_q from to.q; and a base may call its own modules "transformer.".
    shapes = {"transformer.to_q": (3, 3), "blocks.0.a_b.to_q": (3, 3)}
    tensors = {}
    for key in ("lora_unet_transformer_to_q", "lora_unet_blocks_0_a_b_to_q"):
        tensors |= {f"{key}.lora_down.weight": torch.ones(1, 3), f"{key}.lora_up.weight": torch.ones(3, 1)}
    assert load_adapter(write(tensors), shapes).modules.keys() == shapes.keys()
    dotted = {"transformer.to_q.lora_A.weight": torch.ones(1, 3), "transformer.to_q.lora_B.weight": torch.ones(3, 1)}
    assert list(load_adapter(write(dotted), shapes).modules) == ["transformer.to_q"]


def test_scaled_and_digest(lora: Callable[..., AdapterState], targets: list[str], shapes: Shapes, write: Write) -> None:
    path = write(spelled("diffusers", lora(targets, 4)))
    state = load_adapter(path, shapes)
    assert state.digest == file_digest(path)
    half = state.scaled(0.5)
    assert half.digest != state.digest
    assert state.scaled(1.0) is state
    torch.testing.assert_close(delta(half.modules[targets[0]]), 0.5 * delta(state.modules[targets[0]]))
    assert len(load_file(path)) == 2 * len(targets)


@pytest.mark.slow
def test_headers_are_read_without_torch(lora: Callable[..., AdapterState], targets: list[str], write: Write) -> None:
    path = write(spelled("kohya", lora(targets, 4)))
    code = (
        "import sys, pathlib\n"
        "from cldistill.adapters.files import match\nfrom cldistill.adapters.header import read_header\n"
        "from cldistill_plugins.inspection.description import inspect_file\n"
        f"inspect_file(pathlib.Path({str(path)!r}))\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lokr_over_fused_rows_is_split_exactly_or_refused(write: Write) -> None:
    shapes, names = {"q": (8, 6), "k": (8, 6), "v": (8, 6)}, {"attn.qkv": ("q", "k", "v")}
    for rows, fits in ((6, True), (2, False)):  # blocks of 4 rows divide 8, blocks of 12 do not
        w1, w2 = torch.randn(rows, 3), torch.randn(24 // rows, 2)
        file = write({"diffusion_model.attn.qkv.lokr_w1": w1, "diffusion_model.attn.qkv.lokr_w2": w2})
        if not fits:
            with pytest.raises(AdapterFormatError, match="LoKr over 3 modules"):
                load_adapter(file, shapes, names)
            continue
        found = load_adapter(file, shapes, names).modules
        parts = [found[name] for name in "qkv"]
        assert all(isinstance(part, LokrWeights) for part in parts)
        split = torch.cat([part.scale * torch.kron(part.w1, part.w2) for part in parts])  # type: ignore[union-attr]
        assert torch.allclose(split, torch.kron(w1, w2))
