"""What an export writes, that stock diffusers gives the same picture from it, and that a bad one is never written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors import safe_open

from cldistill.adapters.files import load_adapter
from cldistill.adapters.inject import linear_shapes
from cldistill.collection import export
from cldistill.collection.index import read_index
from cldistill.errors import CollectionError
from cldistill.sampling import samplers as sample
from cldistill.schedule import Schedule
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, stock_areas

FILES = [
    "README.md", "effects.json", "manifest.resolved.yaml", "pytorch_lora_weights.safetensors", "scheduler_config.json"
]  # fmt: skip


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every picture that is made, in [0, 1] as the VAE gives it: 8 bits turn 1e-7 into 4e-3 where it crosses an edge."""
    seen: list[np.ndarray] = []
    round_off = VaeImageProcessor.numpy_to_pil

    def keep(images: np.ndarray) -> Any:
        seen.append(images)
        return round_off(images)

    monkeypatch.setattr(VaeImageProcessor, "numpy_to_pil", staticmethod(keep))
    return seen


def furthest(pictures: list[np.ndarray]) -> float:
    """The largest difference of a value in the first two."""
    return float(np.abs(pictures[0] - pictures[1]).max())


def difference(first: Image.Image, second: Image.Image) -> float:
    assert first.size == second.size
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).max()) / 255.0


def stock_picture(
    pipeline: Path, collection: Path, photo: Image.Image, prompt: str, size: tuple[int, int],
    areas: tuple[int, int] = (TINY_RESOLUTION, TINY_VL_RESOLUTION), **call: Any,
) -> Image.Image:  # fmt: skip
    pipe = QwenImageEditPlusPipeline.from_pretrained(
        pipeline, torch_dtype=torch.float32
    )  # the miniature is stored in fp16
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(collection, weight_name="pytorch_lora_weights.safetensors")
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(collection)
    torch.manual_seed(7)
    with stock_areas(*areas):
        result = pipe(photo, prompt, width=size[0], height=size[1], num_inference_steps=8, true_cfg_scale=1.0, **call)
    picture: Image.Image = result.images[0]
    return picture


def our_picture(made: Any, photo: Image.Image, prompt: str, schedule: Schedule) -> Image.Image:
    base = made.base
    encoded = base.encode_source([photo])
    source, text = base.collate([encoded]), base.collate([base.encode_prompt(prompt, [photo])])
    rows, columns = encoded["shapes"][0].tolist()
    torch.manual_seed(7)
    # the stock pipeline draws its first noise as an unpacked latent, and its scheduler packed ones
    first = torch.randn(1, 1, 16, rows * 2, columns * 2)
    packed = QwenImageEditPlusPipeline._pack_latents(first, 1, 16, rows * 2, columns * 2)
    with torch.no_grad(), made.slots.scope("student"):
        x0 = sample.few_step(
            sample.predictor(base, source, text), schedule, lambda k: torch.randn(packed.shape) if k else packed
        )
    picture: Image.Image = base.decode(x0, source)[0]
    return picture


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "stochastic"), [(4.0, True), (16.0, True), (4.0, False)])
def test_the_stock_pipeline_gives_the_same_picture(
    make: Callable[..., Any], pipeline: Path, tmp_path: Path, photo: Image.Image, alpha: float, stochastic: bool,
    unrounded: list[np.ndarray],
) -> None:  # fmt: skip
    made, schedule = make(alpha=alpha), Schedule(8, 3.0, stochastic=stochastic)
    folder = made.export(tmp_path / "collection", schedule=schedule)
    prompt = "vexo manga drawing with screen tone"
    assert read_index(folder).schedule == schedule
    assert json.loads((folder / "scheduler_config.json").read_text())["stochastic_sampling"] is stochastic
    assert f"sampler `{'lcm' if stochastic else 'euler'}`, scheduler `simple`" in (folder / "README.md").read_text()
    ours = our_picture(made, photo, prompt, schedule)
    theirs = stock_picture(pipeline, folder, photo, prompt, ours.size)
    assert ours.size == theirs.size and furthest(unrounded) <= 1e-3
    assert difference(ours, our_picture(make(alpha=1e-9), photo, prompt, Schedule(8, 3.0))) > 0.05


