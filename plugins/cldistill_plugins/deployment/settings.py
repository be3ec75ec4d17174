"""Options of ``cldistill group``'s rule, torch-free."""

from __future__ import annotations

from pydantic import Field

from cldistill.component import LocalPath, Settings


class LeastInterferenceSettings(Settings):
    """``--option``s of ``cldistill group``: read by its command, followed by `LeastInterference`."""

    evaluation: LocalPath | None = Field(
        None,
        description="folder of a `cldistill eval`: group by how often one effect's output is nearest to another's truth, "
        "instead of by gradients",
    )
    system: str | None = Field(None, description="whose outputs in that evaluation; by default its last system's")
    batches: int = Field(8, ge=2, description="batches of each effect over which its gradient is averaged")
    warm_up: int = Field(
        200, ge=0, description="steps of flow matching on all effects before gradients are compared; undone afterwards"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate of the warm-up (AdamW)")
    sketch: int = Field(
        65536, ge=16, description="numbers kept of each gradient; inner products are off by about 1/sqrt"
    )
    starts: int = Field(32, ge=1, description="local searches for the split; the best is kept")
    seed: int = Field(0, description="of the sketch and the searches")
