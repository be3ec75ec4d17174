"""``convert``: exact where a LoRA of that rank can be, else nearest; errors are true, and nothing is dropped silently."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from cldistill.adapters.files import load_adapter
from cldistill.cli.main import app
from cldistill.errors import AdapterFormatError
from cldistill.weights import LoraWeights
from cldistill_plugins.converting.convert import Converted, convert_file
from cldistill_plugins.converting.factors import nearest, of_matrix
from cldistill_plugins.converting.read import BaseWeights

Convert = Callable[..., tuple[Converted, dict[str, Tensor]]]
OUT, IN = 12, 8
SHAPES = {name: (OUT, IN) for name in ("block.to_q", "block.to_k", "block.to_v", "block.to_out")}
draw = torch.Generator().manual_seed(0)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=draw)


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Write tensors as a file, convert it, and return what came of it, with each module's difference as it is mounted."""
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))

    def run(
        tensors: dict[str, Tensor], rank: int, base: BaseWeights | None = None, **metadata: str
    ) -> tuple[Converted, dict[str, Tensor]]:
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, tmp_path / "in.safetensors", metadata or None
        )
        done = convert_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", rank, base)
        deltas = {}
        for name, weights in load_adapter(done.output, SHAPES).modules.items():
            assert isinstance(weights, LoraWeights) and weights.rank <= rank
            deltas[name] = weights.scale * weights.up @ weights.down
        return done, deltas

    return run


def loha(rank: int = 2) -> dict[str, Tensor]:
    parts = {"hada_w1_a": (OUT, rank), "hada_w1_b": (rank, IN), "hada_w2_a": (OUT, rank), "hada_w2_b": (rank, IN)}
    return {part: noise(*shape) for part, shape in parts.items()}


def test_a_loha_is_exact_from_the_product_of_its_ranks_on(convert: Convert) -> None:
    parts = loha()
    truth = 0.5 * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    tensors = {f"lycoris_block_to_q.{part}": value for part, value in parts.items()}
    tensors["lycoris_block_to_q.alpha"] = torch.tensor(1.0)
    done, deltas = convert(tensors, 4)
    torch.testing.assert_close(deltas["block.to_q"], truth)
    assert (done.error, done.exact) == (0.0, 1)
    done, deltas = convert(tensors, 2)
    best = torch.linalg.svdvals(truth)[2:].norm() / truth.norm()  # Eckart and Young
    assert done.error == pytest.approx(float(best), rel=1e-4)
    assert float((deltas["block.to_q"] - truth).norm() / truth.norm()) == pytest.approx(float(best), rel=1e-4)


def test_a_full_difference_is_the_nearest_lora_and_its_bias_is_told(convert: Convert) -> None:
    truth = noise(OUT, IN)
    tensors = {"diffusion_model.block.to_q.diff": truth, "diffusion_model.block.to_q.diff_b": noise(OUT)}
    done, deltas = convert(tensors, IN)
    torch.testing.assert_close(deltas["block.to_q"], truth, atol=1e-5, rtol=1e-5)
    assert any("1 differences of biases" in line and "diff_b" in line for line in done.lines())
    done, deltas = convert(tensors, 3)
    lost = float((deltas["block.to_q"] - truth).norm() / truth.norm())
    assert done.error == pytest.approx(lost, rel=1e-4) and done.error > 0.1
    with safe_open(done.output, framework="pt") as file:
        assert json.loads(file.metadata()["cldistill.converted"])["relative_error"] == pytest.approx(done.error)


def test_a_fused_projection_comes_apart_exactly(convert: Convert) -> None:
    down, up = noise(2, IN), noise(3 * OUT, 2)
    done, deltas = convert(
        {"transformer.block.to_qkv.lora_A.weight": down, "transformer.block.to_qkv.lora_B.weight": up}, 2,
        lora_adapter_metadata=json.dumps({"transformer.lora_alpha": 6, "transformer.r": 2}),
    )  # fmt: skip
    for index, name in enumerate(("to_q", "to_k", "to_v")):
        torch.testing.assert_close(deltas[f"block.{name}"], 3.0 * up[index * OUT : (index + 1) * OUT] @ down)
    assert done.error == 0.0 and dict(done.kinds) == {"LoRA": 3}


@pytest.mark.parametrize("by_input", [False, True])
def test_a_dora_needs_the_base_and_is_what_it_computes(by_input: bool, convert: Convert, tmp_path: Path) -> None:
    weight, down, up = noise(OUT, IN), noise(2, IN), noise(OUT, 2)
    magnitude = noise(1, IN).abs() if by_input else noise(OUT, 1).abs()
    tensors = {"block.to_q.lora_down.weight": down, "block.to_q.lora_up.weight": up, "block.to_q.dora_scale": magnitude}
    with pytest.raises(AdapterFormatError, match="--base"):
        convert(tensors, 8)
    (tmp_path / "base/transformer").mkdir(parents=True)
    save_file({"block.to_q.weight": weight}, tmp_path / "base/transformer/model.safetensors")
    _, deltas = convert(tensors, 8, BaseWeights(tmp_path / "base"))
    moved = weight + up @ down
    truth = magnitude * moved / moved.norm(dim=0 if by_input else 1, keepdim=True) - weight
    torch.testing.assert_close(deltas["block.to_q"], truth, atol=1e-5, rtol=1e-5)


