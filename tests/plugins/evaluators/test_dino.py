"""``dino`` on small DINO, DINOv2 and DINOv3 models of transformers' real classes, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from cldistill.component import BuildContext
from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.plugins import register
from cldistill.records import GENERAL
from cldistill.testing import check_metric
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill_plugins.evaluators import plugin
from cldistill_plugins.evaluators.compared import Compared
from cldistill_plugins.evaluators.dino import load_dino

(DINO,) = (part for part in register(plugin).components if part.name == "dino")
SIZE: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
SIZES = {"height": 28, "width": 28}
FAMILIES = {
    "dino": (ViTModel, ViTConfig, {"add_pooling_layer": False}, ViTImageProcessor(size=SIZES)),
    "dinov2": (Dinov2Model, Dinov2Config, {}, BitImageProcessor(size={"shortest_edge": 32}, crop_size=SIZES)),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig, {}, BitImageProcessor(crop_size=SIZES)),
    "dinov3": (DINOv3ViTModel, DINOv3ViTConfig, {}, ViTImageProcessor(size=SIZES)),
}


def save(folder: Path, family: str, **changes: Any) -> Path:
    model, config, extra, processor = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(config(**(SIZE | changes)), **extra).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("dino"), "dinov2")


def build(folder: Path, **options: Any) -> Compared:
    settings = DINO.settings.model_validate({"model": str(folder), **options})
    metric = DINO.build(settings, BuildContext(folder, folder / "cache", folder))
    assert isinstance(metric, Compared)
    return metric


@pytest.mark.slow
def test_it_conforms(folder: Path) -> None:
    check_metric(DINO, {"model": str(folder), "against": ["source", "reference"]})


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_values_are_cosines_of_the_first_token(family: str, request_: TinyMetricRequest, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", family)
    found = build(folder)(request_)
    model, _, extra, processor = FAMILIES[family]
    network = model.from_pretrained(folder, **extra).eval()

    @torch.no_grad()
    def token(picture: Any) -> torch.Tensor:
        return network(**processor(images=[picture], return_tensors="pt")).last_hidden_state[0, 0]

    for pool in ("invert", GENERAL):
        item, picture = request_.items[pool][1], request_.outputs["student@4"][pool][1]
        expected = torch.cosine_similarity(token(picture), token(open_picture(item.sources[0])), dim=0)
        assert found["student@4"][pool].per_picture["dino"][1] == pytest.approx(float(expected), abs=1e-5)


def test_reference_and_source_are_two_columns(folder: Path, request_: TinyMetricRequest) -> None:
    found = build(folder, against=["source", "reference"])(request_)["base"]
    assert set(found["invert"].per_picture) == {"dino", "dino_reference"} == set(build(folder).columns)
    assert set(found[GENERAL].per_picture) == {"dino"}


def test_another_network_is_never_measured_as_dino(tmp_path: Path) -> None:
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**small)).save_pretrained(tmp_path)
    with pytest.raises(NotMeasured, match="is a bert, not DINO"):
        load_dino(tmp_path, "cpu")


def test_weights_that_lack_a_layer_are_not_measured(folder: Path, tmp_path: Path) -> None:
    save(tmp_path, "dinov2")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(NotMeasured, match=r"lack \d+ tensors, such as .*layer"):
        load_dino(tmp_path, "cpu")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_is_not_whole_is_not_measured(tmp_path: Path, missing: str) -> None:
    save(tmp_path, "dinov2")
    (tmp_path / missing).unlink()
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        load_dino(tmp_path, "cpu")
