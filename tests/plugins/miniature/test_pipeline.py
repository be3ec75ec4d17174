"""What ships: the folder loads in the stock pipeline, edits held-out pictures, and says where it comes from."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline

from cldistill_plugins.miniature.build import art, evaluate
from cldistill_plugins.miniature.instructions import INSTRUCTIONS

FOLDER = Path(str(files("cldistill_plugins.miniature")))


@pytest.fixture(scope="module")
def pipeline() -> QwenImageEditPlusPipeline:
    torch.set_num_threads(1)
    return evaluate.load_pipeline(FOLDER / "pipeline")


@pytest.fixture(scope="module")
def provenance() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "pipeline" / "PROVENANCE.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    return evaluate.load_pictures(FOLDER / "pictures" / "held-out")


def test_it_is_the_stock_pipeline_with_its_real_classes(pipeline: QwenImageEditPlusPipeline) -> None:
    classes = {name: type(part).__name__ for name, part in pipeline.components.items()}
    assert classes == {
        "vae": "AutoencoderKLQwenImage",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "processor": "Qwen2VLProcessor",
        "transformer": "QwenImageTransformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    assert pipeline.scheduler.config.shift == 3.0
    assert not pipeline.scheduler.config.use_dynamic_shifting


def test_it_is_small_and_in_half_precision() -> None:
    weights = list((FOLDER / "pipeline").rglob("*.safetensors"))
    assert len(weights) == 3
    assert (
        sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        < 15e6
    )
    loaded = QwenImageEditPlusPipeline.from_pretrained(FOLDER / "pipeline")
    assert {parameter.dtype for parameter in loaded.transformer.parameters()} <= {torch.float16, torch.float32}


@pytest.mark.slow
def test_held_out_pictures_survive_the_vae(pipeline: QwenImageEditPlusPipeline, held_out: np.ndarray) -> None:
    assert evaluate.vae_psnr(pipeline, held_out[:16]) > 27


@pytest.mark.slow
def test_latents_are_normalised(pipeline: QwenImageEditPlusPipeline, held_out: np.ndarray) -> None:
    with torch.no_grad():
        frames = evaluate.to_tensor(held_out[:16]).unsqueeze(2)
        latents = pipeline._encode_vae_image(frames, generator=None)
    assert abs(float(latents.mean())) < 0.3
    assert 0.5 < float(latents.std()) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darker", "mirror", "invert"])
def test_a_held_out_edit_beats_the_source(name: str, pipeline: QwenImageEditPlusPipeline, held_out: np.ndarray) -> None:
    picture = held_out[5]
    truth = evaluate.reconstruct(pipeline, INSTRUCTIONS[name].apply(picture)[None])
    source = evaluate.reconstruct(pipeline, picture[None])
    output = evaluate.edit(pipeline, picture, INSTRUCTIONS[name].wordings[0], seed=0)
    assert (output - truth[0]).square().mean() * 2 < (source - truth).square().mean()


@pytest.mark.slow
def test_measuring_in_batches_gives_what_the_stock_pipeline_gives(
    pipeline: QwenImageEditPlusPipeline, held_out: np.ndarray
) -> None:
    prompts = ["blur it", "turn it into a line drawing"]
    together = evaluate.edit_batch(pipeline, held_out[:2], prompts, seeds=[3, 4])
    for index, prompt in enumerate(prompts):
        alone = evaluate.edit(pipeline, held_out[index], prompt, seed=3 + index)
        torch.testing.assert_close(together[index], alone, atol=1e-3, rtol=0)


def test_the_stock_constants_are_put_back(pipeline: QwenImageEditPlusPipeline, held_out: np.ndarray) -> None:
    with evaluate.miniature_sizes():
        assert evaluate.stock.VAE_IMAGE_SIZE == 128 * 128
    assert (evaluate.stock.CONDITION_IMAGE_SIZE, evaluate.stock.VAE_IMAGE_SIZE) == (384 * 384, 1024 * 1024)


def test_provenance_names_what_ships(provenance: dict[str, Any]) -> None:
    assert set(provenance["art"]) == {f"@iconify-json/{name}" for name in art.SETS}
    assert {source["licence"] for source in provenance["art"].values()} == {"Apache-2.0", "MIT"}
    codes = provenance["code_points"]
    assert not set(codes["train"]) & set(codes["held_out"])
    assert all(art.is_held_out(code) for code in codes["held_out"])
    assert not any(art.is_held_out(code) for code in codes["train"])
    assert provenance["counts"]["held_out_pictures"] == len(list((FOLDER / "pictures" / "held-out").glob("*.png")))
    assert all(stage["steps"] > 0 for stage in provenance["training"].values())


def test_the_figures_are_those_that_were_promised(provenance: dict[str, Any]) -> None:
    if "figures" not in provenance:
        pytest.skip(
            "the shipped weights were not measured yet: python -m cldistill_plugins.miniature.build --stage evaluate"
        )
    figures = provenance["figures"]
    assert figures["vae_psnr_db"] >= 28
    assert figures["mean_gain"] >= 4
    assert figures["least_gain"] >= 2
    assert set(figures["edits"]) == set(INSTRUCTIONS)


@pytest.mark.parametrize(("name", "count"), [("general", 160), ("general-held-out", 48)])
def test_the_general_instructions_point_at_pictures_that_ship(name: str, count: int) -> None:
    lines = [json.loads(line) for line in (FOLDER / "general" / f"{name}.jsonl").read_text().splitlines()]
    known = {wording: edit for edit, instruction in INSTRUCTIONS.items() for wording in instruction.wordings}
    assert len(lines) == count
    for line in lines:
        assert (FOLDER / "general" / line["image"]).resolve().is_file()
        assert line.get("edit", known[line["instruction"]]) == known[line["instruction"]]
