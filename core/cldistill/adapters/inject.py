"""peft's LoRA layers around a backbone's linear modules, one list of active adapters shared by all of them."""

from __future__ import annotations

import math
import re
from collections.abc import ItemsView, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from cldistill.adapters.fused import fuse
from cldistill.adapters.layers import uncover
from cldistill.errors import AdapterFormatError, nearest

_WRAP = "wrap"
"""Adapter name with which peft makes its layers; it is taken out at once."""


def linear_shapes(backbone: nn.Module) -> dict[str, tuple[int, int]]:
    """Return name -> (out_features, in_features) of every linear module, whether adapters are around them or not."""
    inside = tuple(f"{name}." for name, module in backbone.named_modules() if isinstance(module, LoraLayer))
    return {
        name: (int(module.out_features), int(module.in_features))
        for name, module in backbone.named_modules()
        if isinstance(module, (nn.Linear, LoraLayer)) and not name.startswith(inside)
    }


class AdapterLayers:
    """The wrapped modules by name.

    All layers hold the *same* list of active adapters, so that switching is one write and no layer can be forgotten.
    """

    def __init__(self, backbone: nn.Module) -> None:
        """Raises ValueError if the backbone carries peft layers already."""
        if any(isinstance(module, LoraLayer) for module in backbone.modules()):
            raise ValueError("the backbone carries adapters already; release() the slots that put them there first")
        self.active: list[str] = []
        self._backbone = backbone
        self._layers: dict[str, Any] = {}
        self._shapes = linear_shapes(backbone)

    def __getitem__(self, module: str) -> Any:
        return self._layers[module]

    def items(self) -> ItemsView[str, Any]:
        """Name and peft layer of every wrapped module."""
        return self._layers.items()

    def wrap(self, modules: Iterable[str]) -> None:
        """Put a peft layer, as yet without any adapter, around each module that has none.

        Raises:
            AdapterFormatError: for a name that is no linear module of the backbone.
        """
        fresh = sorted(set(modules) - self._layers.keys())
        for name in fresh:
            if name not in self._shapes:
                raise AdapterFormatError(f"the base has no linear module {name!r}{nearest(name, self._shapes)}")
        if not fresh:
            return
        # peft picks the layer class for the module's kind (8-bit, 4-bit, ...); as a string, its targets match exactly.
        config = LoraConfig(r=1, target_modules="|".join(map(re.escape, fresh)), init_lora_weights=False)
        with torch.random.fork_rng(devices=[]), _trainable_untouched(self._backbone):
            inject_adapter_in_model(config, self._backbone, _WRAP)
        for name in fresh:
            layer: Any = self._backbone.get_submodule(name)
            uncover(layer, _WRAP)
            fuse(layer)
            self._layers[name] = layer
        for layer in self._layers.values():
            layer._active_adapter = self.active  # peft activates what it injects, in the older layers too
        del self._backbone.peft_config

    def unwrap(self) -> None:
        """Put the plain modules back."""
        for name, layer in self._layers.items():
            self._backbone.set_submodule(name, layer.get_base_layer())
        self._layers.clear()
        self.active.clear()

    def add(self, module: str, key: str, rank: int, alpha: float, generator: torch.Generator) -> None:
        """Give one layer a trainable fp32 LoRA: ``A`` Kaiming-uniform (a = sqrt 5) from ``generator``, ``B`` zero."""
        layer = self._layers[module]
        device = layer.get_base_layer().weight.device
        a = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        layer.lora_A[key] = _linear(a.to(device))
        layer.lora_B[key] = _linear(torch.zeros(layer.out_features, rank, device=device))
        layer.lora_dropout[key] = nn.Identity()
        layer.r[key], layer.lora_alpha[key], layer.scaling[key] = rank, alpha, alpha / rank


def _linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight)
    return linear


@contextmanager
def _trainable_untouched(backbone: nn.Module) -> Iterator[None]:
    """peft marks all but its own new weights as frozen; put the marks back."""
    marks = [(parameter, parameter.requires_grad) for parameter in backbone.parameters()]
    yield
    for parameter, mark in marks:
        parameter.requires_grad_(mark)
