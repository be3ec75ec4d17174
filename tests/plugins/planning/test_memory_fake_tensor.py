"""The bill of memory against a whole step of the engine on a GPU without data: real config, slots, losses and AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from cldistill.adapters.slots import AdapterSlots
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import CheckedManifest
from cldistill.prepare import some
from cldistill.random import KeyedRandom
from cldistill.records import Batch, Conditioning, Route, Share
from cldistill.schedule import Schedule
from cldistill.testing.fake_device import Meter, fake_gpu
from cldistill.training.run import Run, Term
from cldistill.training.step import make_optimizers, run_step
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.planning.devices import known_card
from cldistill_plugins.planning.fit import peak
from cldistill_plugins.planning.memory import PROGRAM_BYTES, memory
from cldistill_plugins.ranks import shard as sharding
from cldistill_plugins.ranks.shard import shard

RECIPE = "collectionlora-50"
EFFECT = "an-effect"


def ranked(rank: int) -> tuple[str, ...]:
    return tuple(f"slots.{slot}.{key}={rank}" for slot in ("student", "critic") for key in ("rank", "alpha"))


INT8, NF4, EMA = "base.options.quantise=int8", "base.options.quantise=nf4", "train.ema_device=cpu"
ADAM = tuple(f"slots.{slot}.moments=8bit" for slot in ("student", "critic"))
COMPARED = {
    "bf16, rank 128": (),
    "bf16, rank 32": ranked(32),
    "int8, rank 128": (INT8,),
    "int8, rank 32": (INT8, *ranked(32)),
    "nf4, rank 32, EMA on the host": (NF4, *ranked(32), EMA),
    "nf4, rank 32, EMA on the host, Adam in 8 bits": (NF4, *ranked(32), EMA, *ADAM),
    "bf16, rank 128, half of the blocks checkpointed": ("train.gradient_checkpointing=0.5",),
}
"""Name in the page -> overrides of the recipe."""
RANKS = 8
SHARED = {
    "bf16, rank 128, on each of 8 that share the base": (),
    "bf16, rank 32, on each of 8 that share the base": ranked(32),
    "nf4, rank 32, EMA on the host, on each of 8 that share the base": (NF4, *ranked(32), EMA),
}
"""The same for a base that is shared out by FSDP2."""


def checked(*overrides: str) -> CheckedManifest:
    return check_manifest(RECIPE, overrides, files=False)


def peak_of(*overrides: str, ranks: int = 1) -> float:
    """Return the peak of one step at 60 blocks: calls and backwards, since AdamW is fused on a GPU.

    From two blocks on each further one adds the same to the byte, and where half are checkpointed, each further two.
    """
    plan = checked("router.options.p_switch=1.0", "slots.critic.updates=1", "sampler.steps=3", *overrides)
    few, more = (2, 3) if plan.manifest.train.gradient_checkpointing is True else (2, 4)
    shallow, deep = measure(plan, few, ranks), measure(plan, more, ranks)
    return shallow + (deep - shallow) / (more - few) * (plan.description.layers - few)


def measure(plan: CheckedManifest, layers: int, ranks: int = 1) -> int:
    """Return the peak bytes of a student's and a critic's update of a base cut down to so many blocks."""
    context, description = plan.context(Path("unused"), Path("unused"), weights=False), plan.description
    base: Any = plan.base.build(context)
    config = base.settings.folder.config() | {"num_layers": layers}
    with torch.device("meta"):
        base.backbone = base.transformer.from_config(config).eval()
    base.backbone.pos_embed = base.transformer.from_config(config | {"num_layers": 0}).pos_embed
    slots, targets = AdapterSlots(base.backbone), tuple(n for n in description.targets if int(n.split(".")[1]) < layers)
    slots.add_teacher(targets)  # peft moves what it makes, which fake tensors do not allow
    with fake_gpu() as meter:
        _place(base, plan.base.settings.model_dump()["quantise"])
        for config in plan.slots.values():
            slots.add(config.name, targets, config.rank, config.alpha, torch.Generator())
        base.enable_gradient_checkpointing(some(float(plan.manifest.train.gradient_checkpointing), slots.run_pinned))
        run = _run(plan, base, slots, targets, meter)
        if ranks > 1:
            base.blocks = {name: width for name, width in base.blocks.items() if int(name.split(".")[1]) < layers}
            run.accelerator = cast(Any, Others(ranks))
            shard(run)
        optimizers = make_optimizers(run)
        for optimizer in optimizers.values():  # Adam's moments are there from the second step on
            optimizer.gradients()
            optimizer.apply(0.0)
            optimizer.zero_grad()
        meter.start_over()
        run_step(run, optimizers, 0)
        return meter.peak


class Others:
    """The accelerator of the first of several ranks, of whom the others are pretended: sums come back as they were sent."""

    device = torch.device("cpu")
    is_main_process = True

    def __init__(self, ranks: int) -> None:
        self.num_processes = ranks

    def reduce(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        return tensor.clone()


@pytest.fixture
def pretended_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Torch's process group whose collectives send nothing, and a mesh of real numbers over it."""
    distributed.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    mesh = init_device_mesh("cpu", (RANKS,))
    monkeypatch.setattr(sharding, "init_device_mesh", lambda *_: mesh)
    yield RANKS
    distributed.destroy_process_group()


