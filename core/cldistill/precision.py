"""Mixed precision: every call of the backbone runs under the run's autocast, whoever makes it.

Losses, the training of teachers, samplers and the export's check all call ``base.predict``, so that one is wrapped.  LoRA
weights, losses and optimisers stay in fp32; autocast casts copies.  (A recompute of gradient checkpointing re-enters the
autocast of its forward by itself.)
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

    from cldistill.protocols import BaseModel
    from cldistill.records import Tensors

NONE = "no"
"""accelerate's word for full precision."""


def run_under_autocast(base: BaseModel, accelerator: Accelerator) -> None:
    """Let ``base.predict`` run under the mixed precision that accelerate chose; it still returns fp32."""
    if accelerator.mixed_precision == NONE:
        return
    predict = base.predict

    @wraps(predict)
    def under_autocast(x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        with accelerator.autocast():
            return predict(x, sigma, source, prompt).float()

    under_autocast.mixed_precision = accelerator.mixed_precision  # type: ignore[attr-defined]
    base.predict = under_autocast  # type: ignore[method-assign]


def precision_of(base: BaseModel) -> str:
    """Return the mixed precision that `run_under_autocast` gave to a base: ``no`` or ``bf16``."""
    return str(getattr(base.predict, "mixed_precision", NONE))


def precision_key(base: BaseModel) -> tuple[str, ...]:
    """Return what mixed precision adds to the cache key of anything that the backbone made; nothing in full precision."""
    precision = precision_of(base)
    return () if precision == NONE else (f"mixed precision {precision}",)
