"""The flow loss of the pipeline's transformer and of the wide one's average, on the same batches with the same noise."""

from collections import defaultdict
from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.wide import Shape, draw_wide, load_wide_base, wide_losses
from cldistill_plugins.miniature.build.wide_latents import load_wide

BATCHES, BATCH, SEED = 16, 24, 9_999_991


@torch.no_grad()
def mean_losses(
    model: QwenImageTransformer2DModel, data: dict[Shape, dict[str, Tensor]], batches: int
) -> dict[str, float]:
    """Mean loss of edits and of styles and filters, on square pictures and on others; fewer `batches`, less exact."""
    found: dict[str, list[float]] = defaultdict(list)
    for index in range(batches):
        generator = torch.Generator().manual_seed(SEED + index)
        items = draw_wide(data, BATCH, generator)
        shape = "square" if items.shape[0] == items.shape[1] else "long"
        for loss, task in zip(wide_losses(model, items, generator).tolist(), items.task.tolist(), strict=True):
            what = "unchanged" if task < 0 else "edits" if task < len(EDITS) else "styles and filters"
            found[f"{what}, {shape}"].append(loss)
    return {name: sum(losses) / len(losses) for name, losses in sorted(found.items())}


def compare(work: Path, pipeline: Path) -> str:
    """A line for every kind of task, for people."""
    torch.set_num_threads(1)
    data = load_wide(work)
    narrow = QwenImageTransformer2DModel.from_pretrained(pipeline / "transformer", torch_dtype=torch.float32)
    before, after = (mean_losses(model, data, BATCHES) for model in (narrow, load_wide_base(work / "wide.pt")))
    rows = [f"{name:<28}{before[name]:>9.4f}{after[name]:>9.4f}" for name in before]
    return "\n".join([f"{'flow loss':<28}{'narrow':>9}{'wide':>9}", *rows])