def _place(base: Any, quantise: str | None) -> None:
    """Give the structure fake weights, quantised as they would be when they are read."""
    for module in base.backbone.modules():
        for name, parameter in module.named_parameters(recurse=False):
            weight = torch.empty(parameter.shape, dtype=base.dtype)
            module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    if quantise is not None:
        quantization = pytest.importorskip("torchao.quantization")
        from cldistill_plugins.diffusers_base.quantised import weight_config

        blocks = base.backbone.transformer_blocks
        for module in [m for m in blocks.modules() if type(m) is nn.Linear and m.bias is not None]:
            quantization.quantize_(module, weight_config(cast(Any, quantise)))


def _run(plan: CheckedManifest, base: Any, slots: AdapterSlots, targets: Sequence[str], meter: Meter) -> Run:
    description, count = plan.description, plan.manifest.train.batch_size
    tokens, side = description.latent_tokens, int(description.latent_tokens**0.5)
    grids = [[(1, side, side)] * 2] * count
    base.inputs = lambda *_: {"img_shapes": grids, "encoder_hidden_states_mask": None}  # read from data otherwise

    def encoded() -> Conditioning:
        prompt = torch.empty(count, description.encoded_tokens, description.prompt_width, dtype=base.dtype)
        return Conditioning(
            {"latents": torch.empty(count, tokens, description.channels, dtype=base.dtype)}, {"embeds": prompt}
        )

    batch = Batch(
        route=Route("effect", {EFFECT: 1.0}), items=cast(Any, (SimpleNamespace(pool=EFFECT),) * count),
        student=encoded(), teacher=encoded(), unconditional=encoded(),
        target=torch.empty(count, tokens, description.channels), latent_shape=(tokens, description.channels),
        shares=(Share(EFFECT, tuple(range(count))),),
    )  # fmt: skip
    rank = plan.slots["student"].rank
    with meter.elsewhere():  # a teacher's file is read into the host's memory
        shapes = {name: description.modules[name] for name in targets}
        weights = {n: LoraWeights(torch.empty(rank, i), torch.empty(o, rank), rank) for n, (o, i) in shapes.items()}
    teacher = AdapterState(weights, "a teacher", "a teacher")
    context = plan.context(Path("unused"), Path("unused"), weights=False)
    return Run(
        name="fake", output=Path("unused"), total_steps=10, base=base, slots=slots,
        slot_configs=tuple(plan.slots.values()), router=cast(Any, plan.router.build(context)),
        terms=tuple(cast(Term, replace(loss, loss=loss.loss.build(context))) for loss in plan.losses),
        dataset=cast(Any, SimpleNamespace(draw=lambda *_: batch)), effects=plan.effects, prompts={},
        teachers=cast(Any, SimpleNamespace(state=lambda _: teacher)), random=KeyedRandom(0),
        schedule=Schedule(plan.manifest.sampler.steps, 3.0),
        accelerator=cast(Any, SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=True)),
    )  # fmt: skip


@pytest.mark.slow(9)
@pytest.mark.parametrize("overrides", COMPARED.values(), ids=COMPARED)
def test_the_bill_of_20_b_is_within_5_percent_of_a_whole_step(overrides: tuple[str, ...]) -> None:
    billed = sum(amount.bytes for amount in memory(checked(*overrides)).training) - PROGRAM_BYTES
    measured = peak_of(*overrides)
    print(f"{' '.join(overrides)}: billed {billed / 1e9:.2f}, measured {measured / 1e9:.2f} GB")
    assert billed == pytest.approx(measured, rel=0.05)


@pytest.mark.slow(20)
@pytest.mark.parametrize("overrides", SHARED.values(), ids=SHARED)
def test_the_bill_of_a_rank_that_shares_the_base_is_within_5_percent_of_its_step(
    overrides: tuple[str, ...], pretended_ranks: int
) -> None:
    billed = sum(amount.bytes for amount in memory(checked(*overrides), pretended_ranks).training) - PROGRAM_BYTES
    measured = peak_of(*overrides, ranks=pretended_ranks)
    print(f"{' '.join(overrides)}: billed {billed / 1e9:.2f}, measured {measured / 1e9:.2f} GB")
    assert billed == pytest.approx(measured, rel=0.05)


PAGE = (Path(__file__).parents[3] / "docs" / "memory.md").read_text(encoding="utf-8")
BASES = {"Qwen-Image-Edit-2509": (), "FLUX.2-klein-base-4B": ("base={use: flux2-klein}",)}


def rows(columns: int) -> list[list[str]]:
    """Return the cells of the page's rows of figures that have so many columns."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    return [row for row in found if len(row) == columns and row[-1].replace(".", "").isdigit()]


@pytest.mark.slow
def test_the_pages_table_is_what_plan_says() -> None:
    assert {row[0] for row in rows(7)} >= {"rtx-4090", "rtx-6000-ada", "h100-80gb", "h200"}
    for card, has, base, rank, settings, needs, spare in rows(7):
        wanted = peak(checked(*BASES[base], *ranked(int(rank)), *settings.replace("`", "").split()))
        there = known_card(card).bytes
        assert [f"{size / 1e9:.1f}" for size in (there, wanted, there - wanted)] == [has, needs, spare], (
            card,
            settings,
        )


@pytest.mark.slow
def test_the_page_says_what_the_bill_was_compared_with() -> None:
    for (name, billed, measured), (wanted, overrides) in zip(rows(3), (COMPARED | SHARED).items(), strict=True):
        assert name == wanted
        bill = memory(checked(*overrides), RANKS if name in SHARED else 1).training
        assert billed == f"{(sum(amount.bytes for amount in bill) - PROGRAM_BYTES) / 1e9:.1f}"
        assert float(measured) == pytest.approx(float(billed), rel=0.05)
