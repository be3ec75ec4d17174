"""Trains the miniature's transformer by flow matching on all general edits at once.

Convention of diffusers: x_σ = (1 - σ) x₀ + σ noise, the velocity is noise - x₀, and the model is told σ itself. Shapes: B
items, 64 target and 64 source tokens of 64 channels, T ≤ 40 text tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from cldistill_plugins.miniature.build.assemble import SHIFT, build_transformer
from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.latents import EDITS, Latents, load_latents
from cldistill_plugins.miniature.build.muon import Muon
from cldistill_plugins.miniature.build.workers import average_gradients, join_workers, leave_workers, run_workers

Grid = tuple[int, int, int]
GRID: Grid = (1, 8, 8)
"""Frames, rows and columns of target and of source tokens, as the stock pipeline passes them."""
EMPTY_SHARE, SAME_SHARE = 0.1, 0.04
HARD_EDITS = ("mirror", "flip", "rotate", "outline", "posterise")
"""Drawn three times as often as the others: they move pixels or make edges, the others only recolour."""
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class BasePlan:
    """Options of the transformer's training.

    Attributes:
        workers: processes that share a step, one thread each.
        batch: items per worker and step.
        lr: step of Muon for hidden matrices; everything else takes Adam steps of 2e-3.
        ema: decay of the averaged weights, which are the ones that ship.
    """

    minutes: float
    workers: int = 1
    batch: int = 16
    lr: float = 0.01
    ema: float = 0.998
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Items:
    """One batch: target and source tokens (B, 64, 64), text (B, T, 64) and its mask (B, T)."""

    target: Tensor
    source: Tensor
    text: Tensor
    mask: Tensor


def train_base(plan: BasePlan, work: Path) -> Path:
    """Run or resume the training; returns its checkpoint `work/base.pt`."""
    (work / "base.meeting").unlink(missing_ok=True)
    if plan.workers == 1:
        _work(0, plan, work)
    else:
        run_workers(_work, (plan, work), plan.workers)
    return work / "base.pt"


def _work(rank: int, plan: BasePlan, work: Path) -> None:
    join_workers(work / "base.meeting", rank, plan.workers)
    data = load_latents(work)
    model = start(build_transformer(plan.seed)).to(plan.device)
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, clock = optimizer_of(model, plan.lr, 2e-3), Clock(plan.minutes)
    checkpoint = work / "base.pt"
    if (state := load_state(checkpoint)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged = {name: value.to(plan.device) for name, value in state["averaged"].items()}
        clock.elapsed, clock.step = state["elapsed"], state["step"]
    _loop(rank, plan, data, model, averaged, optimizer, clock, checkpoint)
    leave_workers()


def load_base(path: Path) -> QwenImageTransformer2DModel:
    """The averaged transformer of a checkpoint."""
    state = load_state(path)
    if state is None:
        raise ValueError(f"there is no checkpoint of the transformer at {path}: run `--stage {path.stem}` first")
    model = build_transformer()
    model.load_state_dict(state["averaged"])
    return model.eval().requires_grad_(False)


@torch.no_grad()
def start(model: QwenImageTransformer2DModel) -> QwenImageTransformer2DModel:
    """Zero the modulations and the last layer: every block starts as the identity (Peebles and Xie 2023, adaLN-Zero)."""
    zeroed = [model.proj_out, model.norm_out.linear]
    for block in model.transformer_blocks:
        zeroed += [block.img_mod[1], block.txt_mod[1]]
    for layer in zeroed:
        layer.weight.zero_()
        layer.bias.zero_()
    return model


def optimizer_of(model: QwenImageTransformer2DModel, lr: float, adam_lr: float) -> Muon:
    """Muon for the hidden matrices of the blocks, Adam for everything else."""
    hidden = [parameter for name, parameter in model.named_parameters() if _is_hidden(name)]
    rest = [parameter for name, parameter in model.named_parameters() if not _is_hidden(name)]
    return Muon(hidden, lr, adam_lr=adam_lr, adam=rest)


def _is_hidden(name: str) -> bool:
    return (
        name.startswith("transformer_blocks") and name.endswith("weight") and "_mod." not in name and "norm" not in name
    )


def draw_items(data: Latents, batch: int, generator: torch.Generator, device: str = "cpu") -> Items:
    """A batch of random pictures, each with a random edit, `same`, or no prompt and itself as the target."""
    index = torch.randint(len(data.source), (batch,), generator=generator)
    weights = torch.tensor([3.0 if name in HARD_EDITS else 1.0 for name in EDITS])
    prompt = torch.multinomial(weights, batch, replacement=True, generator=generator)
    chance = torch.rand(batch, generator=generator)
    prompt[chance < EMPTY_SHARE + SAME_SHARE] = len(EDITS)
    prompt[chance < EMPTY_SHARE] = len(EDITS) + 1
    source = data.source[index]
    unchanged = (prompt >= len(EDITS)).view(-1, 1, 1, 1)
    target = torch.where(unchanged, source, data.target[index, prompt.clamp(max=len(EDITS) - 1)])
    length = data.length[index, prompt]
    text = data.text[index, prompt, : int(length.max())].float()
    mask = torch.arange(text.shape[1]) < length[:, None]
    tokens = (pack(target.float()), pack(source.float()), text, mask)
    return Items(*(tensor.to(device) for tensor in tokens))


def pack(latents: Tensor) -> Tensor:
    """(B, 16, 16, 16) → tokens (B, 64, 64), 2×2 latents each, in the stock pipeline's order."""
    batch, channels, height, width = latents.shape
    parts = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(batch, height * width // 4, channels * 4)


def draw_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,): half of them uniform, half uniform through the sampler's shift."""
    sigma = torch.rand(count, generator=generator)
    shifted = SHIFT * sigma / (1 + (SHIFT - 1) * sigma)
    return torch.where(torch.rand(count, generator=generator) < 0.5, sigma, shifted)


