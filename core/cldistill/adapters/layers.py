"""The frozen teacher's weights inside peft's LoRA layers: plain LoRA of any rank, and LoKr exactly.

peft computes ``base(x) + scaling[key] * lora_B[key](lora_A[key](x))`` and leaves layers that lack ``key`` alone.
So a mounted module is an entry ``key``, an uncovered one has no entry, and a LoKr is a ``lora_A`` that does all and an
identity after it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cldistill.errors import AdapterFormatError
from cldistill.weights import LokrWeights, LoraWeights


class FrozenLinear(nn.Module):
    """``x @ weight.T`` with a weight that is never trained."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``"""
        return F.linear(x, self.weight)


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
    """Mount one module's weights under ``key`` of a peft layer, in the dtype of the base (bf16 if that is quantised).

    Raises:
        AdapterFormatError: if the shapes are not the module's.
    """
    base = layer.get_base_layer().weight
    dtype = base.dtype if base.dtype.is_floating_point else torch.bfloat16

    def place(tensor: Tensor) -> Tensor:
        return tensor.detach().to(base.device, dtype)

    require_shape(layer, weights, name)
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


def require_shape(layer: Any, weights: LoraWeights | LokrWeights, name: str) -> None:
    """Raise AdapterFormatError unless the weights have the shape of the module."""
    if weights.shape != (layer.out_features, layer.in_features):
        raise AdapterFormatError(
            f"module {name!r}: the adapter is {weights.shape[0]} x {weights.shape[1]} (out x in), the base "
            f"{layer.out_features} x {layer.in_features}; give an adapter that was trained on this base"
        )


def require_room(layer: Any, rank: int, weights: LoraWeights | LokrWeights, name: str) -> None:
    """Raise AdapterFormatError unless a padded layer of ``rank`` can hold the weights."""
    if not isinstance(weights, LoraWeights):
        raise AdapterFormatError(f"module {name!r}: a padded teacher slot holds LoRA alone, and this is a LoKr")
    require_shape(layer, weights, name)
    if weights.rank > rank:
        raise AdapterFormatError(
            f"module {name!r}: rank {weights.rank}; the padded teacher slot holds up to rank {rank}"
        )


@torch.no_grad()
def fill(layer: Any, key: str, weights: LoraWeights | None) -> None:
    """Write a LoRA of at most the padded rank into ``key``, its scale folded into B; None: zeros, the bare base."""
    down, up = layer.lora_A[key].weight, layer.lora_B[key].weight
    down.zero_()
    up.zero_()
    if weights is not None:
        down[: weights.rank].copy_(weights.down)
        up[:, : weights.rank].copy_(weights.up.float() * weights.scale)


def uncover(layer: Any, key: str) -> None:
    """Take every trace of ``key`` out of a peft layer."""
    for name in (*layer.adapter_layer_names, *layer.other_param_names):
        container = getattr(layer, name)
        if key in container:
            del container[key]
