"""``dreamsim`` by the authors' package, on its own classes made narrow, with random weights."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

package = pytest.importorskip("dreamsim")

from dreamsim import PerceptualModel  # noqa: E402
from dreamsim.config import dreamsim_args  # noqa: E402
from dreamsim.feature_extraction import (  # noqa: E402
    load_clip_as_dino,
    load_open_clip_as_dino,
    vision_transformer,
)

from cldistill.component import BuildContext  # noqa: E402
from cldistill.data.items import open_picture  # noqa: E402
from cldistill.errors import NotMeasured  # noqa: E402
from cldistill.plugins import register  # noqa: E402
from cldistill.testing import check_metric, picture  # noqa: E402
from cldistill.testing.metric_check import TinyMetricRequest  # noqa: E402
from cldistill_plugins.evaluators import dreamsim_files, plugin  # noqa: E402
from cldistill_plugins.evaluators.compared import Compared  # noqa: E402
from cldistill_plugins.evaluators.dreamsim_files import DINO, FILES, lora_folder  # noqa: E402
from cldistill_plugins.evaluators.dreamsim_network import _local_dino, load_dreamsim  # noqa: E402
from cldistill_plugins.evaluators.references import reference_pairs  # noqa: E402

(DREAMSIM,) = (part for part in register(plugin).components if part.name == "dreamsim")
WIDTH = 24


def narrow(patch_size: int = 16, **options: Any) -> torch.nn.Module:
    """The package's ViT, twelve layers as always, but narrow."""
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    made: torch.nn.Module = vision_transformer.VisionTransformer(
        patch_size=patch_size, embed_dim=WIDTH, num_heads=2, mlp_ratio=2, qkv_bias=True, norm_layer=norm, **options
    )
    return made


@pytest.fixture(scope="module", autouse=True)
def narrow_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (vision_transformer, load_clip_as_dino, load_open_clip_as_dino):
            patch.setattr(module, "vit_base", narrow)
        yield


def write(folder: Path, variant: str) -> Path:
    """Write random checkpoints in the layout that the authors publish."""
    torch.manual_seed(0)
    for path in FILES[variant]:
        network = narrow(32 if "32" in path.name else 16)
        if path != DINO:  # CLIP's towers have a norm where DINO has dropout, and a projection
            network.pos_drop = torch.nn.LayerNorm(WIDTH)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        state = network.state_dict()
        content: object = state if path == DINO else {"state_dict": state | {"proj": torch.randn(WIDTH, 16)}}
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / path)
    with _local_dino(folder):
        network = PerceptualModel(
            **dreamsim_args["model_config"][variant], load_dir=str(folder), normalize_embeds=True, device="cpu"
        )
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=["qkv"], init_lora_weights=False)
    get_peft_model(network, config).save_pretrained(folder / lora_folder(variant))
    return folder


