"""Trains the wide transformer on: from the narrow one, on edits, styles and filters together, in every shape.

Shapes: B items of one shape of picture, N target and N source tokens of 64 channels, T text tokens.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cldistill_plugins.miniature.build.assemble import WIDE_HEADS, build_transformer
from cldistill_plugins.miniature.build.base import EMPTY_SHARE, SAME_SHARE, draw_sigmas, optimizer_of, pack
from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.muon import Muon
from cldistill_plugins.miniature.build.shapes import token_grid
from cldistill_plugins.miniature.build.tasks import EDITS_A_PICTURE, TASKS_A_PICTURE
from cldistill_plugins.miniature.build.wide_latents import load_wide
from cldistill_plugins.miniature.build.widen import widened
from cldistill_plugins.miniature.build.workers import average_gradients, join_workers, leave_workers, run_workers

CHECKPOINT_SECONDS = 120.0
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class WidePlan:
    """The settings of the wide transformer's training.

    Attributes:
        minutes: of training in all; the rate falls over the last `decay` of them.
        workers: processes that share a step, one thread each.
        batch: items per worker and step, all of one shape.
        lr: step of Muon for hidden matrices; everything else takes Adam steps of `adam_lr`.
        ema: decay of the averaged weights, which are the ones that ship.
        edits: share of general edits among the items that ask for anything; None for as many as the chunks hold.
        narrow: train the narrow transformer as it is. At equal seconds it leads for the first hour, and what it has learned
            is kept when it is widened.
        start: safetensors of the narrow transformer's weights to begin with, instead of the pipeline's.
    """

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
    narrow: bool = False
    start: Path | None = None

    @property
    def name(self) -> str:
        """Of the checkpoint and the weights, without their ending."""
        return "wide-narrow" if self.narrow else "wide"


@dataclass(frozen=True, slots=True)
class WideItems:
    """One batch: target and source tokens (B, N, 64), text (B, T, 64), its mask (B, T), and whose turn it was (B,).

    Attributes:
        task: number of the task, or −1 for `same` and the empty prompt.
    """

    shape: Shape
    target: Tensor
    source: Tensor
    text: Tensor
    mask: Tensor
    task: Tensor


def train_wide(plan: WidePlan, work: Path, pipeline: Path) -> Path:
    """Run or resume the training; returns its checkpoint, beside which the averaged weights lie as safetensors."""
    (work / "wide.meeting").unlink(missing_ok=True)
    if plan.workers == 1:
        _work(0, plan, work, pipeline)
    else:
        run_workers(_work, (plan, work, pipeline), plan.workers)
    return work / f"{plan.name}.pt"


def _work(rank: int, plan: WidePlan, work: Path, pipeline: Path) -> None:
    join_workers(work / "wide.meeting", rank, plan.workers)
    started = work / "wide-narrow.pt"
    if not plan.narrow and started.is_file():
        narrow = load_wide_base(started)
    else:
        narrow = QwenImageTransformer2DModel.from_pretrained(pipeline / "transformer", torch_dtype=torch.float32)
        if plan.start is not None:
            narrow.load_state_dict({name: value.float() for name, value in load_file(plan.start).items()})
    model = narrow if plan.narrow else widened(narrow, WIDE_HEADS, plan.seed)
    model = model.to(plan.device).train().requires_grad_(True)
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, clock, spent = optimizer_of(model, plan.lr, plan.adam_lr), Clock(plan.minutes, plan.decay), 0.0
    if (state := load_state(work / f"{plan.name}.pt")) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged = {name: value.to(plan.device) for name, value in state["averaged"].items()}
        clock.elapsed, clock.step, spent = state["elapsed"], state["step"], state["cpu"]
    _Training(rank, plan, work, load_wide(work), model, averaged, optimizer, clock, spent).run()
    leave_workers()


def load_wide_base(path: Path) -> QwenImageTransformer2DModel:
    """The averaged transformer of a checkpoint of the wide training.

    Raises:
        ValueError: there is no such checkpoint.
    """
    state = load_state(path)
    if state is None:
        raise ValueError(f"there is no checkpoint of the wide transformer at {path}: run `--stage wide` first")
    heads = state["averaged"]["img_in.weight"].shape[0] // 32
    model = build_transformer(heads=heads)
    model.load_state_dict(state["averaged"])
    return model.eval().requires_grad_(False)


def write_wide_pipeline(work: Path, pipeline: Path, folder: Path) -> None:
    """Write to `folder` the pipeline that lies in `pipeline`, with the averaged wide transformer in half precision."""
    model = load_wide_base(work / "wide.pt")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pipeline, folder, ignore=shutil.ignore_patterns("transformer"))
    model.half().save_pretrained(folder / "transformer", safe_serialization=True)


def draw_wide(
    data: dict[Shape, dict[str, Tensor]],
    batch: int,
    generator: torch.Generator,
    device: str = "cpu",
    edits: float | None = None,
) -> WideItems:
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
    return WideItems(shape, *(tensor.to(device) for tensor in tensors))


def wide_losses(model: nn.Module, items: WideItems, generator: torch.Generator) -> Tensor:
    """Mean squared error of the predicted velocity of each item (B,), one noise level an item."""
    count, tokens = items.target.shape[:2]
    device = items.target.device
    noise = torch.randn(items.target.shape, generator=generator).to(device)
    sigma = draw_sigmas(count, generator).to(device)
    level = sigma.view(-1, 1, 1)
    velocity = model(
        hidden_states=torch.cat([(1 - level) * items.target + level * noise, items.source], dim=1),
        timestep=sigma,
        encoder_hidden_states=items.text,
        encoder_hidden_states_mask=items.mask,
        img_shapes=[[token_grid(*items.shape)] * 2] * count,
        return_dict=False,
    )[0][:, :tokens]
    losses: Tensor = (velocity - (noise - items.target)).square().mean((1, 2))
    return losses


@dataclass(slots=True)
class _Training:
    """The loop and what it carries; `spent` are seconds of this processor, which tell more than the clock on a busy machine."""

    rank: int
    plan: WidePlan
    work: Path
    data: dict[Shape, dict[str, Tensor]]
    model: QwenImageTransformer2DModel
    averaged: dict[str, Tensor]
    optimizer: Muon
    clock: Clock
    spent: float

    def run(self) -> None:
        """Train until the planned time is over."""
        plan, clock, saved = self.plan, self.clock, self.clock.elapsed
        parameters = list(self.model.parameters())
        recent: list[tuple[float, int]] = []
        began = time.process_time() - self.spent
        while clock.progress < 1:
            generator = torch.Generator().manual_seed(plan.seed + 1_000_003 * clock.step + 7_919 * self.rank)
            items = draw_wide(self.data, plan.batch, generator, plan.device, plan.edits)
            losses = wide_losses(self.model, items, generator)
            losses.mean().backward()  # type: ignore[no-untyped-call]
            average_gradients(parameters, clock)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step(clock.factor)
            self.model.zero_grad(set_to_none=True)
            clock.step += 1
            decay = min(plan.ema, (1 + clock.step) / (10 + clock.step))
            for name, value in self.model.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)
            recent += zip(losses.tolist(), items.task.tolist(), strict=True)
            if (clock.elapsed - saved > CHECKPOINT_SECONDS or clock.progress >= 1) and self.rank == 0:
                saved, self.spent = clock.elapsed, time.process_time() - began
                self._save()
                print(self._line(recent), flush=True)
                recent.clear()

    def _save(self) -> None:
        clock, path = self.clock, self.work / f"{self.plan.name}.pt"
        state = {"model": self.model.state_dict(), "averaged": self.averaged, "optimizer": self.optimizer.state_dict()}
        save_state(state | {"elapsed": clock.elapsed, "step": clock.step, "cpu": self.spent}, path)
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
            f"{self.plan.name}: {clock.elapsed / 60:.1f} of {self.plan.minutes:g} min ({self.spent:.0f} s of processor), "
            f"step {clock.step}, loss since the last line: {means}"
        )
