"""peft's LoRA layers around a backbone's linear modules: put there, switched by one list, and filled with frozen weights.

peft computes ``base(x) + scaling[key] * lora_B[key](lora_A[key](x))`` and leaves layers that lack ``key`` alone.
So a mounted module is an entry ``key``, an uncovered one has no entry, and a LoKr is a ``lora_A`` that does all and an
identity after it.
"""

from __future__ import annotations

import math
import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from cldistill.adapters.adapted_linear import FrozenLinear, adapt_linear
from cldistill.errors import AdapterFormatError, nearest
from cldistill.weights import LokrWeights, LoraWeights

Weights = Mapping[str, LoraWeights | LokrWeights]
"""Module -> its frozen weights."""
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

    def __init__(self, backbone: nn.Module, keep_copies: bool = False) -> None:
        """Raises ValueError if the backbone carries peft layers already."""
        if any(isinstance(module, LoraLayer) for module in backbone.modules()):
            raise ValueError("the backbone carries adapters already; release() the slots that put them there first")
        self.active: list[str] = []
        self._backbone, self._keep_copies = backbone, keep_copies
        self._layers: dict[str, Any] = {}
        self._shapes = linear_shapes(backbone)

    def __getitem__(self, module: str) -> Any:
        return self._layers[module]

    def items(self) -> ItemsView[str, Any]:
        """Name and peft layer of every wrapped module."""
        return self._layers.items()

    def wrap(self, modules: Iterable[str]) -> None:
        """Put a peft layer, as yet empty, around each module that has none; AdapterFormatError for what is no linear one."""
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
            adapt_linear(layer, self._keep_copies)
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


class KroneckerLinear(nn.Module):
    """``x @ kron(w1, w2).T`` without making the Kronecker product (arXiv 2309.14859, equation 5).

    With ``X`` of shape ``[in_1, in_2]`` the row-major ``x``, ``kron(w1, w2) x`` is the row-major ``w1 X w2.T``.
    """

    def __init__(self, w1: Tensor, w2: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(w1, requires_grad=False)  # peft asks lora_A for its weight's dtype
        self.w2 = nn.Parameter(w2, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_1 * in_2] -> [..., out_1 * out_2]``"""
        rows = x.reshape(*x.shape[:-1], self.weight.shape[1], self.w2.shape[1])
        return torch.matmul(self.weight, F.linear(rows, self.w2)).flatten(-2)


def cover(layer: Any, key: str, weights: LoraWeights | LokrWeights, name: str) -> None:
    """Mount weights under ``key`` of a peft layer, in the base's dtype (quantised: bf16); AdapterFormatError for a misfit."""
    base = layer.get_base_layer().weight
    dtype = base.dtype if base.dtype.is_floating_point else torch.bfloat16

    def place(tensor: Tensor) -> Tensor:
        return tensor.detach().to(base.device, dtype)

    if weights.shape != (layer.out_features, layer.in_features):
        raise AdapterFormatError(
            f"module {name!r}: the adapter is {weights.shape[0]} x {weights.shape[1]} (out x in), the base "
            f"{layer.out_features} x {layer.in_features}; give an adapter that was trained on this base"
        )
    inner: nn.Module
    outer: nn.Module
    if isinstance(weights, LoraWeights):
        inner, outer = FrozenLinear(place(weights.down)), FrozenLinear(place(weights.up))
    else:
        inner, outer = KroneckerLinear(place(weights.w1), place(weights.w2)), nn.Identity()
    layer.lora_A[key], layer.lora_B[key], layer.lora_dropout[key] = inner, outer, nn.Identity()
    layer.scaling[key] = weights.scale
    layer.r[key] = weights.rank
    layer.lora_alpha[key] = weights.scale * weights.rank


def padded(modules: Weights, layers: ItemsView[str, Any], rank: int) -> Weights:
    """Return an adapter as a LoRA of one rank and scale 1 over all layers; with a LoKr or a larger rank it stays as it is."""
    found: dict[str, LoraWeights | LokrWeights] = {}
    for name, layer in layers:
        nothing = LoraWeights(torch.zeros(1, layer.in_features), torch.zeros(layer.out_features, 1), 0.0)
        lora = modules.get(name, nothing)
        if not isinstance(lora, LoraWeights) or lora.rank > rank:
            return modules
        more = rank - lora.rank
        up = F.pad(lora.up.float() * lora.scale, (0, more))
        found[name] = LoraWeights(F.pad(lora.down, (0, 0, 0, more)), up, float(rank))
    return found


def uncover(layer: Any, key: str) -> None:
    """Take every trace of ``key`` out of a peft layer."""
    for name in (*layer.adapter_layer_names, *layer.other_param_names):
        container = getattr(layer, name)
        if key in container:
            del container[key]
