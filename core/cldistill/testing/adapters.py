"""Random adapters: teachers and slots that really change what the base predicts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import AdapterSlots
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.storage.tensors import content_key
from cldistill.weights import AdapterState, LoraWeights


def random_adapter(
    base: BaseModel, *key: str | int, rank: int = 2, strength: float = 0.5, targets: Sequence[str] | None = None
) -> AdapterState:
    """Return a LoRA with weights drawn from ``key``, on ``targets`` (by default all that the base names).

    ``strength`` is about the size of its change of a module's output, for inputs of size 1.
    """
    random = KeyedRandom(0).child("adapter", *key)
    names = base.adapter_targets if targets is None else tuple(targets)
    modules: dict[str, LoraWeights] = {}
    for name, (outputs, inputs) in _shapes(base, names).items():
        down, up = _pair(random.child(name), outputs, inputs, rank, strength)
        modules[name] = LoraWeights(down, up, float(rank))
    digest = content_key("random-adapter", rank, strength, *key, *names)
    return AdapterState(modules, f"a random adapter of key {key}", digest)


def randomise_slot(base: BaseModel, slots: AdapterSlots, slot: str, *key: str | int, strength: float = 0.5) -> None:
    """Give a slot random weights: as LoRA starts (``B`` = 0) it would be the bare base."""
    random = KeyedRandom(0).child("slot", slot, *key)
    weights: dict[str, Tensor] = {}
    for name, (outputs, inputs) in _shapes(base, slots.targets(slot)).items():
        down, up = _pair(random.child(name), outputs, inputs, slots.rank(slot), strength)
        weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"] = down, up
    slots.load(slot, weights)


def _shapes(base: BaseModel, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    shapes = linear_shapes(base.backbone)
    return {name: shapes[name] for name in names}


def _pair(random: KeyedRandom, outputs: int, inputs: int, rank: int, strength: float) -> tuple[Tensor, Tensor]:
    down = torch.randn(rank, inputs, generator=random.generator("down")) / inputs**0.5
    up = torch.randn(outputs, rank, generator=random.generator("up")) * strength / rank**0.5
    return down, up
