"""Overwriting a trainable slot's weights, checked first: nothing is loaded in part.

A slot's weights are ``<module>.lora_A.weight`` ``[rank, in]`` and ``<module>.lora_B.weight`` ``[out, rank]``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cldistill.errors import AdapterFormatError
from cldistill.weights import AdapterState, LoraWeights


@torch.no_grad()
def overwrite(own: Mapping[str, Tensor], state: Mapping[str, Tensor], slot: str) -> None:
    """Copy ``state`` into ``own``, in place.

    Raises:
        AdapterFormatError: unless names and shapes are the same.
    """
    differ = sorted(own.keys() ^ state.keys())
    if differ:
        kind = "are missing" if differ[0] in own else "are not the slot's"
        raise AdapterFormatError(f"weights for slot {slot!r}: {len(differ)} names, {differ[0]!r} first, {kind}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise AdapterFormatError(
                f"weights for slot {slot!r}: {key!r} is {tuple(state[key].shape)}, the slot's {tuple(tensor.shape)}; "
                "give the slot the rank of the weights"
            )
    for key, tensor in own.items():
        tensor.copy_(state[key])


@torch.no_grad()
def overlay(own: Mapping[str, Tensor], adapter: AdapterState, alpha: float, slot: str) -> None:
    """Make fresh weights (``lora_B = 0``) compute what ``adapter``, a LoRA of at most their rank, computes.

    Raises:
        AdapterFormatError: for a LoKr, a larger rank, or modules that the slot does not adapt.
    """
    pairs: list[tuple[Tensor, Tensor, LoraWeights]] = []
    for module, weights in adapter.modules.items():
        a, b = own.get(f"{module}.lora_A.weight"), own.get(f"{module}.lora_B.weight")
        if a is None or b is None:
            raise AdapterFormatError(f"{adapter.source}: slot {slot!r} does not adapt {module!r}; extend its targets")
        if not isinstance(weights, LoraWeights):
            raise AdapterFormatError(f"{adapter.source}: slot {slot!r} cannot go on from a LoKr; start it from a LoRA")
        if weights.rank > a.shape[0]:
            raise AdapterFormatError(
                f"{adapter.source}: rank {weights.rank} at {module!r} is more than the {a.shape[0]} of slot {slot!r}; "
                f"set the slot's rank to {weights.rank} or more"
            )
        pairs.append((a, b, weights))
    for a, b, weights in pairs:
        a[: weights.rank].copy_(weights.down)
        b[:, : weights.rank].copy_(weights.up.float() * (weights.scale * a.shape[0] / alpha))
