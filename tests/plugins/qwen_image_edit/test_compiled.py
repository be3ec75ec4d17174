"""Blocks that are compiled: one graph for every teacher, no break, the numbers of the uncompiled ones; attention by option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from cldistill.adapters.slots import TEACHER, AdapterSlots
from cldistill.component import Settings
from cldistill.errors import OptionsError
from cldistill.testing import random_adapter
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, tiny_pipeline
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

TEACHERS, RANK = 12, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo's graphs without a backend that compiles them: what breaks or recompiles is the same."""
    monkeypatch.setattr(QwenImageEdit, "compiler", "eager")
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):
        yield
    torch._dynamo.reset()


def made(folder: Path, **options: Any) -> QwenImageEdit:
    settings: Settings = QwenImageEditSettings(
        model=str(folder), resolution=TINY_RESOLUTION, vl_resolution=TINY_VL_RESOLUTION, dtype="float32", **options
    )
    return QwenImageEdit(settings)  # type: ignore[arg-type]


def teachers(base: QwenImageEdit) -> list[AdapterState]:
    """Return LoRAs of different rank, alpha and coverage."""
    found = []
    for index in range(TEACHERS):
        state = random_adapter(base, index, rank=1 + index % RANK, targets=base.adapter_targets[index % 5 :])
        loras = {name: weights for name, weights in state.modules.items() if isinstance(weights, LoraWeights)}
        scaled = {name: LoraWeights(lora.down, lora.up, 0.5 + index) for name, lora in loras.items()}
        found.append(AdapterState(scaled, state.source, state.digest))
    return found


class Calls:
    """The calls of a DMD update on fixed inputs."""

    def __init__(self, base: QwenImageEdit, padded_rank: int | None) -> None:
        self.base, random = base, torch.Generator().manual_seed(0)
        self.slots = AdapterSlots(base.backbone)
        for name in ("student", "critic"):
            self.slots.add(name, base.adapter_targets, 4, 4.0, random)
            own = self.slots.parameters(name)
            self.slots.load(name, {key: 0.1 * torch.randn(v.shape, generator=random) for key, v in own.items()})
        self.slots.add_teacher(base.adapter_targets, padded_rank)
        base.enable_gradient_checkpointing(self.slots.run_pinned)
        self.x, self.sigma = torch.randn(1, 16, 64, generator=random), torch.tensor([0.5])
        shapes = torch.tensor([[[4, 4], [4, 4]]])
        self.source = {"latents": torch.randn(1, 16, 64, generator=random), "shapes": shapes}
        self.prompt = {"embeds": torch.randn(1, 8, 32, generator=random)}

    def call(self, slot: str) -> Tensor:
        with self.slots.scope(slot):
            return self.base.predict(self.x, self.sigma, self.source, self.prompt)

    def update(self, state: AdapterState | None) -> list[Tensor]:
        """Return all predictions, and the gradients of student and critic."""
        self.slots.mount(state)
        with torch.no_grad():
            found = [self.call(name) for name in ("student", "critic", TEACHER)]
        for name in ("student", "critic"):
            weights = list(self.slots.parameters(name).values())
            graded = self.call(name)
            gradients = torch.autograd.grad(graded.square().sum(), weights, allow_unused=True)
            found += [graded.detach(), *(gradient for gradient in gradients if gradient is not None)]
        return found


@pytest.mark.slow(30)
def test_twelve_teachers_share_the_graphs_of_the_first(folder: Path, compiler: None) -> None:
    plain, compiled = made(folder), made(folder, compiled=True)
    states = teachers(plain)
    eager = Calls(plain, None)
    expected = [eager.update(state) for state in (None, *states)]
    calls = Calls(compiled, RANK)
    found = [calls.update(state) for state in (states[0], None)]
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs < 16
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = [calls.update(state) for state in (None, *states)]
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        for value, wanted in zip(one, other, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_attention_goes_by_the_backend_of_the_option(folder: Path) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    before = _AttentionBackendRegistry.get_active_backend()[0]
    try:
        plain, exact = Calls(made(folder), None), Calls(made(folder, attention="_native_math"), None)
        processor = exact.base.backbone.transformer_blocks[0].attn.processor  # type: ignore[index,union-attr]
        assert processor._attention_backend is AttentionBackendName._NATIVE_MATH
        torch.testing.assert_close(exact.call("student"), plain.call("student"))
        assert exact.base.fingerprint != plain.base.fingerprint
        assert made(folder, compiled=True).fingerprint == plain.base.fingerprint
        with pytest.raises(OptionsError, match=r"base\.options\.attention: .*[Xx]formers"):
            made(folder, attention="xformers")
    finally:
        _AttentionBackendRegistry.set_active_backend(before)