@pytest.mark.slow
def test_integer_timesteps_reach_the_stock_pipeline_as_sigmas(
    make: Callable[..., Any], pipeline: Path, tmp_path: Path, photo: Image.Image, unrounded: list[np.ndarray]
) -> None:
    made, schedule = make(), Schedule(8, 3.0, integer_timesteps=True)
    folder = made.export(tmp_path / "collection", schedule=schedule)
    sigmas = export.pipeline_sigmas(schedule)
    assert sigmas is not None and f"sigmas={list(sigmas)}" in (folder / "README.md").read_text()
    ours = our_picture(made, photo, "vexo", schedule)
    stock_picture(pipeline, folder, photo, "vexo", ours.size, sigmas=list(sigmas))
    assert furthest(unrounded) <= 1e-3


@pytest.mark.slow
def test_a_collection_on_the_shipped_miniature_gives_the_stock_pipeline_the_same_picture(
    make: Callable[..., Any], tmp_path: Path, unrounded: list[np.ndarray]
) -> None:
    """The real base of the quickstart, with a trained LoRA in the student's place, on a held-out picture."""
    folder = Path(str(files("cldistill_plugins.miniature")))
    teacher = Path(str(files("cldistill_plugins.effectbench"))) / "teachers" / "halftone.safetensors"
    made = make(rank=16, alpha=16.0, model=str(folder / "pipeline"), resolution=128, vl_resolution=56)
    blank = {name: torch.zeros_like(value) for name, value in made.slots.state("student").items()}
    made.slots.load("student", blank)
    made.slots.start_from("student", load_adapter(teacher, linear_shapes(made.base.backbone)))
    collection = made.export(tmp_path / "collection")
    photo = Image.open(sorted((folder / "pictures" / "held-out").glob("*.png"))[0]).convert("RGB")
    ours = our_picture(made, photo, "print it as a halftone", Schedule(8, 3.0))
    theirs = stock_picture(folder / "pipeline", collection, photo, "print it as a halftone", ours.size, (128, 56))
    assert ours.size == theirs.size == (128, 128) and furthest(unrounded) <= 1e-3
    made.slots.load("student", blank)
    assert difference(ours, our_picture(made, photo, "print it as a halftone", Schedule(8, 3.0))) > 0.05


