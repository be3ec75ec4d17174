"""The released schedule of CollectionLoRA against this engine's: one configuration, one run, cycles in turn.

    python examples/benchmark_step.py                                        the miniature's shape, on what there is
    python examples/benchmark_step.py --size mid --cycles 4 --device cpu --out mid.json
    python examples/benchmark_step.py --size mid --set base.options.dtype=bfloat16 --set base.options.resolution=1024

A *cycle* is one generator step with its five critic updates.  The released schedule keeps three copies of the backbone,
follows the student's trajectory through all its steps before it picks one, computes texture and anchor on zeros in the
general stream, and encodes pictures and prompts for every update.  It is written here from the paper (arXiv 2605.25378)
and from notes on the order of the released code's calls, over the same layers, losses, precision and checkpointing as
ours.  Weights are random; the classes are diffusers' own.  Each schedule has a process of its own, the others wait while it
works; its memory is what the process gained since it began, on CUDA what its tensors take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from contextlib import suppress
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from diffusers import QwenImageTransformer2DModel
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from cldistill.adapters.files import load_adapter
from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.assemble import assemble, start
from cldistill.data.dataset import Dataset, Example
from cldistill.data.items import open_picture
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.prompts import isolate
from cldistill.prepare import pool_rows
from cldistill.protocols import BaseModel, PromptIsolator
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, Batch, Conditioning, Item, Prompts, RouteRequest
from cldistill.schedule import Schedule, add_noise, to_x0, velocity
from cldistill.training.step import make_optimizers, run_step

PIPELINE = Path(str(files("cldistill_plugins.miniature"))) / "pipeline"
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "least": ({"num_layers": 1, "num_attention_heads": 1}, 2),
    "miniature": ({}, 32),
    "mid": ({"attention_head_dim": 64, "num_attention_heads": 12, "axes_dims_rope": [16, 24, 24]}, 32),
}
"""Name -> changes of the miniature transformer's config, and the adapters' rank."""
RELEASED, CRITIC_UPDATES = "released", 5
SYSTEMS = {RELEASED: "false", "ours": "true", "ours, one trajectory a cycle": "trajectory"}
"""Schedule -> the critic's ``reuse_sample``; ``true`` is what the shipped recipe says."""


def write_manifest(folder: Path, size: str) -> Path:
    """Write a pipeline with a random transformer of a size, two random teachers and a manifest of the paper's losses."""
    (changes, rank), package = SIZES[size], "package:cldistill_plugins"
    shutil.copytree(PIPELINE, folder / "pipeline", ignore=shutil.ignore_patterns("transformer"))
    torch.manual_seed(0)
    config = QwenImageTransformer2DModel.load_config(PIPELINE / "transformer") | changes
    QwenImageTransformer2DModel.from_config(config).save_pretrained(folder / "pipeline" / "transformer")
    options = {"model": str(folder / "pipeline"), "resolution": 128, "vl_resolution": 56, "dtype": "float32"}
    teachers, general = {n: folder / f"{n}.safetensors" for n in ("halftone", "mosaic")}, f"{package}.miniature/general"
    effects = [
        {"name": name, "prompt": f"make it {name}", "pairs": f"{package}.effectbench/effects/{name}", "take": 2,
         "teacher": {"use": "lora-file", "options": {"path": str(file)}}} for name, file in teachers.items()
    ]  # fmt: skip
    manifest = {
        "cldistill": 1, "name": "benchmark", "effects": effects, "targets": {"from": "pair"},
        "base": {"use": "qwen-image-edit", "options": options}, "router": {"use": "pdsr"}, "prompts": {"use": "aop"},
        "general": {"images": general, "instructions": f"{general}/general.jsonl"},
        "losses": [{"use": "bs-dmd"}, {"use": "ts-dmd", "streams": ["effect"]}, {"use": "ta-fm", "streams": ["effect"]},
                   {"use": "fake-score"}],
        "slots": {"student": {"rank": rank}, "critic": {"rank": rank, "updates": CRITIC_UPDATES}},
    }  # fmt: skip
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    checked = check_manifest(str(file), files=False)
    base: BaseModel = checked.base.build(checked.context(folder, folder, weights=False))
    for path in teachers.values():
        weights = {}
        for name in checked.description.targets:
            out, inner = checked.description.modules[name]
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, inner) / inner**0.5
            weights[f"{name}.lora_B.weight"] = torch.randn(out, rank) * 0.01
        save_adapter(path, base, weights, rank, float(rank))
    return file


class Ours:
    """The engine's own run and step."""

    def __init__(self, checked: CheckedManifest, out: Path) -> None:
        self.run = assemble(checked, out, cache=out / "cache")
        self.optimizers, self.device = make_optimizers(self.run), str(self.run.accelerator.device)

    def cycle(self, step: int) -> int:
        """Do one cycle; return the backbone's calls."""
        return run_step(self.run, self.optimizers, step).forwards