def test_pefts_dora_with_its_config(convert: Convert, tmp_path: Path) -> None:
    from peft.tuners.lora.dora import DoraLinearLayer

    linear = torch.nn.Linear(IN, OUT, bias=False)
    down, up, magnitude = noise(2, IN), noise(OUT, 2), noise(OUT).abs()
    layer = DoraLinearLayer(fan_in_fan_out=False)
    norm = layer.get_weight_norm(linear.weight.detach(), up @ down, 1.0)
    truth = (magnitude / norm)[:, None] * (linear.weight.detach() + up @ down) - linear.weight.detach()
    (tmp_path / "base").mkdir()
    save_file({"block.to_q.weight": linear.weight.detach()}, tmp_path / "base/model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2, "use_dora": True}))
    key = "base_model.model.block.to_q"
    tensors = {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up, f"{key}.lora_magnitude_vector": magnitude}
    _, deltas = convert(tensors, 8, BaseWeights(tmp_path / "base"))
    torch.testing.assert_close(deltas["block.to_q"], truth, atol=1e-5, rtol=1e-5)


def test_a_lokr_becomes_a_lora(convert: Convert) -> None:
    w1, w2 = noise(3, 2), noise(4, 4)
    _, deltas = convert({"lycoris_block_to_out.lokr_w1": w1, "lycoris_block_to_out.lokr_w2": w2}, 8)
    torch.testing.assert_close(deltas["block.to_out"], torch.kron(w1, w2), atol=1e-5, rtol=1e-5)


def test_the_nearest_of_many_ranks() -> None:
    for shape in ((5, 9), (9, 5)):
        delta = noise(*shape)
        values = torch.linalg.svdvals(delta)
        for rank in range(1, 6):
            found = nearest(of_matrix(delta), rank)
            assert found.error == pytest.approx(float(values[rank:].norm()), abs=1e-4)
            assert found.size == pytest.approx(float(delta.norm()), rel=1e-4)
            torch.testing.assert_close(
                (delta - found.up @ found.down).norm(), torch.tensor(found.error), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"block.to_q.hada_w1_a": torch.ones(4, 2)}, "not whole, or mixes kinds"),
        ({"block.to_q.hada_t1": torch.ones(4, 2)}, "no kind of adapter"),
        ({"block.to_q.diff": torch.ones(4, 2, 3, 3)}, "no linear module"),
        ({"block.to_q.diff": torch.full((4, 2), float("nan"))}, "NaN or infinity"),
        ({"block.to_q.diff_b": torch.ones(4)}, "no difference of a linear module"),
    ],
)
def test_what_cannot_be_converted(tensors: dict[str, Tensor], words: str, convert: Convert) -> None:
    with pytest.raises(AdapterFormatError, match=words):
        convert(tensors, 4)


LORA = {"block.to_q.lora_A.weight": torch.ones(4, IN), "block.to_q.lora_B.weight": torch.ones(OUT, 4)}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (LORA | {"block.to_q.lora_B.weight": torch.ones(OUT, 3)}, "'block.to_q' do not fit one another: .*up 12 x 3"),
        (LORA | {"block.to_q.alpha": torch.ones(2)}, "do not fit one another: alpha 2"),
        ({"block.to_q.lora_A.weight": torch.ones(0, IN), "block.to_q.lora_B.weight": torch.ones(OUT, 0)}, "down 0 x 8"),
        ({"block.to_q.diff": torch.ones(0, 0)}, "do not fit one another"),
        ({f"block.to_q.{k}": v for k, v in loha().items()} | {"block.to_q.hada_w2_a": torch.ones(5, 2)}, "w2_a 5 x 2"),
        ({f"block.to_q.{k}": v[:0] for k, v in loha().items()}, "do not fit one another"),
        ({f"block.to_q.lokr_w1_{s}": torch.ones(4, 2) for s in "ab"} | {"block.to_q.lokr_w2": torch.ones(2, 2)}, "lokr"),
        (
            {"block.to_q.lokr_w1_a": torch.ones(50_000, 1), "block.to_q.lokr_w1_b": torch.ones(1, 50_000),
             "block.to_q.lokr_w2": torch.ones(2, 2)},
            "larger than that of any model",
        ),
        (
            {"block.to_q.lokr_w1": torch.ones(500, 100), "block.to_q.lokr_w2": torch.ones(500, 500)},
            "larger than that of any model",
        ),
        ({key: torch.full_like(value, 3e38) for key, value in LORA.items()}, "so large that their product has none"),
        ({key: value.int() for key, value in LORA.items()}, "holds integers"),
        (LORA | {f"base_model.model.{key}": value + 1 for key, value in LORA.items()}, "save each once"),
        (
            LORA | {"block.to_qkv.lora_A.weight": torch.ones(4, IN), "block.to_qkv.lora_B.weight": torch.ones(3 * OUT, 4)},
            "several modules of the file are 'block.to_q'",
        ),
    ],
)  # fmt: skip
def test_parts_that_make_no_difference_are_refused(tensors: dict[str, Tensor], words: str, convert: Convert) -> None:
    with pytest.raises(AdapterFormatError, match=words):
        convert(tensors, 2)


def test_a_base_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(AdapterFormatError, match="holds no safetensors files"):
        BaseWeights(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(AdapterFormatError, match=r"x\.safetensors: is no safetensors file that can be read"):
        BaseWeights(tmp_path)


def test_the_command_says_how_near_it_is_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    save_file({"block.to_q.diff": noise(OUT, IN)}, tmp_path / "in.safetensors")
    words = ["convert", str(tmp_path / "in.safetensors"), "-o", str(tmp_path / "out.safetensors"), "--rank", "2"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "1 modules of rank 2 at most, from 1 difference" in done.output and "Relative error" in done.output
    with pytest.raises(AdapterFormatError, match="is there already"):
        CliRunner().invoke(app, words, catch_exceptions=False)
