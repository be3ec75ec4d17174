"""`python -m cldistill_plugins.miniature.build --work DIR`: the miniature base from nothing, in one command.

Every stage leaves its result in DIR and picks up where it stopped; run the command again after a kill.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cldistill_plugins.miniature.build import art, pictures
from cldistill_plugins.miniature.build.general import write_general
from cldistill_plugins.miniature.build.pool import vae_pool

PACKAGE = Path(__file__).parents[1]
POOL = 5000


@dataclass(frozen=True, slots=True)
class Options:
    """The command line; minutes are of training, without the preparation between the stages."""

    work: Path
    output: Path
    device: str
    workers: int
    sources: int
    vae_minutes: float
    decoder_minutes: float
    base_minutes: float
    task_sources: int
    task_minutes: list[float]


def prepare(options: Options) -> None:
    """Fetch the art, write the pictures and instructions that ship, compose the pool that the VAE trains on."""
    sprites = art.load_sprites(options.work)
    pictures.write_pictures(sprites, options.output / "pictures")
    write_general(options.output / "general")
    vae_pool(pictures.open_studio(sprites, "train"), POOL, options.work / f"vae-pool-{POOL}.npy")
    held_out = pictures.open_studio(sprites, "held-out")
    shipped = [held_out.picture(index) for index in range(pictures.SHIPPED["held-out"])]
    np.save(options.work / "held-out.npy", np.stack(shipped))


def train_joint(options: Options) -> None:
    """Train both halves of the VAE."""
    from cldistill_plugins.miniature.build.vae import VaePlan, train_vae

    workers = 1 if options.device != "cpu" else options.workers
    plan = VaePlan("joint", options.vae_minutes, workers=workers, batch=6, device=options.device)
    train_vae(plan, options.work, options.work / f"vae-pool-{POOL}.npy", options.work / "held-out.npy")


def train_decoder(options: Options) -> None:
    """Train the decoder on; the latents stay."""
    from cldistill_plugins.miniature.build.vae import VaePlan, train_vae

    workers = 1 if options.device != "cpu" else options.workers
    plan = VaePlan("decoder", options.decoder_minutes, workers=workers, batch=12, lr=0.005, device=options.device)
    train_vae(plan, options.work, options.work / f"vae-pool-{POOL}.npy", options.work / "held-out.npy")


def write_latents(options: Options) -> None:
    """Encode sources, edits and prompts."""
    from cldistill_plugins.miniature.build.latents import write_chunks

    write_chunks(options.work, options.sources, options.workers)


def train_transformer(options: Options) -> None:
    """Train the transformer on the latents."""
    from cldistill_plugins.miniature.build.base import BasePlan, train_base

    workers = 1 if options.device != "cpu" else options.workers
    train_base(BasePlan(options.base_minutes, workers=workers, batch=12, device=options.device), options.work)


def assemble(options: Options) -> None:
    """Write the pipeline from the newest checkpoints, whatever their progress."""
    from cldistill_plugins.miniature.build.assemble import stock_vae, write_pipeline
    from cldistill_plugins.miniature.build.base import load_base
    from cldistill_plugins.miniature.build.latents import load_latents
    from cldistill_plugins.miniature.build.provenance import provenance
    from cldistill_plugins.miniature.build.vae import load_vae

    vae = load_vae(_newest(options.work, "vae-decoder.pt", "vae-joint.pt"))
    latents = load_latents(options.work)
    made = provenance(options.work, len(latents.source), POOL)
    stock = stock_vae(vae, latents.mean.tolist(), latents.std.tolist())
    transformer = load_base(_newest(options.work, "tasks.pt", "tasks-first.pt", "base.pt"))
    write_pipeline(options.output / "pipeline", stock, transformer, made)


def _newest(work: Path, *names: str) -> Path:
    """The first of these checkpoints that there is, or the last name."""
    return next((work / name for name in names if (work / name).is_file()), work / names[-1])


def evaluate(options: Options) -> None:
    """Measure the pipeline and add the figures to its PROVENANCE.json."""
    import json

    from cldistill_plugins.miniature.build import evaluate as measure

    torch.set_num_threads(1)
    folder = options.output / "pipeline"
    shipped = measure.load_pictures(options.output / "pictures" / "held-out")
    pipeline = measure.load_pipeline(folder)
    figures = measure.report(measure.vae_psnr(pipeline, shipped), measure.score_edits(pipeline, shipped))
    path = folder / "PROVENANCE.json"
    made = json.loads(path.read_text(encoding="utf-8")) | {"figures": figures}
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    print(measure.table(figures))


def write_task_latents(options: Options) -> None:
    """Fetch the photos; encode sources of every shape, and what edits, styles and filters make of them."""
    from cldistill_plugins.miniature.build.task_latents import write_task_chunks

    write_task_chunks(options.work, options.output / "pipeline", options.task_sources)


def train_on_tasks(options: Options) -> None:
    """Train the transformer on, on edits, styles and filters in every shape: two phases."""
    from cldistill_plugins.miniature.build.task_training import phases, train_tasks

    start = options.work / "base.pt"
    workers = 1 if options.device != "cpu" else options.workers
    for plan in phases(options.task_minutes, workers, options.device):
        start = train_tasks(plan, options.work, start)


STAGES: dict[str, Callable[[Options], None]] = {
    "prepare": prepare,
    "vae": train_joint,
    "latents": write_latents,
    "base": train_transformer,
    "assemble": assemble,
    "task-latents": write_task_latents,
    "tasks": train_on_tasks,
    "decoder": train_decoder,
    "evaluate": evaluate,
}
WHOLE = (*(name for name in STAGES if name != "evaluate"), "assemble", "evaluate")
"""The stages of the whole build: the latents of the tasks are encoded by the pipeline as it stands before them."""


def main(arguments: list[str] | None = None) -> None:
    """Run one stage, or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m cldistill_plugins.miniature.build", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads, caches and checkpoints")
    parser.add_argument("--output", type=Path, default=PACKAGE, help="where pictures/ and pipeline/ go (the package)")
    parser.add_argument("--stage", choices=list(STAGES), help="run this stage only")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--sources", type=int, default=1200, help="pictures for the transformer, in hundreds")
    parser.add_argument("--vae-minutes", type=float, default=32)
    parser.add_argument("--decoder-minutes", type=float, default=16)
    parser.add_argument("--base-minutes", type=float, default=45)
    parser.add_argument("--task-sources", type=int, default=2400, help="pictures for all tasks, in twenties")
    parser.add_argument(
        "--task-minutes", type=float, nargs=2, default=[93, 48], metavar=("FIRST", "SECOND"), help="of the two phases"
    )
    values = vars(parser.parse_args(arguments))
    stage = values.pop("stage")
    options = Options(**values)
    options.work.mkdir(parents=True, exist_ok=True)
    for name in WHOLE if stage is None else (stage,):
        STAGES[name](options)


if __name__ == "__main__":
    main()
