"""Mixed precision: every call of the backbone runs under the run's autocast, whoever makes it.

Losses, the training of teachers, samplers and the export's check all call ``base.predict``, so that one is wrapped, and
``base.features`` with it.  LoRA weights, losses and optimisers stay in fp32; autocast casts copies.  (A recompute of gradient
checkpointing re-enters the autocast of its forward by itself.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

    from cldistill.protocols import BaseModel

P = ParamSpec("P")
NONE = "no"
"""accelerate's word for full precision."""


def run_under_autocast(base: BaseModel, accelerator: Accelerator) -> None:
    """Let ``predict`` and ``features`` run under the mixed precision that accelerate chose; they still return fp32."""
    if accelerator.mixed_precision == NONE:
        return

    def under_autocast(call: Callable[P, Tensor]) -> Callable[P, Tensor]:
        @wraps(call)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            with accelerator.autocast():
                return call(*args, **kwargs).float()

        wrapped.mixed_precision = accelerator.mixed_precision  # type: ignore[attr-defined]
        return wrapped

    base.predict = under_autocast(base.predict)  # type: ignore[method-assign]
    base.features = under_autocast(base.features)  # type: ignore[method-assign]


def precision_of(base: BaseModel) -> str:
    """Return the mixed precision that `run_under_autocast` gave to a base: ``no`` or ``bf16``."""
    return str(getattr(base.predict, "mixed_precision", NONE))


def precision_key(base: BaseModel) -> tuple[str, ...]:
    """Return what mixed precision adds to the cache key of anything that the backbone made; nothing in full precision."""
    precision = precision_of(base)
    return () if precision == NONE else (f"mixed precision {precision}",)
