"""Trains the transformer on: on edits, styles and filters together, in every shape.

Shapes: B items of one shape of picture, N target and N source tokens of 64 channels, T text tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from cldistill_plugins.miniature.build.base import (
    EMPTY_SHARE,
    SAME_SHARE,
    Items,
    flow_losses,
    load_base,
    optimizer_of,
    pack,
    take_step,
)
from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.muon import Muon
from cldistill_plugins.miniature.build.shapes import token_grid
from cldistill_plugins.miniature.build.task_latents import load_task_chunks
from cldistill_plugins.miniature.build.tasks import EDITS_A_PICTURE, TASKS_A_PICTURE
from cldistill_plugins.miniature.build.workers import join_workers, leave_workers, run_workers

CHECKPOINT_SECONDS = 120.0
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One phase of the training on all tasks.

    Attributes:
        name: of its checkpoint `work/<name>.pt`, beside which the averaged weights lie as safetensors.
        minutes: of training in all; the rate falls over the last `decay` of them.
        workers: processes that share a step, one thread each.
        batch: items per worker and step, all of one shape.
        lr: step of Muon for hidden matrices; everything else takes Adam steps of `adam_lr`.
        ema: decay of the averaged weights, which are the ones that ship.
        edits: share of general edits among the items that ask for anything; None for as many as the chunks hold.
    """

    name: str
    minutes: float
    workers: int = 1
    batch: int = 24
    lr: float = 0.006
    adam_lr: float = 1e-3
    ema: float = 0.998
    decay: float = 0.3
    edits: float | None = None
    seed: int = 0
    device: str = "cpu"


def phases(minutes: Sequence[float], workers: int = 1, device: str = "cpu") -> tuple[TaskPlan, TaskPlan]:
    """The two phases of the transformer that ships: all tasks as the chunks hold them, then more of the general edits at a
    lower, long falling rate."""
    first, second = minutes
    return (
        TaskPlan("tasks-first", first, workers=workers, device=device),
        TaskPlan("tasks", second, workers=workers, lr=0.004, decay=0.7, edits=0.6, seed=4, device=device),
    )


@dataclass(frozen=True, slots=True)
class TaskItems(Items):
    """One batch, whose pictures have one shape, and whose turn it was (B,).

    Attributes:
        task: number of the task, or −1 for `same` and the empty prompt.
    """

    task: Tensor
    shape: Shape


def train_tasks(plan: TaskPlan, work: Path, start: Path) -> Path:
    """Run or resume one phase; returns its checkpoint.

    Args:
        start: checkpoint whose averaged weights it begins with.
    """
    (work / "tasks.meeting").unlink(missing_ok=True)
    if plan.workers == 1:
        _work(0, plan, work, start)
    else:
        run_workers(_work, (plan, work, start), plan.workers)
    return work / f"{plan.name}.pt"


def _work(rank: int, plan: TaskPlan, work: Path, start: Path) -> None:
    join_workers(work / "tasks.meeting", rank, plan.workers)
    model = load_base(start).to(plan.device).train().requires_grad_(True)
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, clock = optimizer_of(model, plan.lr, plan.adam_lr), Clock(plan.minutes, plan.decay)
    if (state := load_state(work / f"{plan.name}.pt")) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged = {name: value.to(plan.device) for name, value in state["averaged"].items()}
        clock.elapsed, clock.step = state["elapsed"], state["step"]
    _Training(rank, plan, work, load_task_chunks(work), model, averaged, optimizer, clock).run()
    leave_workers()