def test_the_files(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == FILES
    scheduler = json.loads((exported / "scheduler_config.json").read_text())
    assert scheduler == {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0,
        "use_dynamic_shifting": False, "shift_terminal": None, "stochastic_sampling": True,
    }  # fmt: skip
    effects = json.loads((exported / "effects.json").read_text())
    assert [effect["trigger"] for effect in effects["effects"]] == ["vexo", "kuli"]
    assert effects["effects"][0]["teacher_prompt"] == "turn the picture into manga"
    assert (exported / "manifest.resolved.yaml").read_text() == "cldistill: 1\n"


def test_the_header(exported: Path, pipeline: Path) -> None:
    with safe_open(exported / "pytorch_lora_weights.safetensors", "pt") as file:
        keys, header = set(file.keys()), file.metadata()
    assert len(keys) == 2 * 28 and all(re.fullmatch(r"transformer\..+\.lora_[AB]\.weight", key) for key in keys)
    adapter = json.loads(header["lora_adapter_metadata"])
    assert adapter["transformer.r"] == adapter["transformer.lora_alpha"] == 4
    assert header["modelspec.architecture"] == "Qwen-Image-Edit-Plus/lora"
    assert header["modelspec.trigger_phrase"] == "vexo, kuli"
    assert header["modelspec.merged_from"] == "manga-tone, gold-frame"
    assert header["modelspec.resolution"] == "64x64"
    assert (header["cldistill.steps"], header["cldistill.shift"], header["cldistill.weights"]) == ("8", "3.0", "ema")
    assert json.loads(header["cldistill.teachers"]) == {"manga-tone": "a1", "gold-frame": "b2"}
    assert header["cldistill.manifest_sha256"] == "c3"
    assert str(pipeline.parent) not in json.dumps(header)


@pytest.mark.slow
def test_the_cards_script_runs(
    exported: Path, pipeline: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (exported / "README.md").read_text()
    assert "| manga-tone | `vexo` |" in card and "kuli gold frame \\| around" in card
    assert "ModelSamplingAuraFlow | shift 3 |" in card and "sampler `lcm`, scheduler `simple`" in card
    script = re.findall(r"```python\n(.*?)```", card, re.S)[0]
    photo.save(exported / "photo.png")
    monkeypatch.chdir(exported)
    with stock_areas():  # restores the constants that the script sets
        exec(script.replace("base = 'tiny'", f"base = {str(pipeline)!r}"), {})
    edited = Image.open(exported / "edited.png")
    expected = stock_picture(pipeline, exported, photo, "vexo manga drawing with screen tone", edited.size)
    assert edited.size == (64, 64) and expected.size == edited.size


def test_samples_appear_in_the_card(make: Callable[..., Any], tmp_path: Path, photo: Image.Image) -> None:
    folder = make().export(tmp_path / "collection", samples={"manga-tone": photo})
    assert (folder / "samples" / "manga-tone.png").is_file()
    assert "![manga-tone](samples/manga-tone.png)" in (folder / "README.md").read_text()


def test_samples_of_any_mode_and_size_fit_the_card(make: Callable[..., Any], tmp_path: Path) -> None:
    wide = Image.new("RGBA", (1024, 300), (200, 30, 30, 255))
    folder = make().export(
        tmp_path / "collection", samples={"gold-frame": wide, "manga-tone": Image.new("CMYK", (40, 40))}
    )
    small = Image.open(folder / "samples" / "gold-frame.png")
    assert (small.mode, small.size, wide.size) == ("RGB", (export.SAMPLE_SIDE, 150), (1024, 300))
    assert Image.open(folder / "samples" / "manga-tone.png").size == (40, 40)
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| gold-frame")]
    assert [row.split(" | ")[-1] for row in rows] == ["![gold-frame](samples/gold-frame.png) |"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_file_has_the_precision_of_the_base(make: Callable[..., Any], tmp_path: Path, dtype: str) -> None:
    made = make(dtype=dtype)
    folder = made.export(tmp_path / "collection")
    assert export.default_dtype(made.base) == getattr(torch, dtype)
    with safe_open(folder / "pytorch_lora_weights.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {getattr(torch, dtype)}  # noqa: SIM118


def test_alpha_is_baked_into_the_weights(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(rank=4, alpha=16.0)
    folder = made.export(tmp_path / "collection")
    shapes = {name: made.base.backbone.get_submodule(name) for name in made.base.adapter_targets}
    state = load_adapter(
        folder / "pytorch_lora_weights.safetensors", {n: (m.out_features, m.in_features) for n, m in shapes.items()}
    )
    name = made.base.adapter_targets[0]
    assert {weights.scale for weights in state.modules.values()} == {1.0}
    assert torch.equal(state.modules[name].up, 4.0 * made.slots.state("student")[f"{name}.lora_B.weight"])


def test_weights_that_the_slot_does_not_have_are_never_exported(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make()
    folder = made.export(tmp_path / "collection")
    before = (folder / "effects.json").read_bytes()
    wrong = {name: value + 0.05 for name, value in made.slots.state("student").items()}
    with pytest.raises(CollectionError, match="gives another output than the trained one"):
        made.export(folder, weights=wrong, title="wrong")
    assert (folder / "effects.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["collection"]


def test_missing_modules_are_counted(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make()
    some = dict(list(made.slots.state("student").items())[:4])
    with pytest.raises(CollectionError, match="holds 2 of the slot's 28 modules"):
        made.export(tmp_path / "collection", weights=some)
    assert not (tmp_path / "collection").exists()


@pytest.mark.slow
def test_the_check_leaves_the_teacher_slot_empty(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make()
    made.export(tmp_path / "collection")
    assert made.slots.mounted is None and made.slots.active is None


@pytest.mark.slow
def test_a_given_probe_needs_no_encoders(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make()
    probe = made.probe()
    made.base.drop_encoders()
    made.export(tmp_path / "collection", probe=probe)
    assert not made.base.encoders.text_encoder_loaded


def test_portable_options_hold_no_absolute_path() -> None:
    assert export.portable({"model": "/home/me/base", "resolution": 64}) == {"resolution": 64}
    assert export.portable({"model": "package:a/b"}) == {"model": "package:a/b"}