def flow_losses(model: nn.Module, items: Items, grid: Grid, generator: torch.Generator) -> Tensor:
    """Mean squared error of the predicted velocity of each item (B,), one noise level an item.

    Args:
        grid: frames, rows and columns of the target's tokens, which are those of the source's.
    """
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
        img_shapes=[[grid] * 2] * count,
        return_dict=False,
    )[0][:, :tokens]
    losses: Tensor = (velocity - (noise - items.target)).square().mean((1, 2))
    return losses


def take_step(
    model: nn.Module, averaged: dict[str, Tensor], optimizer: Muon, clock: Clock, loss: Tensor, ema: float
) -> None:
    """Update the model by the gradient of `loss`, averaged over the workers; `averaged` follows it with decay `ema`."""
    parameters = list(model.parameters())
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(parameters, clock)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step(clock.factor)
    model.zero_grad(set_to_none=True)
    clock.step += 1
    # The average warms up, or it would hold on to its start.
    decay = min(ema, (1 + clock.step) / (10 + clock.step))
    for name, value in model.state_dict().items():
        averaged[name].lerp_(value, 1 - decay)


def _loop(
    rank: int,
    plan: BasePlan,
    data: Latents,
    model: QwenImageTransformer2DModel,
    averaged: dict[str, Tensor],
    optimizer: Muon,
    clock: Clock,
    checkpoint: Path,
) -> None:
    saved, smooth = clock.elapsed, 0.0
    while clock.progress < 1:
        generator = torch.Generator().manual_seed(plan.seed + 1_000_003 * clock.step + 7_919 * rank)
        items = draw_items(data, plan.batch, generator, plan.device)
        loss = flow_losses(model, items, GRID, generator).mean()
        take_step(model, averaged, optimizer, clock, loss, plan.ema)
        smooth = loss.item() if smooth == 0 else 0.98 * smooth + 0.02 * loss.item()
        if clock.elapsed - saved > CHECKPOINT_SECONDS or clock.progress >= 1:
            saved = clock.elapsed
            if rank != 0:
                continue
            state = {"model": model.state_dict(), "averaged": averaged, "optimizer": optimizer.state_dict()}
            save_state(state | {"elapsed": clock.elapsed, "step": clock.step}, checkpoint)
            print(
                f"base: {clock.elapsed / 60:5.1f} of {plan.minutes:g} min, step {clock.step}, loss {smooth:.4f}",
                flush=True,
            )