@pytest.fixture
def random_restored() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def written(narrow_networks: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        return write(tmp_path_factory.mktemp("dreamsim"), "clip_vitb32")


@pytest.fixture
def folder(written: Path, tmp_path: Path, random_restored: None) -> Path:
    """A copy of the weights, which a test may damage."""
    return shutil.copytree(written, tmp_path / "checkpoints-of-dreamsim")


def build(folder: Path, **options: Any) -> Compared:
    settings = DREAMSIM.settings.model_validate({"folder": str(folder), "variant": "clip_vitb32", **options})
    metric = DREAMSIM.build(settings, BuildContext(folder, folder.parent / "cache", folder))
    assert isinstance(metric, Compared)
    return metric


@pytest.mark.slow
def test_it_conforms(folder: Path) -> None:
    check_metric(DREAMSIM, {"folder": str(folder), "variant": "clip_vitb32", "against": ["reference", "source"]})


@pytest.mark.slow
def test_the_distances_are_those_of_the_packages_own_loader(folder: Path, request_: TinyMetricRequest) -> None:
    found = build(folder, against=["reference", "source"])(request_)["teacher@4"]["invert"].per_picture
    with contextlib.redirect_stdout(io.StringIO()):
        model, preprocess = package.dreamsim(device="cpu", cache_dir=str(folder), dreamsim_type="clip_vitb32")
    (pair,) = reference_pairs(request_.effects[0], 1)
    assert pair.target is not None
    for index, made in enumerate(request_.outputs["teacher@4"]["invert"]):
        source = open_picture(request_.items["invert"][index].sources[0])
        for name, other in (("dreamsim", open_picture(pair.target)), ("dreamsim_source", source)):
            assert found[name][index] == pytest.approx(float(model(preprocess(made), preprocess(other))), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ensemble", "dino_vitb16", "open_clip_vitb32"])
def test_every_variant_is_built_offline_and_its_lora_counts(
    variant: str, tmp_path: Path, random_restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "load", lambda *words, **more: pytest.fail("fetches code"))
    folder = write(tmp_path, variant)
    features = load_dreamsim(folder, variant, "cpu")
    with torch.no_grad():
        first, second = features.pictures([picture(1), picture(2)])
        width = {"ensemble": WIDTH + 16 + 16, "dino_vitb16": WIDTH, "open_clip_vitb32": 16}[variant]
        assert first.shape == (width,) and float(first @ second) < 1 - 1e-4
        assert float(first @ features.pictures([picture(1)])[0]) == pytest.approx(1.0, abs=1e-5)
        with features.model.disable_adapter():
            assert not torch.allclose(features.pictures([picture(1)])[0], first, atol=1e-4)


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / FILES["clip_vitb32"][0]).unlink()
    with pytest.raises(NotMeasured, match=r"lacks clip_vitb32_pretrain.pth.tar of DreamSim's clip_vitb32; give folder"):
        build(folder)
    with pytest.raises(NotMeasured, match=r"lacks checkpoints.dino_vitbase16_pretrain.pth, .*ensemble_lora"):
        build(folder, variant="ensemble")


def test_by_default_it_looks_into_the_cache(folder: Path) -> None:
    settings = DREAMSIM.settings.model_validate({"variant": "clip_vitb32"})
    context = BuildContext(folder, folder.parent, folder)
    with pytest.raises(NotMeasured, match=r"models.dreamsim lacks"):
        DREAMSIM.build(settings, context)
    shutil.copytree(folder, folder.parent / "models" / "dreamsim")
    assert isinstance(DREAMSIM.build(settings, context), Compared)


@pytest.mark.parametrize("file", ["clip_vitb32_pretrain.pth.tar", "clip_vitb32_single_lora/adapter_model.safetensors"])
def test_damaged_weights_are_not_measured(folder: Path, request_: TinyMetricRequest, file: str) -> None:
    (folder / file).write_bytes(b"junk")
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        build(folder)(request_)


def test_a_pickle_that_runs_code_is_not_run(folder: Path, request_: TinyMetricRequest, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "trapped",)

    torch.save({"state_dict": Trap()}, folder / "clip_vitb32_pretrain.pth.tar")
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        build(folder)(request_)
    assert not (tmp_path / "trapped").exists()


def test_a_lora_of_another_network_is_not_mounted_in_part(folder: Path, request_: TinyMetricRequest) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "clip_vitb32_single_lora" / "adapter_model.safetensors"
    state = load_file(file)
    save_file({name.replace("blocks.0.", "blocks.77."): value for name, value in state.items()}, file)
    with pytest.raises(NotMeasured, match="tensors of its LoRA do not fit"):
        build(folder)(request_)


def test_a_download_goes_where_it_is_looked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, empty = tmp_path / "published.zip", tmp_path / "empty"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    monkeypatch.setitem(package.model.dreamsim_weights, "clip_vitb32", archive.as_uri())
    with pytest.raises(NotMeasured, match="lacks"):
        build(empty)
    assert not empty.exists()
    assert isinstance(build(empty, download=True), Compared)


def test_a_failing_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()
    monkeypatch.setitem(package.model.dreamsim_weights, "clip_vitb32", nowhere)
    monkeypatch.setattr(dreamsim_files, "DINO_ADDRESS", nowhere)
    for variant in ("clip_vitb32", "dino_vitb16"):
        with pytest.raises(NotMeasured, match=f"{variant} could not be downloaded"):
            build(tmp_path / "empty", variant=variant, download=True)


@pytest.mark.slow
def test_the_published_lora_configuration_of_2024_is_read(folder: Path, request_: TinyMetricRequest) -> None:
    """Older versions of peft wrote fewer members."""
    file = folder / "clip_vitb32_single_lora" / "adapter_config.json"
    config = json.loads(file.read_text())
    known = ("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "peft_type", "task_type", "inference_mode",
             "fan_in_fan_out", "modules_to_save", "init_lora_weights", "base_model_name_or_path")  # fmt: skip
    before = build(folder)(request_)
    file.write_text(json.dumps({member: config[member] for member in known}))
    assert build(folder)(request_) == before
