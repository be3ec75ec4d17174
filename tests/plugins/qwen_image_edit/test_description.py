"""The analytic description against a real transformer, and the figures of the 20 B model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cldistill.errors import OptionsError
from cldistill.testing.tiny import tiny_transformer
from cldistill_plugins.diffusers_base.api import resolve_targets
from cldistill_plugins.qwen_image_edit.description import (
    describe_base,
    linear_modules,
    parameter_count,
)
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings


@pytest.mark.parametrize("change", [{}, {"num_layers": 3, "out_channels": 8}, {"use_additional_t_cond": True}])
def test_counts_equal_a_real_transformer(change: dict[str, int]) -> None:
    model = tiny_transformer(**change)
    config = dict(model.config)
    linear = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())
    assert linear_modules(config) == linear


@pytest.mark.parametrize("model", ["Qwen/Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2511"])
def test_twenty_billion_parameters_from_the_config_alone(model: str) -> None:
    base = describe_base(QwenImageEditSettings(model=model))
    lora = sum(128 * sum(base.modules[name]) for name in base.targets)
    assert round(base.parameters / 1e9, 1) == 20.4
    assert len(base.targets) == 840
    assert round(lora / 1e9, 2) == 1.18
    assert (base.latent_tokens, base.hidden, base.layers, base.channels) == (4096, 3072, 60, 64)
    assert round(base.encoder_bytes / 1e9) == 17


@pytest.mark.slow
def test_describing_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from cldistill_plugins.qwen_image_edit import plugin\n"
        "component = plugin.register_base_models()[0]\n"
        "component.describe(component.settings())\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_is_described_from_its_files(settings: QwenImageEditSettings, folder: Path) -> None:
    base = describe_base(settings)
    assert (base.latent_tokens, base.hidden, base.layers) == (16, 32, 2)
    assert len(base.targets) == 28
    assert base.tokenizer == folder / "tokenizer" / "tokenizer.json"
    assert base.encoder_bytes > 4 * 100_000


def test_targets_by_name_and_ending() -> None:
    names = ("img_in", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj")
    assert resolve_targets(names, ["to_q", "img_in"]) == names[:2]


def test_a_target_that_names_nothing_gets_the_nearest() -> None:
    with pytest.raises(OptionsError, match=r"'to_qq' names no linear module; did you mean 'attn.to_q'\?"):
        describe_base(QwenImageEditSettings(targets=("to_qq",)))


def test_wrong_models_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="neither a folder nor in the hub's local cache; download it first"):
        describe_base(QwenImageEditSettings(model="nobody/no-such-model"))
    with pytest.raises(OptionsError, match="no such folder"):
        describe_base(QwenImageEditSettings(model=str(tmp_path / "missing")))
    with pytest.raises(OptionsError, match=r"has no transformer/config\.json"):
        describe_base(QwenImageEditSettings(model=str(tmp_path)))
    with pytest.raises(OptionsError, match="is not installed"):
        describe_base(QwenImageEditSettings(model="package:no_such_package/pipeline"))
    (tmp_path / "transformer").mkdir()
    for text, told in (("{", "is not JSON"), ("[" * 200_000, "is not JSON"), ("[]", "holds no JSON object")):
        (tmp_path / "transformer" / "config.json").write_text(text)
        with pytest.raises(OptionsError, match=rf"transformer/config\.json {told}.*fetch it again"):
            describe_base(QwenImageEditSettings(model=str(tmp_path)))
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(OptionsError, match="describes a FluxTransformer2DModel"):
        describe_base(QwenImageEditSettings(model=str(tmp_path)))


def test_package_references_stay_as_written() -> None:
    reference = "package:cldistill_plugins.qwen_image_edit/configs"
    assert QwenImageEditSettings(model=reference).model == reference


def test_relative_folders_are_relative_to_the_manifest(tmp_path: Path) -> None:
    made = QwenImageEditSettings.model_validate({"model": "./base"}, context={"root": tmp_path})
    assert Path(made.model) == tmp_path / "base"
