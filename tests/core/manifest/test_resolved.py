"""What belongs to a run's identity and what does not; what a published manifest tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from cldistill.manifest.resolved import adapter_digest, decisive, manifest_digest, resolve, resolved_text
from cldistill.storage import files
from cldistill.testing.runs import run_manifest


@pytest.mark.parametrize(
    "change",
    ["generator_steps=9", "checkpoint_every=7", "keep=1", "max_bad_steps=2", "device=cpu", "deterministic=true"],
)
def test_bookkeeping_may_change_between_a_run_and_its_resumption(world: Any, change: str) -> None:
    assert manifest_digest(world.check(f"train.{change}")) == manifest_digest(world.check())


@pytest.mark.parametrize("change", ["seed=7", "batch_size=2", "grad_clip=1.0", "mixed_precision=bf16"])
def test_what_is_trained_may_not(world: Any, change: str) -> None:
    assert manifest_digest(world.check(f"train.{change}")) != manifest_digest(world.check())


def test_a_key_that_is_new_and_not_set_leaves_a_run_what_it_was(world: Any) -> None:
    # one that is missing in these sets belongs in UNSET: without it no run that was begun before could go on
    data = decisive(resolve(world.check()))
    assert set(data["effects"][0]) == {"name", "pairs", "prompt", "take", "teacher"}
    assert set(data["general"]) == {"images", "instructions"}
    assert set(data["losses"][0]) == {"from_step", "options", "slot", "streams", "until_step", "use", "weight"}
    assert set(data["sampler"]) == {"integer_timesteps", "shift", "steps", "stochastic"}
    assert set(data["slots"]["student"]) == {
        "alpha", "betas", "checkpoint", "ema", "from_step", "init", "lr", "moments", "rank", "reuse_sample", "targets",
        "updates", "warmup", "weight_decay",
    }  # fmt: skip
    assert set(data["train"]) == {"batch_size", "grad_clip", "gradient_checkpointing", "mixed_precision", "seed"}
    before = manifest_digest(world.check())
    world.data["effects"][0]["targets"] = "pair"
    assert manifest_digest(world.check()) != before


def test_an_exchanged_picture_or_adapter_makes_another_run(world: Any) -> None:
    start = world.root / "start.safetensors"
    names = [f"blocks.0.attn.to_q.lora_{half}.weight" for half in "AB"]
    shapes = [(4, 64), (64, 4)]
    tensors = {name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}
    save_file(tensors, start)
    world.data["slots"]["student"]["init"] = str(start)
    before = manifest_digest(world.check())
    assert manifest_digest(world.check()) == before
    save_file({**tensors, names[1]: torch.ones(shapes[1])}, start)
    exchanged = manifest_digest(world.check())
    assert exchanged != before
    Image.effect_noise((64, 64), 100).convert("RGB").save(world.root / "data/manga/source/a.png")
    assert manifest_digest(world.check()) != exchanged


def test_a_large_file_is_hashed_by_blocks_all_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    monkeypatch.setattr(files, "BLOCKS", 4)
    file = tmp_path / "a.safetensors"
    digests = set()
    for place in (None, 0, 999):
        data = bytearray(1000)
        if place is not None:
            data[place] = 1
        file.write_bytes(data)
        digests.add(adapter_digest(file))
    assert len(digests) == 3
    assert adapter_digest(tmp_path / "none.safetensors") == "absent"


def test_the_resolved_manifest_tells_libraries_and_inputs(world: Any) -> None:
    text = resolved_text(world.check())
    assert f"#   torch {torch.__version__.split('+')[0]}" in text
    assert "#   diffusers " in text and "#   accelerate " in text
    assert "# pools (hash of the listing):\n#   general " in text or "#   manga " in text
    assert yaml.safe_load(text)["name"] == "two-effects"


@pytest.mark.slow
def test_the_published_manifest_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    effect = {"name": "invert", "prompt": "/imagine the picture inverted", "teacher": {"use": "tiny-teacher"}}
    run_manifest(tmp_path / "first")  # writes the pictures
    effect["pairs"] = str(tmp_path / "first/data/invert")  # type: ignore[assignment]
    done = run_manifest(tmp_path / "run", effects=[effect])
    assert done.collection is not None
    published = (done.collection / "manifest.resolved.yaml").read_text()
    assert str(tmp_path) not in published
    data = yaml.safe_load(published)
    assert data["effects"][0]["pairs"] == "invert"
    assert data["effects"][0]["prompt"] == "/imagine the picture inverted"
    assert str(tmp_path) in (done.folder / "manifest.resolved.yaml").read_text()
