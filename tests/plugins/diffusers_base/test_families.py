"""``flux2-klein`` and ``flux-kontext``: right against their stock pipelines, their own trainers' files, a run of all losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import Flux2KleinPipeline, FluxKontextPipeline
from safetensors.torch import save_file

from cldistill.adapters.files import load_adapter
from cldistill.adapters.inject import linear_shapes
from cldistill.component import AnyComponent
from cldistill.records import BaseDescription
from cldistill.testing import StockPicture, catalogue_with, check_base_model, run_manifest
from cldistill.testing.tiny_flux import save_seeded, stock_klein, stock_kontext, tiny_klein, tiny_kontext
from cldistill.weights import LoraWeights
from cldistill_plugins.collectionlora import plugin as collectionlora
from cldistill_plugins.flux2_klein import plugin as klein
from cldistill_plugins.flux_kontext import plugin as kontext

torch.set_num_threads(1)
TOKENS = 32
LINES = 150


@dataclass(frozen=True)
class Family:
    plugin: Any
    folder: Path
    pipeline: Any
    stock: Callable[..., StockPicture]
    references: int

    @property
    def component(self) -> AnyComponent:
        (found,) = self.plugin.register_base_models()
        return found

    @property
    def options(self) -> dict[str, Any]:
        return {"model": str(self.folder), "resolution": 192, "dtype": "float32", "prompt_tokens": TOKENS}

    @property
    def described(self) -> BaseDescription:
        found = self.component.describe(self.component.settings.model_validate(self.options)).base
        assert found is not None
        return found


@pytest.fixture(scope="module", params=["klein", "kontext"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    place = tmp_path_factory.mktemp("family")
    if request.param == "klein":
        return Family(klein, save_seeded(tiny_klein, place / "tiny"), Flux2KleinPipeline, stock_klein, 2)
    return Family(kontext, save_seeded(tiny_kontext, place / "tiny"), FluxKontextPipeline, stock_kontext, 1)


@pytest.mark.parametrize("plugin", [klein, kontext])
def test_a_family_holds_nothing_but_its_own(plugin: Any) -> None:
    files = list(Path(plugin.__file__).parent.rglob("*.py"))
    assert len(files) >= 3 and sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= LINES


@pytest.mark.slow
def test_it_conforms_and_equals_its_stock_pipeline(family: Family) -> None:
    stock = partial(family.stock, family.folder, tokens=TOKENS)
    options = family.options
    check_base_model(family.component, options, size=(80, 80), stock=stock, references=family.references)


@pytest.mark.parametrize(
    ("plugin", "model", "shifts"),
    [
        (klein, "black-forest-labs/FLUX.2-klein-base-4B", {8: 9.66, 40: 8.02, 50: 7.56}),
        (klein, "black-forest-labs/FLUX.2-klein-base-9B", {8: 9.66, 40: 8.02, 50: 7.56}),
        (kontext, "black-forest-labs/FLUX.1-Kontext-dev", {8: 3.16, 28: 3.16}),
    ],
)
def test_what_is_shipped_of_a_hub_id_is_the_real_model(plugin: Any, model: str, shifts: dict[int, float]) -> None:
    (component,) = plugin.register_base_models()
    settings = component.settings(model=model)
    described = component.describe(settings).base
    with torch.device("meta"):
        from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

        kind = Flux2Transformer2DModel if plugin is klein else FluxTransformer2DModel
        backbone = kind.from_config(settings.folder.config())
    assert linear_shapes(backbone) == described.modules
    assert sum(parameter.numel() for parameter in backbone.parameters()) == described.parameters
    assert {steps: round(described.shift(described.latent_tokens, steps), 2) for steps in shifts} == shifts
    blocks = [name for name in described.modules if "transformer_blocks." in name]
    assert set(blocks) == set(described.targets) and described.latent_tokens == 4096


@pytest.mark.parametrize("style", ["peft", "kohya", "diffusers"])
def test_files_of_its_own_trainers_mean_what_stock_diffusers_makes_of_them(
    family: Family, style: str, tmp_path: Path
) -> None:
    random, file = torch.Generator().manual_seed(0), tmp_path / "lora.safetensors"
    settings = family.component.settings()
    described = family.component.describe(settings).base  # the real one: stock knows FLUX.1 by its width
    assert described is not None
    first = {name for name in described.targets if "blocks.0." in name}
    names = {f"transformer.{name}": (name,) for name in first}
    if style != "diffusers":
        blocks = {name: parts for name, parts in described.adapter_names.items() if "blocks.0." in name}
        assert {part for parts in blocks.values() for part in parts} == first
        peft = "diffusion_model."  # ai-toolkit's
        if style == "peft" and family.plugin is kontext:  # fal's, which stock diffusers reads if nothing is missing
            peft, blocks = "base_model.model.", {name: parts for name, parts in described.adapter_names.items()
                                                 if "blocks" in name or name == "final_layer.linear"}  # fmt: skip
        names = {"lora_unet_" + name.replace(".", "_") if style == "kohya" else peft + name: parts
                 for name, parts in blocks.items()}  # fmt: skip
    down, up = ("lora_down", "lora_up") if style == "kohya" else ("lora_A", "lora_B")
    tensors = {}
    for name, parts in names.items():
        rows = sum(described.modules[part][0] for part in parts)
        tensors[f"{name}.{down}.weight"] = torch.randn(1, described.modules[parts[0]][1], generator=random)
        tensors[f"{name}.{up}.weight"] = torch.randn(rows, 1, generator=random)
        if style == "kohya":
            tensors[f"{name}.alpha"] = torch.tensor(0.5)
    save_file(tensors, file)
    theirs = family.pipeline.lora_state_dict(str(tmp_path), weight_name=file.name)
    ours = load_adapter(file, described.modules, described.adapter_names).modules
    assert set(ours) == {key.removeprefix("transformer.").rpartition(".lora_")[0] for key in theirs}
    for name, weights in ours.items():
        assert isinstance(weights, LoraWeights)
        a, b = (theirs[f"transformer.{name}.lora_{half}.weight"] for half in "AB")
        seen = torch.randn(a.shape[1], generator=random)
        assert torch.allclose(
            weights.scale * weights.up @ (weights.down @ seen), b @ (a @ seen), rtol=1e-4, atol=1e-3
        ), name


@pytest.mark.slow
def test_all_losses_train_it_and_stock_diffusers_loads_the_export(family: Family, tmp_path: Path) -> None:
    done = run_manifest(
        tmp_path, catalogue_with(family.plugin, collectionlora), steps=5,
        base={"use": family.component.name, "options": family.options},
        router={"use": "pdsr", "options": {"p_switch": 0.5}},
        losses=[{"use": "bs-dmd"}, {"use": "ts-dmd", "streams": ["effect"], "options": {"tau_max": 999}},
                {"use": "ta-fm", "streams": ["effect"]}, {"use": "fake-score", "slot": "critic"}],
        slots={"student": {"rank": 2, "lr": 1e-3}, "critic": {"rank": 2, "lr": 1e-3}},
        sampler={"steps": 4, "shift": "auto"},
    )  # fmt: skip
    assert done.collection is not None and done.steps == 5
    for term in ("bs-dmd", "ta-fm", "fake-score"):
        assert done.losses(term) and all(abs(loss) < 1e6 for loss in done.losses(term))
    pipeline = family.pipeline.from_pretrained(family.folder)
    pipeline.load_lora_weights(str(done.collection), weight_name="pytorch_lora_weights.safetensors")
    layers = {name: m for name, m in pipeline.transformer.named_modules() if hasattr(m, "lora_A")}
    assert set(layers) == set(family.described.targets)
    assert all(set(layer.scaling.values()) == {1.0} for layer in layers.values())
    resolved = yaml.safe_load((done.folder / "manifest.resolved.yaml").read_text(encoding="utf-8"))
    shift = family.described.shift
    assert (
        shift is not None and resolved["targets"]["shift"] == "auto"
    )  # teachers: the stock schedule at their own steps
    assert resolved["sampler"]["shift"] == pytest.approx(shift(144, 4), abs=1e-5)
