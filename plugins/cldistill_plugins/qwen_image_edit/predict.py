"""The transformer's call: batches with padded prompts, and the stock pipeline's way with the timestep."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cldistill.errors import DataError
from cldistill.records import Tensors


def collate(rows: Sequence[Tensors]) -> Tensors:
    """Stack encoded sources, or prompts padded to the longest (``mask`` ``[B, T]``, absent where none is padded).

    Raises `DataError` where the sources of one batch differ in size or number: their tokens cannot be stacked.
    """
    return _collate_prompts(rows) if "embeds" in rows[0] else _collate_sources(rows)


def _collate_sources(rows: Sequence[Tensors]) -> Tensors:
    first = rows[0]["shapes"]
    for row in rows[1:]:
        if row["shapes"].shape != first.shape or not torch.equal(row["shapes"], first):
            raise DataError(
                f"pictures of one batch must have the same aspect and number of references, got token grids "
                f"{first.tolist()} and {row['shapes'].tolist()}; use batch_size: 1 or crop the pictures to one aspect"
            )
    return {name: torch.stack([row[name] for row in rows]) for name in ("latents", "shapes")}


def _collate_prompts(rows: Sequence[Tensors]) -> Tensors:
    embeds = [row["embeds"] for row in rows]
    stacked = nn.utils.rnn.pad_sequence(embeds, batch_first=True)
    lengths = torch.tensor([len(row) for row in embeds], device=stacked.device)
    if bool((lengths == stacked.shape[1]).all()):
        return {"embeds": stacked}
    return {"embeds": stacked, "mask": torch.arange(stacked.shape[1], device=stacked.device) < lengths[:, None]}


def model_timestep(sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the transformer's ``timestep`` for ``sigma`` ``[B]``: ``t = 1000 sigma`` cast to ``dtype``, then divided.

    In bf16 the stock pipeline thus sees .9570 for .9545; training must see the same.
    """
    return (sigma * 1000).to(dtype) / 1000


def velocity(
    backbone: nn.Module, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, dtype: torch.dtype, rounded: bool
) -> Tensor:
    """Return ``v`` ``[B, L, C]`` in fp32: noised tokens and reference tokens in, the noised ones' part out."""
    device = x.device
    shapes = [[(1, int(rows), int(columns)) for rows, columns in item] for item in source["shapes"].tolist()]
    mask = prompt.get("mask")
    # float32 says nothing about autocast: the run's own mixed precision, if any, stays in force
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
        output: Tensor = backbone(
            hidden_states=torch.cat([x, source["latents"].to(device, x.dtype)], dim=1),
            timestep=model_timestep(sigma.to(device), dtype if rounded else torch.float32),
            encoder_hidden_states=prompt["embeds"].to(device, dtype),
            encoder_hidden_states_mask=None if mask is None else mask.to(device),
            img_shapes=shapes,
            return_dict=False,
        )[0]
    return output[:, : x.shape[1]].float()


def features(
    backbone: Any,
    at: str,
    x: Tensor,
    sigma: Tensor,
    source: Tensors,
    prompt: Tensors,
    dtype: torch.dtype,
    rounded: bool,
) -> Tensor:
    """Return ``[B, L, D]`` in fp32: the noised tokens after the block ``at``; the blocks behind it are left out.

    A block returns its text and its picture tokens.  What a hook sees is also what leaves a checkpointed block.
    """
    blocks, count = backbone.transformer_blocks, int(at.rpartition(".")[2]) + 1
    seen: list[tuple[Tensor, Tensor]] = []
    handle = blocks[count - 1].register_forward_hook(lambda block, arguments, output: seen.append(output))
    backbone.transformer_blocks = blocks[:count]
    try:
        velocity(backbone, x, sigma, source, prompt, dtype, rounded)
    finally:
        backbone.transformer_blocks = blocks
        handle.remove()
    return seen[0][1][:, : x.shape[1]].float()