def draw_items(
    data: dict[Shape, dict[str, Tensor]],
    batch: int,
    generator: torch.Generator,
    device: str = "cpu",
    edits: float | None = None,
) -> TaskItems:
    """A batch of random pictures of one random shape, each with one of its tasks, `same`, or no prompt and itself as target.

    Args:
        edits: share of general edits among the tasks; the chunks' own where it is None.
    """
    shapes = list(data)
    share = torch.tensor([float(len(data[shape]["source"])) for shape in shapes])
    shape = shapes[int(torch.multinomial(share, 1, generator=generator))]
    part = data[shape]
    index = torch.randint(len(part["source"]), (batch,), generator=generator)
    turn = torch.randint(TASKS_A_PICTURE, (batch,), generator=generator)
    if edits is not None:
        edit = torch.rand(batch, generator=generator) < edits
        others = torch.randint(EDITS_A_PICTURE, TASKS_A_PICTURE, (batch,), generator=generator)
        turn = torch.where(edit, torch.randint(EDITS_A_PICTURE, (batch,), generator=generator), others)
    chance = torch.rand(batch, generator=generator)
    turn[chance < EMPTY_SHARE + SAME_SHARE] = TASKS_A_PICTURE
    turn[chance < EMPTY_SHARE] = TASKS_A_PICTURE + 1
    unchanged, known = turn >= TASKS_A_PICTURE, turn.clamp(max=TASKS_A_PICTURE - 1)
    source = part["source"][index]
    target = torch.where(unchanged.view(-1, 1, 1, 1), source, part["target"][index, known])
    length = part["length"][index, turn]
    text = part["text"][index, turn, : int(length.max())].float()
    mask = torch.arange(text.shape[1]) < length[:, None]
    task = torch.where(unchanged, -1, part["task"][index, known])
    tensors = (pack(target.float()), pack(source.float()), text, mask, task)
    target, source, text, mask, task = (tensor.to(device) for tensor in tensors)
    return TaskItems(target, source, text, mask, task, shape)


@dataclass(slots=True)
class _Training:
    """The loop and what it carries."""

    rank: int
    plan: TaskPlan
    work: Path
    data: dict[Shape, dict[str, Tensor]]
    model: QwenImageTransformer2DModel
    averaged: dict[str, Tensor]
    optimizer: Muon
    clock: Clock

    def run(self) -> None:
        """Train until the planned time is over."""
        plan, clock, saved = self.plan, self.clock, self.clock.elapsed
        recent: list[tuple[float, int]] = []
        while clock.progress < 1:
            generator = torch.Generator().manual_seed(plan.seed + 1_000_003 * clock.step + 7_919 * self.rank)
            items = draw_items(self.data, plan.batch, generator, plan.device, plan.edits)
            losses = flow_losses(self.model, items, token_grid(*items.shape), generator)
            take_step(self.model, self.averaged, self.optimizer, clock, losses.mean(), plan.ema)
            recent += zip(losses.tolist(), items.task.tolist(), strict=True)
            if (clock.elapsed - saved > CHECKPOINT_SECONDS or clock.progress >= 1) and self.rank == 0:
                saved = clock.elapsed
                self._save()
                print(self._line(recent), flush=True)
                recent.clear()

    def _save(self) -> None:
        clock, path = self.clock, self.work / f"{self.plan.name}.pt"
        state = {"model": self.model.state_dict(), "averaged": self.averaged, "optimizer": self.optimizer.state_dict()}
        save_state(state | {"elapsed": clock.elapsed, "step": clock.step}, path)
        aside = path.with_suffix(".safetensors.part")
        save_file({name: value.half().contiguous() for name, value in self.averaged.items()}, aside)
        aside.replace(path.with_suffix(".safetensors"))

    def _line(self, recent: list[tuple[float, int]]) -> str:
        groups = {
            "edits": [loss for loss, task in recent if 0 <= task < len(EDITS)],
            "others": [loss for loss, task in recent if task >= len(EDITS)],
        }
        means = ", ".join(f"{name} {sum(losses) / max(1, len(losses)):.4f}" for name, losses in groups.items())
        clock = self.clock
        return (
            f"{self.plan.name}: {clock.elapsed / 60:.1f} of {self.plan.minutes:g} min, step {clock.step}, "
            f"loss since the last line: {means}"
        )
