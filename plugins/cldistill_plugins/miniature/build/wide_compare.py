"""The pipeline's transformer beside the wide one: flow loss on the same batches, and the general edits on training pictures."""

from collections import defaultdict
from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from cldistill_plugins.miniature.build import evaluate
from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.wide import Shape, draw_wide, load_wide_base, wide_losses
from cldistill_plugins.miniature.build.wide_latents import load_wide

BATCHES, BATCH, SEED = 16, 24, 9_999_991
PICTURES = 4
"""Training pictures for the edits: the last ones that ship."""


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


def compare_losses(work: Path, pipeline: Path) -> str:
    """A line for every kind of task, for people."""
    torch.set_num_threads(1)
    data = load_wide(work)
    narrow = QwenImageTransformer2DModel.from_pretrained(pipeline / "transformer", torch_dtype=torch.float32)
    before, after = (mean_losses(model, data, BATCHES) for model in (narrow, load_wide_base(work / "wide.pt")))
    rows = [f"{name:<28}{before[name]:>9.4f}{after[name]:>9.4f}" for name in before]
    return "\n".join([f"{'flow loss':<28}{'narrow':>9}{'wide':>9}", *rows])


def compare_edits(pipeline: Path, wide: Path, pictures: Path) -> str:
    """Return the factor by which each edit is nearer to the truth than the source, by both pipelines, on training pictures."""
    torch.set_num_threads(1)
    shown = evaluate.load_pictures(pictures)[-PICTURES:]
    narrow, broad = (evaluate.score_edits(evaluate.load_pipeline(folder), shown) for folder in (pipeline, wide))
    rows = [f"{name:<12}{narrow[name].gain:>9.1f}{broad[name].gain:>9.1f}" for name in EDITS]
    means = [sum(scores[name].gain for name in EDITS) / len(EDITS) for scores in (narrow, broad)]
    return "\n".join([f"{'edit':<12}{'narrow':>9}{'wide':>9}", *rows, f"{'mean':<12}{means[0]:>9.1f}{means[1]:>9.1f}"])
