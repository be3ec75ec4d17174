"""The linear layer of an adapted backbone: base and LoRA in three matrix products, and no pass over the output besides.

peft computes ``base(x) + B(A(x)) * scaling``: the product with ``scaling`` and the sum are two more passes over an output
``[tokens, out]``, and autograd makes two more in backward: 11 % of a training step of the miniature on a CPU (0.131 against
0.117 s).  Here ``scaling`` meets the ``[tokens, rank]`` in the middle, and matrix products add to what is there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


class FrozenLinear(nn.Module):
    """``x @ weight.T`` with a weight that is never trained."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``"""
        return F.linear(x, self.weight)


def dense(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight as a plain matrix; a quantised one is decoded for the product at hand, and not kept."""
    if is_traceable_wrapper_subclass(weight):
        weight = weight.get_original_weight() if hasattr(weight, "get_original_weight") else weight.dequantize()
    return weight.to(dtype)


class FusedLora(torch.autograd.Function):
    """``y = x W.T + bias + scale * (x A.T) B.T`` over rows ``x`` ``[N, in]``; W, maybe quantised, and bias are frozen.

    ``A`` and ``B`` are cast to the dtype of ``x``, unless ``copies`` of them in that dtype are given.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, *copies: Tensor
    ) -> Tensor:
        """``[N, in] -> [N, out]``, keeping ``x`` and the ``[N, rank]`` in the middle for backward."""
        ctx.scale, ctx.dtype, ctx.copies = scale, a.dtype, len(copies)
        a, b = copies or (a.to(x.dtype), b.to(x.dtype))
        middle = x.mm(a.t())
        ctx.save_for_backward(x, w, a, b, middle)
        return F.linear(x, dense(w, x.dtype), bias).addmm_(middle, b.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``A`` and ``B``."""
        x, w, a, b, middle = ctx.saved_tensors
        for_x, for_a, for_b = (ctx.needs_input_grad[index] for index in (0, 3, 4))
        inner = grad.mm(b).mul_(ctx.scale)
        return (
            grad.mm(dense(w, grad.dtype)).addmm_(inner, a) if for_x else None,
            None,
            None,
            inner.t().mm(x).to(ctx.dtype) if for_a else None,
            grad.t().mm(middle).mul_(ctx.scale).to(ctx.dtype) if for_b else None,
            *[None] * (1 + ctx.copies),
        )


class AdaptedLinear(PeftLinear):  # type: ignore[misc]
    """peft's LoRA layer around a plain linear module, with `FusedLora` wherever one plain LoRA is active.

    Everything else (no adapter, several at once, LoKr, several dtypes without autocast) takes peft's own way.
    """

    other_param_names = (*PeftLinear.other_param_names, "copies")

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., in] -> [..., out]``"""
        keys = [key for key in self.active_adapters if key in self.lora_A]
        parts = self._parts(x, keys[0]) if len(keys) == 1 else None
        if parts is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        cast, *weights = parts
        copies = self._kept(keys[0], cast.dtype)
        result = FusedLora.apply(cast.reshape(-1, cast.shape[-1]), *weights, self.scaling[keys[0]], *copies)
        return result.view(*x.shape[:-1], self.out_features)

    def _parts(self, x: Tensor, key: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor] | None:
        """Return ``x, W, bias`` in one dtype, autocast's where that is on, with A and B; None for peft's way."""
        inner, outer = self.lora_A[key], self.lora_B[key]
        if not (isinstance(inner, _PLAIN) and isinstance(outer, _PLAIN)):
            return None
        base, kind = self.get_base_layer(), x.device.type
        quantised = is_traceable_wrapper_subclass(base.weight)  # and decoded when it is used, in the dtype of x
        tensors = [x, x if quantised else base.weight, base.bias]
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            tensors = [None if tensor is None else tensor.to(dtype) for tensor in tensors]
        elif inner.weight.dtype != x.dtype or outer.weight.dtype != x.dtype:
            return None
        if len({tensor.dtype for tensor in tensors if tensor is not None}) > 1:
            return None
        return tensors[0], base.weight if quantised else tensors[1], tensors[2], inner.weight, outer.weight

    def _kept(self, key: str, dtype: torch.dtype) -> Sequence[Tensor]:
        """Return the copies of a trained A and B in ``dtype``, made anew when these have changed; none where none are kept."""
        weights = self.lora_A[key].weight, self.lora_B[key].weight
        if not (self.keep_copies and weights[0].requires_grad and weights[0].dtype != dtype):
            return ()
        now = dtype, *(weight._version for weight in weights)
        if key not in self.copies or self.copies[key][0] != now:
            self.copies[key] = now, [weight.detach().to(dtype) for weight in weights]
        found: list[Tensor] = self.copies[key][1]
        return found


_PLAIN = (nn.Linear, FrozenLinear)


def adapt_linear(layer: Any, keep_copies: bool) -> None:
    """Turn peft's layer around a plain linear module into an `AdaptedLinear`; layers of other kinds stay peft's."""
    base, quantised = layer.get_base_layer(), is_traceable_wrapper_subclass(layer.get_base_layer().weight)
    if isinstance(layer, PeftLinear) and type(base) is nn.Linear and (quantised or type(layer) is PeftLinear):
        layer.__class__, layer.copies, layer.keep_copies = AdaptedLinear, {}, keep_copies