class Network:
    """One copy of the backbone with an adapter of its own."""

    def __init__(self, base: BaseModel, device: str) -> None:
        base.to(device)
        self.base, self.slots, self.calls = base, AdapterSlots(base.backbone), 0
        base.enable_gradient_checkpointing(self.slots.run_pinned)

    def __call__(self, slot: str, x: Tensor, sigma: Tensor, told: Conditioning) -> Tensor:
        """Return the velocity."""
        self.calls += 1
        with self.slots.scope(slot):
            return self.base.predict(x, sigma, told.source, told.prompt)


class Released:
    """The order of calls of the released code, over three copies and without caches."""

    def __init__(self, checked: CheckedManifest, out: Path) -> None:
        accelerator, context = start(checked, out, out / "cache")
        train, sampler = checked.manifest.train, checked.manifest.sampler
        self.clip, self.device = train.grad_clip, str(accelerator.device)
        self.random = KeyedRandom(train.seed, device=self.device).child("train")
        self.schedule = Schedule(sampler.steps, float(sampler.shift))
        self.networks = {n: Network(checked.base.build(context), self.device) for n in ("student", "critic", "teacher")}
        self.base, self.optimizers = self.networks["student"].base, {}
        for name, config in checked.slots.items():
            slots = self.networks[name].slots
            slots.add(name, config.targets, config.rank, config.alpha, self.random.generator("init", name))
            self.optimizers[name] = torch.optim.AdamW(slots.parameters(name).values(), lr=config.lr[0].lr)
        files = {name: part.needs.adapter for name, part in checked.teachers.items() if part is not None}
        self.loras = {name: load_adapter(file, checked.description.modules) for name, file in files.items() if file}
        isolator: PromptIsolator = checked.prompts.build(context)
        self.rows = pool_rows(checked, isolator, isolate(checked, isolator, self.base.tokenize))
        self.router, self.data = checked.router.build(context), Dataset(self.base, {})

    def cycle(self, step: int) -> int:
        """Do one cycle; return the backbone's calls."""
        before = sum(network.calls for network in self.networks.values())
        self.generator_update(self.random.child(step, "student", 0), step)
        for update in range(CRITIC_UPDATES):
            self.critic_update(self.random.child(step, "critic", update), step)
        return sum(network.calls for network in self.networks.values()) - before

    def batch(self, random: KeyedRandom, step: int) -> Batch:
        """Draw a stream, an effect and an item, and encode its pictures and prompts."""
        request = RouteRequest(step, 1000, "student", 0, list(self.loras), random.child("route"), shared=self.random)
        route = self.router.route(request)
        rows = self.rows[sorted(route.pools)[random.integer(len(route.pools), "pool")]]
        return self.data.collate(route, [self.example(*rows[random.integer(len(rows), "item")])], self.device)

    def example(self, item: Item, prompts: Prompts) -> Example:
        """Return an item whose encodings are computed when they are asked for, each time."""
        base, pictures = self.base, [open_picture(path) for path in item.sources]
        source = base.encode_source(pictures)

        def target() -> Tensor:
            if item.target is None:  # texture and anchor are computed on zeros, and masked out
                return torch.zeros(base.latent_shape(source))
            return base.encode_target(open_picture(item.target), pictures)

        return Example(
            item, base.latent_shape(source), base.batch_key(source), lambda: source,
            student=lambda: base.encode_prompt(prompts.student, pictures),
            teacher=lambda: base.encode_prompt(prompts.teacher, pictures),
            unconditional=lambda: base.encode_prompt(prompts.unconditional, pictures), target=target,
        )  # fmt: skip

    def sigma(self, random: KeyedRandom, low: float = 0.0) -> Tensor:
        """Draw the one sigma of a batch of one."""
        return self.schedule.draw(torch.tensor([random.uniform("sigma")], device=self.device), low)

    @torch.no_grad()
    def trajectory(self, batch: Batch, random: KeyedRandom) -> tuple[Tensor, Tensor]:
        """Follow the student through all its steps, and pick one: its ``x`` and sigma."""
        sigmas = self.schedule.sigmas(self.device).unsqueeze(1)
        path = [random.normal((1, *batch.latent_shape), 0)]
        for index, following in enumerate(sigmas[1:]):
            x0 = to_x0(
                path[-1], self.networks["student"]("student", path[-1], sigmas[index], batch.student), sigmas[index]
            )
            path.append(add_noise(x0, random.normal(x0.shape, index + 1), following))
        k = random.integer(len(path), "k")
        return path[k], sigmas[k]

    def generator_update(self, random: KeyedRandom, step: int) -> None:
        """BS-DMD, TS-DMD and TA-FM, whatever the stream; each goes backward by itself, which takes the least memory."""
        batch, low = self.batch(random, step), self.schedule.sigmas(self.device)
        target, masked = batch.target, 0.0 if batch.route.stream == GENERAL else 1.0
        assert target is not None
        self.match(batch, random.child("bs"), *self.trajectory(batch, random), 0.0, 1.0)
        low = low[low < 0.7499][random.integer(3, "t")].reshape(1)
        self.match(
            batch, random.child("ts"), add_noise(target, random.normal(target.shape, "ts"), low), low, 0.5, masked
        )
        noise, sigma = random.normal(target.shape, "ta"), self.sigma(random)
        predicted = self.networks["student"]("student", add_noise(target, noise, sigma), sigma, batch.student)
        self.update("student", masked * mse_loss(predicted, velocity(target, noise)))

    def match(self, batch: Batch, random: KeyedRandom, x: Tensor, sigma: Tensor, low: float, weight: float) -> None:
        """Match distributions by one graded call at ``x``."""
        clean = to_x0(x, self.networks["student"]("student", x, sigma, batch.student), sigma)
        with torch.no_grad():
            at, teacher = self.sigma(random, low), self.networks["teacher"]
            noised = add_noise(clean, random.normal(clean.shape, "noise"), at)
            fake = to_x0(noised, self.networks["critic"]("critic", noised, at, batch.student), at)
            teacher.slots.mount(self.loras.get(batch.items[0].pool))
            told, untold = (teacher("teacher", noised, at, c) for c in (batch.teacher, batch.unconditional))
            real = to_x0(noised, untold + self.base.guidance_scale * (told - untold), at)
            wanted = clean - torch.nan_to_num((fake - real) / (clean - real).abs().mean())
        torch.autograd.backward(weight * 0.5 * mse_loss(clean, wanted))

    def critic_update(self, random: KeyedRandom, step: int) -> None:
        """Flow matching of the critic on a sample of the student."""
        batch = self.batch(random, step)
        x, sigma = self.trajectory(batch, random)
        with torch.no_grad():
            x0 = to_x0(x, self.networks["student"]("student", x, sigma, batch.student), sigma)
        noise, sigma = random.normal(x0.shape, "noise"), self.sigma(random)
        predicted = self.networks["critic"]("critic", add_noise(x0, noise, sigma), sigma, batch.student)
        self.update("critic", mse_loss(predicted, velocity(x0, noise)))

    def update(self, name: str, loss: Tensor) -> None:
        """Go backward, clip the gradients and move a slot."""
        torch.autograd.backward(loss)
        clip_grad_norm_(self.networks[name].slots.parameters(name).values(), self.clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def resident(field: str = "VmRSS") -> float:
    """Return this process's memory in MB (``VmHWM``: its peak); nan where the system does not tell."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    return float("nan")


def work(name: str, settings: list[str], folder: Path, told: Connection) -> None:
    """Build one schedule; answer every number that is sent with a cycle's figures, and end at None."""
    settings = [*settings, f"slots.critic.reuse_sample={SYSTEMS[name]}"]
    checked, before = check_manifest(str(folder / "manifest.yaml"), settings), resident()
    schedule = (Released if name == RELEASED else Ours)(checked, folder / name.replace(" ", "-"))
    schedule.cycle(0)  # Adam's moments are made, and kernels chosen
    cuda = schedule.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    told.send(schedule.device)
    while (step := told.recv()) is not None:
        began, processor, forwards = time.perf_counter(), time.process_time(), schedule.cycle(step)
        if cuda:
            torch.cuda.synchronize()
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else max(0.0, resident("VmHWM") - before)
        told.send({"forwards": forwards, "seconds": seconds, "processor_seconds": processor, "peak_mb": peak})


def compare(folder: Path, size: str, cycles: int, settings: list[str]) -> dict[str, Any]:
    """Run the schedules in turn; return each one's means, and the ratios to the released one."""
    write_manifest(folder, size)
    spawn, ends, devices = multiprocessing.get_context("spawn"), {}, {}
    for name in SYSTEMS:
        ends[name], theirs = spawn.Pipe()
        spawn.Process(target=work, args=(name, settings, folder, theirs), daemon=True).start()
        theirs.close()  # a worker that dies is seen as an end of file
        devices[name] = ends[name].recv()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    for step in range(1, cycles + 1):
        for name, end in ends.items():
            end.send(step)
            found[name].append(end.recv())
    means = {name: {key: round(sum(c[key] for c in own) / cycles, 3) for key in own[0]} for name, own in found.items()}
    ratios = {name: {key: round(value / means[RELEASED][key], 3) for key, value in own.items()}
              for name, own in means.items() if name != RELEASED}  # fmt: skip
    return {"size": size, "settings": settings, "device": devices[RELEASED], "threads": torch.get_num_threads(),
            "cycles": cycles, "torch": torch.__version__, "a_cycle": means, "ratios": ratios}  # fmt: skip


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=SIZES, default="miniature")
    parser.add_argument("--cycles", type=int, default=8)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        result = compare(Path(folder), given.size, given.cycles, [f"train.device={given.device}", *given.settings])
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
