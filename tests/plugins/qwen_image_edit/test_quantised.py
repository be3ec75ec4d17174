"""A backbone that is quantised while it is read: what it takes, and that LoRAs on it learn as on the decoded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cldistill.adapters.adapted_linear import AdaptedLinear, dense
from cldistill.adapters.slots import AdapterSlots
from cldistill.errors import OptionsError
from cldistill.testing import catalogue_with, run_manifest
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, tiny_pipeline
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.diffusers_base import quantised
from cldistill_plugins.qwen_image_edit import plugin
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.description import describe_base
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

KINDS = ("int8", "fp8", "nf4")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A width of 128: nf4 packs 16,384 weights at a time."""
    folder = tmp_path_factory.mktemp("base") / "wide"
    return tiny_pipeline(folder, attention_head_dim=64, axes_dims_rope=(16, 24, 24))


def made(folder: Path, kind: Any, **options: Any) -> QwenImageEdit:
    settings = QwenImageEditSettings(
        model=str(folder), resolution=TINY_RESOLUTION, vl_resolution=TINY_VL_RESOLUTION, quantise=kind, **options
    )
    return QwenImageEdit(settings)


def stored(weight: Tensor) -> int:
    """Return the bytes of all the plain tensors that a weight is made of."""
    inner = getattr(weight, "__tensor_flatten__", None)
    return weight.nbytes if inner is None else sum(stored(getattr(weight, name)) for name in inner()[0])


def gradients(base: QwenImageEdit) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the teacher's and the student's predictions and the student's gradients, on seeded LoRAs and inputs."""
    slots, random = AdapterSlots(base.backbone), torch.Generator().manual_seed(0)
    slots.add("student", base.adapter_targets, 4, 4.0, random)
    own = slots.parameters("student")
    slots.load("student", {name: 0.1 * torch.randn(value.shape, generator=random) for name, value in own.items()})
    lora = {
        name: LoraWeights(own[f"{name}.lora_A.weight"].detach() / 2, own[f"{name}.lora_B.weight"].detach(), 4.0)
        for name in base.adapter_targets
    }
    x, sigma = torch.randn(1, 16, 64, generator=random), torch.tensor([0.5])
    source = {"latents": torch.randn(1, 16, 64, generator=random), "shapes": torch.tensor([[[4, 4], [4, 4]]])}
    prompt = {"embeds": torch.randn(1, 8, 32, generator=random)}
    slots.mount(AdapterState(lora, "a teacher", "a teacher"))
    with torch.no_grad(), slots.scope("teacher"):
        taught = base.predict(x, sigma, source, prompt)
    with slots.scope("student"):
        predicted = base.predict(x, sigma, source, prompt)
        predicted.square().sum().backward()
    assert all(isinstance(base.backbone.get_submodule(name), AdaptedLinear) for name in base.adapter_targets)
    return taught, predicted.detach(), [value.grad for value in own.values() if value.grad is not None]


@pytest.mark.slow(4)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_decoded_dense_layers(wide: Path, kind: str) -> None:
    pytest.importorskip("torchao")
    packed, plain = made(wide, kind), made(wide, None)
    for name in packed.adapter_targets:
        module = plain.backbone.get_submodule(name)
        decoded = dense(packed.backbone.get_submodule(name).weight, torch.bfloat16)
        assert not torch.equal(module.weight, decoded)
        assert torch.allclose(module.weight, decoded, atol=0.16 * float(module.weight.abs().max()))
        module.weight.data.copy_(decoded)
    taught, predicted, slopes = gradients(packed)
    as_taught, as_predicted, as_slopes = gradients(plain)
    assert torch.equal(taught, as_taught)
    assert torch.equal(predicted, as_predicted)
    assert len(slopes) == len(as_slopes) > 0
    assert all(torch.equal(one, other) for one, other in zip(slopes, as_slopes, strict=True))


@pytest.mark.slow(2)
@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_the_memory_that_its_description_says(wide: Path, kind: str) -> None:
    pytest.importorskip("torchao")
    base = made(wide, kind)
    told = describe_base(base.settings)
    size = sum(map(stored, base.backbone.parameters()))
    assert size == pytest.approx(told.weight_bytes, rel=0.03)  # a row's scale: 5 bytes beside 128
    assert told.weight_bytes < 0.6 * told.parameters * told.bytes_per_parameter


def test_each_kind_has_a_fingerprint_of_its_own(wide: Path) -> None:
    pytest.importorskip("torchao")
    assert len({made(wide, kind).fingerprint for kind in (None, *KINDS)}) == 4


def test_without_torchao_it_says_what_to_install(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda _: None)
    with pytest.raises(OptionsError, match=r"pip install 'cldistill\[quantise\]'"):
        made(wide, "int8")


@pytest.mark.slow(6)
def test_a_whole_run_reads_the_quantised_backbone_when_the_encoders_have_gone(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchao")
    encoders, read = [], QwenImageEdit._read_backbone

    def watched(base: QwenImageEdit) -> Any:
        encoders.append((base.encoders.stock.tokenizer is not None, base.encoders.text_encoder_loaded))
        return read(base)

    monkeypatch.setattr(QwenImageEdit, "_read_backbone", watched)
    options = {
        "model": str(wide), "resolution": TINY_RESOLUTION, "vl_resolution": TINY_VL_RESOLUTION, "quantise": "nf4",
    }  # fmt: skip
    done = run_manifest(tmp_path, catalogue_with(plugin), steps=2, base={"use": "qwen-image-edit", "options": options})
    assert encoders == [(True, False)]  # they were there, and have left
    assert done.steps == 2 and done.collection is not None
