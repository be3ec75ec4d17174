"""A two-layer Qwen-Image transformer with random weights, and adapter files in every spelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import AdapterSlots
from cldistill.records import BaseDescription
from cldistill.testing.tiny import tiny_transformer
from cldistill.weights import AdapterState, LoraWeights

torch.set_num_threads(1)

Shapes = dict[str, tuple[int, int]]
Forward = Callable[[], Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_transformer()


@pytest.fixture
def forward(backbone: nn.Module) -> Forward:
    """One call of the backbone on fixed inputs."""

    def call() -> Tensor:
        output: Tensor = backbone(
            hidden_states=noise(2, 16, 64, seed=1),
            encoder_hidden_states=noise(2, 5, 32, seed=2),
            encoder_hidden_states_mask=None,
            timestep=torch.full((2,), 0.5),
            img_shapes=[[(1, 4, 4)]] * 2,
            return_dict=False,
        )[0]
        return output

    return call


@pytest.fixture
def shapes(backbone: nn.Module) -> Shapes:
    """Every linear module of the backbone."""
    return linear_shapes(backbone)


@pytest.fixture
def targets(shapes: Shapes) -> list[str]:
    """The modules of the blocks: what a slot adapts."""
    return [name for name in shapes if name.startswith("transformer_blocks.")]


@pytest.fixture
def slots(backbone: nn.Module, targets: list[str]) -> AdapterSlots:
    """A student (r = 4, scale 2) and a critic (r = 2), both with B away from zero."""
    slots = AdapterSlots(backbone)
    for index, (name, rank, alpha) in enumerate((("student", 4, 8.0), ("critic", 2, 2.0))):
        slots.add(name, targets, rank, alpha, torch.Generator().manual_seed(index))
        with torch.no_grad():
            for place, (key, parameter) in enumerate(slots.parameters(name).items()):
                if key.endswith("lora_B.weight"):
                    parameter.copy_(0.1 * noise(*parameter.shape, seed=100 * index + place))
    return slots


@pytest.fixture
def description(shapes: Shapes, targets: list[str]) -> BaseDescription:
    return BaseDescription(0, shapes, tuple(targets), 16, 64, 32, 2)


@pytest.fixture
def lora(shapes: Shapes) -> Callable[..., AdapterState]:
    """Make a frozen LoRA over some modules."""

    def make(modules: list[str], rank: int = 3, alpha: float = 6.0, seed: int = 0, size: float = 0.3) -> AdapterState:
        weights = {}
        for index, name in enumerate(modules):
            out, wide = shapes[name]
            down = size * noise(rank, wide, seed=seed + 2 * index)
            weights[name] = LoraWeights(down, size * noise(out, rank, seed=seed + 2 * index + 1), alpha)
        return AdapterState(weights, "test", f"{sorted(modules)} {rank} {alpha} {seed} {size}")

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write tensors as an adapter file."""

    def save(tensors: dict[str, Tensor], name: str = "adapter.safetensors", **metadata: str) -> Path:
        path = tmp_path / name
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata or None)
        return path

    return save
