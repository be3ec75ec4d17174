"""The optimiser of one slot or module: AdamW in fp32, its learning-rate phases, the average across ranks and the EMA."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cldistill.errors import CheckpointError
from cldistill.records import AdamW
from cldistill.training.run import LrPhase, SlotConfig

BUCKET = 64 * 1024 * 1024
"""Gradients are averaged across ranks in buckets of this many numbers (256 MB)."""


def learning_rate(phases: Sequence[LrPhase], step: int, total: int) -> float:
    """Return the rate at a 0-based generator step: the last phase begun, its warm-up, then its cosine to ``end_lr``."""
    index = max((i for i, phase in enumerate(phases) if phase.from_step <= step), default=0)
    phase = phases[index]
    end = phases[index + 1].from_step if index + 1 < len(phases) else total
    done = step - phase.from_step
    if done < phase.warmup:
        return phase.lr * (done + 1) / phase.warmup
    if phase.end_lr is None:
        return phase.lr
    share = min(1.0, max(0.0, (done - phase.warmup) / max(1, end - phase.from_step - phase.warmup)))
    return phase.end_lr + (phase.lr - phase.end_lr) * 0.5 * (1.0 + math.cos(math.pi * share))


def ema_decay(limit: float, updates: int) -> float:
    """Return ``min(limit, (1 + n) / (10 + n))``: a young average follows the weights instead of holding the start."""
    return min(limit, (1.0 + updates) / (10.0 + updates))


class Optimizer:
    """AdamW over the fp32 weights of one slot or one term's module, with state by parameter *name*, not by order."""

    def __init__(self, config: SlotConfig | AdamW, parameters: Mapping[str, nn.Parameter]) -> None:
        self.phases = (LrPhase(0, config.lr),) if isinstance(config, AdamW) else config.lr
        self.ema = None if isinstance(config, AdamW) else config.ema
        self.parameters = dict(parameters)
        self.ema_device = None if isinstance(config, AdamW) else config.ema_device
        self.on_gpu = all(value.is_cuda for value in self.parameters.values())
        self.eight_bit = isinstance(config, SlotConfig) and config.moments == "8bit"
        adamw: Any = partial(torch.optim.AdamW, fused=self.on_gpu or None)  # else a copy of all moments
        if self.eight_bit:
            from torchao.optim import AdamW8bit

            adamw = AdamW8bit
        weights, decay = list(self.parameters.values()), config.weight_decay
        self.adamw: torch.optim.Optimizer = adamw(weights, self.phases[0].lr, config.betas, weight_decay=decay)
        self.updates = 0
        self.average: dict[str, Tensor] | None = None
        self.reset_average()

    def reset_average(self) -> None:
        """Start the EMA at the present weights."""
        if self.ema is not None:
            place = self.ema_device
            self.average = {n: v.detach().to(place or v.device, copy=True) for n, v in self.parameters.items()}

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.adamw.zero_grad(set_to_none=True)

    def gradients(self) -> list[Tensor]:
        """Return all gradients, zeros where a parameter was not reached."""
        for value in self.parameters.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        return [value.grad for value in self.parameters.values() if value.grad is not None]

    @torch.no_grad()
    def apply(self, lr: float) -> None:
        """Make one update and move the EMA."""
        self._step(lr)
        self.updates += 1
        if self.average is not None and self.ema is not None:
            weight = 1.0 - ema_decay(self.ema, self.updates)
            values = [self.parameters[name].data.to(value.device) for name, value in self.average.items()]
            torch._foreach_lerp_(list(self.average.values()), values, weight)

    def _step(self, lr: float) -> None:
        for group in self.adamw.param_groups:
            group["lr"] = torch.tensor(lr) if self.eight_bit else lr
        # torchao compiles its update, which on a CPU, perhaps without a compiler, is not worth the wait
        with torch.compiler.set_stance("force_eager") if self.eight_bit and not self.on_gpu else nullcontext():
            self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """Return Adam's state as named tensors: ``<parameter>.<exp_avg | exp_avg_sq | step>`` and ``updates``.

        A moment in 8 bits is several: ``.codes``, ``.scale`` and ``.qmap``.  They are the live ones, not copies: the next
        update changes them.  (A copy of all would take 8 bytes a parameter of the device's memory.)
        """
        tensors = {"updates": torch.tensor(self.updates)}
        for name, value in self.parameters.items():
            for key, part in self.adamw.state.get(value, {}).items():
                if is_traceable_wrapper_subclass(part):
                    tensors |= {f"{name}.{key}.{own}": getattr(part, own) for own in part.__tensor_flatten__()[0]}
                else:
                    tensors[f"{name}.{key}"] = torch.as_tensor(part).detach()
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; CheckpointError where the moments were kept in other bits."""
        self.updates = int(tensors["updates"])
        for name, value in self.parameters.items():  # what no update has reached has no state
            value.grad = torch.zeros_like(value) if f"{name}.step" in tensors else None
        self._step(0.0)  # makes the state, and moves nothing
        self.zero_grad()
        own = self.state()
        if own.keys() != tensors.keys():
            raise CheckpointError("it has Adam's moments in other bits: set the slot's `moments` as it was there")
        for name, part in own.items():
            part.copy_(tensors[name])

    def warm_start(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the moments and the average's age of an earlier run; what it exported is in the parameters already."""
        self.load(tensors)
        self.reset_average()


def average_gradients(gradients: Sequence[Tensor], bad: bool, accelerator: object) -> bool:
    """Average the gradients across ranks, in place; return whether any rank met a non-finite loss.

    The flag travels with the gradients, so that all ranks skip the same updates.
    """
    if getattr(accelerator, "num_processes", 1) == 1:
        return bad
    flag = torch.tensor([1.0 if bad else 0.0], device=gradients[0].device)
    for bucket in _buckets([*gradients, flag]):
        flat = torch.cat([part.reshape(-1) for part in bucket])
        flat = accelerator.reduce(flat, "mean")  # type: ignore[attr-defined]
        for part, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            part.copy_(mean.view_as(part))
    return bool(flag.item() > 0)


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if filled + tensor.numel() > BUCKET and buckets[-1]:
            buckets.append([])
            filled = 0
        buckets[-1].append(tensor)
        filled += tensor.numel()
    return buckets
