"""Trains the miniature's VAE: first both halves on random crops, then the decoder alone while the latents stay as they are.

Loss: L1 + L2 between a picture and its reconstruction, from latents with a little noise so that near latents decode to near
pictures (a transformer never hits a latent exactly, and LoRAs are trained on this space from twenty pairs).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.image_vae import ImageVAE
from cldistill_plugins.miniature.build.muon import Muon
from cldistill_plugins.miniature.build.pictures import SIZE
from cldistill_plugins.miniature.build.workers import average_gradients, join_workers, leave_workers, run_workers

NOISE = 0.05
"""Standard deviation of the noise on the latents while training, in units of theirs."""
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class VaePlan:
    """One stage of VAE training.

    Attributes:
        stage: `joint` trains everything; `decoder` keeps the encoder and hence the latents.
        workers: processes that share a step, one thread each.
        batch: crops (of 64 pixels) per worker and step; a whole picture counts as four.
        lr: step of Muon; 0.01 is known good.
    """

    stage: Literal["joint", "decoder"]
    minutes: float
    workers: int = 1
    batch: int = 8
    lr: float = 0.01
    seed: int = 0
    device: str = "cpu"


def train_vae(plan: VaePlan, work: Path, pool: Path, held_out: Path) -> Path:
    """Run or resume one stage; returns its checkpoint `work/vae-<stage>.pt`.

    Args:
        pool: .npy of training pictures, uint8 (N, 128, 128, 3).
        held_out: .npy of the pictures that PSNR is measured on, same layout.
    """
    meeting = work / f"vae-{plan.stage}.meeting"
    meeting.unlink(missing_ok=True)
    if plan.workers == 1:
        _work(0, plan, work, pool, held_out)
    else:
        run_workers(_work, (plan, work, pool, held_out), plan.workers)
    return work / f"vae-{plan.stage}.pt"


def load_vae(path: Path) -> ImageVAE:
    """The VAE of a checkpoint, ready to use."""
    state = load_state(path)
    if state is None:
        raise ValueError(f"there is no VAE checkpoint at {path}: run the stage that makes it first")
    vae = ImageVAE()
    vae.load_state_dict(state["vae"])
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _work(rank: int, plan: VaePlan, work: Path, pool: Path, held_out: Path) -> None:
    join_workers(work / f"vae-{plan.stage}.meeting", rank, plan.workers)
    torch.manual_seed(plan.seed)
    vae = ImageVAE()
    checkpoint = work / f"vae-{plan.stage}.pt"
    state = load_state(checkpoint)
    if state is None and plan.stage == "decoder":
        vae.load_state_dict(load_vae(work / "vae-joint.pt").state_dict())
    vae = vae.to(memory_format=torch.channels_last).to(plan.device)
    if plan.stage == "decoder":
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimizer = Muon(vae.parameters(), plan.lr, adam_lr=1e-3)
    clock = Clock(plan.minutes)
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        clock.elapsed, clock.step = state["elapsed"], state["step"]
    _loop(rank, plan, vae, optimizer, clock, np.load(pool, mmap_mode="r"), np.load(held_out), checkpoint)
    leave_workers()


def _loop(
    rank: int,
    plan: VaePlan,
    vae: ImageVAE,
    optimizer: Muon,
    clock: Clock,
    pool: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    checkpoint: Path,
) -> None:
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    saved = clock.elapsed
    loss = torch.zeros(())
    while clock.progress < 1:
        rng = np.random.default_rng([plan.seed, plan.stage == "decoder", clock.step, rank])
        torch.manual_seed(int(rng.integers(2**31)))
        loss = _loss(
            vae,
            _batch(pool, rng, plan.batch, 64 if plan.stage == "joint" and clock.progress < 0.6 else SIZE).to(
                plan.device
            ),
        )
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(trained, clock)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step(clock.factor)
        for parameter in trained:
            parameter.grad = None
        clock.step += 1
        if clock.elapsed - saved > CHECKPOINT_SECONDS or clock.progress >= 1:
            saved = clock.elapsed
            if rank == 0:
                _save(vae, optimizer, clock, checkpoint)
                print(_line(plan, clock, loss.item(), psnr(vae, held_out, plan.device)), flush=True)


def _batch(pool: NDArray[np.uint8], rng: np.random.Generator, crops: int, size: int) -> Tensor:
    """Random crops of `size` pixels; the later part of training sees whole pictures, as borders and attention know the size."""
    count = crops if size == 64 else max(1, crops // 4)
    corners = rng.integers(pool.shape[1] - size + 1, size=(count, 2))
    chosen = zip(rng.integers(len(pool), size=count), corners, strict=True)
    cut = np.stack([pool[index, top : top + size, left : left + size] for index, (top, left) in chosen])
    return to_tensor(cut)


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) → float (B, 3, H, W) in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> NDArray[np.uint8]:
    """Float (B, 3, H, W) in [-1, 1] → uint8 (B, H, W, 3)."""
    pixels = ((tensor.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    result: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return result


def _loss(vae: ImageVAE, pictures: Tensor) -> Tensor:
    latents = vae.encode(pictures)
    noisy = latents + NOISE * latents.detach().std() * torch.randn_like(latents)
    error = vae.decode(noisy) - pictures
    # The small last term keeps the scale of the latents from drifting; the noise is relative, so it costs nothing else.
    return error.abs().mean() + error.square().mean() + 5e-4 * latents.square().mean()


def _save(vae: ImageVAE, optimizer: Muon, clock: Clock, checkpoint: Path) -> None:
    state: dict[str, Any] = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
    save_state(state | {"elapsed": clock.elapsed, "step": clock.step}, checkpoint)


@torch.no_grad()
def psnr(vae: ImageVAE, pictures: NDArray[np.uint8], device: str = "cpu") -> float:
    """Mean PSNR in dB of reconstructions, each picture on its own, from the mean of its latents."""
    decibels = []
    for start in range(0, len(pictures), 8):
        truth = to_tensor(pictures[start : start + 8]).to(device)
        error = (vae.decode(vae.encode(truth)).clamp(-1, 1) - truth).square().mean((1, 2, 3))
        decibels.append(10 * torch.log10(4 / error))
    return float(torch.cat(decibels).mean())


def _line(plan: VaePlan, clock: Clock, loss: float, decibel: float) -> str:
    return (
        f"vae {plan.stage}: {clock.elapsed / 60:5.1f} of {plan.minutes:g} min, step {clock.step}, loss {loss:.4f}, "
        f"held-out PSNR {decibel:.2f} dB"
    )
