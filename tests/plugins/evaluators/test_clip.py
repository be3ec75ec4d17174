"""``clip`` on a small open_clip model with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

open_clip = pytest.importorskip("open_clip")

from safetensors.torch import save_file  # noqa: E402

from cldistill.component import BuildContext  # noqa: E402
from cldistill.data.items import open_picture  # noqa: E402
from cldistill.errors import NotMeasured  # noqa: E402
from cldistill.plugins import register  # noqa: E402
from cldistill.records import GENERAL, EffectInfo  # noqa: E402
from cldistill.testing import check_metric  # noqa: E402
from cldistill.testing.metric_check import TinyMetricRequest  # noqa: E402
from cldistill_plugins.evaluators import plugin  # noqa: E402
from cldistill_plugins.evaluators.clip import load_clip  # noqa: E402
from cldistill_plugins.evaluators.compared import Compared  # noqa: E402
from cldistill_plugins.evaluators.references import reference_pairs  # noqa: E402

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"},
}
(CLIP,) = (part for part in register(plugin).components if part.name == "clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**CONFIG["model_cfg"])
    save_file({name: value.contiguous() for name, value in model.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return folder


def build(folder: Path, **options: Any) -> Compared:
    settings = CLIP.settings.model_validate({"model": str(folder), **options})
    metric = CLIP.build(settings, BuildContext(folder, folder / "cache", folder))
    assert isinstance(metric, Compared)
    return metric


def by_hand(folder: Path) -> Any:
    """Return the stock way to a picture's or text's features."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.no_grad()
    def features(of: Image.Image | str) -> torch.Tensor:
        model.eval()
        if isinstance(of, str):
            return model.encode_text(tokenize([of]), normalize=True)[0]
        return model.encode_image(preprocess(of).unsqueeze(0), normalize=True)[0]

    return features


@pytest.mark.slow
def test_it_conforms(folder: Path) -> None:
    check_metric(CLIP, {"model": str(folder), "against": ["reference", "source", "text"]})


@pytest.mark.slow
def test_the_values_are_those_of_the_stock_functions(folder: Path, request_: TinyMetricRequest) -> None:
    found = build(folder, against=["reference", "source", "text"])(request_)
    features = by_hand(folder)
    effect, items = request_.effects[0], request_.items["invert"]
    (pair,) = reference_pairs(effect, 1)
    assert pair.target is not None
    for system in request_.outputs:
        values = found[system]["invert"].per_picture
        for index, picture in enumerate(request_.outputs[system]["invert"]):
            own = features(picture)
            assert values["clip"][index] == pytest.approx(float(own @ features(open_picture(pair.target))), abs=1e-5)
            source = features(open_picture(items[index].sources[0]))
            assert values["clip_source"][index] == pytest.approx(float(own @ source), abs=1e-5)
            assert values["clip_text"][index] == pytest.approx(float(own @ features(effect.prompt)), abs=1e-5)


def test_an_after_picture_is_nearest_to_itself_and_references_are_averaged(
    folder: Path, request_: TinyMetricRequest
) -> None:
    effect = request_.effects[0]
    targets = [open_picture(pair.target) for pair in reference_pairs(effect, 3) if pair.target is not None]
    items = {"invert": request_.items["invert"][:1]}
    asked = replace(request_, items=items, outputs={"s": {"invert": [targets[0]]}})
    assert build(folder)(asked)["s"]["invert"].per_picture["clip"] == [pytest.approx(1.0, abs=1e-5)]
    features = by_hand(folder)
    mean = sum(float(features(targets[0]) @ features(target)) for target in targets) / 3
    assert build(folder, references=3)(asked)["s"]["invert"].per_picture["clip"] == [pytest.approx(mean, abs=1e-5)]


def test_the_general_pool_has_no_reference_but_a_source_and_a_text(folder: Path, request_: TinyMetricRequest) -> None:
    assert GENERAL not in build(folder)(request_)["base"]
    both = build(folder, against=["reference", "text"])(request_)["base"]
    assert set(both["invert"].per_picture) == {"clip", "clip_text"}
    assert set(both[GENERAL].per_picture) == {"clip_text"}


def test_probes_are_left_alone_and_batches_change_nothing(folder: Path, request_: TinyMetricRequest) -> None:
    whole = build(folder)(request_)
    items = {**request_.items, "invert/untriggered": request_.items["invert"]}
    outputs = {system: {**pools, "invert/untriggered": pools["invert"]} for system, pools in request_.outputs.items()}
    small = build(folder, batch_size=3)(replace(request_, items=items, outputs=outputs))
    assert small.keys() == whole.keys() and small["base"].keys() == {"invert"}
    assert small["base"]["invert"].per_picture["clip"] == pytest.approx(whole["base"]["invert"].per_picture["clip"])
    assert request_.progress[-1] == pytest.approx(1.0)


def test_without_pairs_there_is_no_reference(folder: Path, request_: TinyMetricRequest) -> None:
    asked = replace(request_, effects=(EffectInfo("invert", "invert the colours"),))
    with pytest.raises(NotMeasured, match="no effect has pairs"):
        build(folder)(asked)
    assert build(folder, against=["source"])(asked)["base"]["invert"].per_picture["clip_source"]


def test_columns_and_version_say_what_the_values_are(folder: Path) -> None:
    metric = build(folder)
    assert set(metric.columns) == {"clip", "clip_source", "clip_text"}
    assert {column.better for column in metric.columns.values()} == {"higher"}
    before = metric.version
    (folder / "note.txt").write_text("another file")
    assert build(folder).version != before
    (folder / "note.txt").unlink()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "open_clip_config.json"),
        ({"open_clip_config.json": "{}"}, "model_cfg"),
        ({"open_clip_config.json": json.dumps(CONFIG)}, "cannot be loaded"),  # random weights are never used
        ({"open_clip_config.json": json.dumps(CONFIG), "open_clip_model.safetensors": "junk"}, "cannot be loaded"),
    ],
)
def test_what_is_no_model_is_not_measured(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(NotMeasured, match=reason):
        load_clip(tmp_path, "cpu")


def test_weights_of_another_size_are_not_measured(folder: Path, tmp_path: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["model_cfg"]["vision_cfg"]["width"] = 48
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").symlink_to(folder / "open_clip_model.safetensors")
    with pytest.raises(NotMeasured, match="cannot be loaded"):
        load_clip(tmp_path, "cpu")


def test_it_is_built_only_where_there_are_weights(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="there is no folder"):
        build(tmp_path / "nothing")
