"""From a checked manifest to a `cldistill.training.run.Run`: build the parts, mount the slots, prepare the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from cldistill.adapters.files import fit, load_adapter, read_header
from cldistill.adapters.slots import AdapterSlots
from cldistill.collection.round_trip import fixed_probe
from cldistill.component import BuildContext
from cldistill.data.encodings import Encoder
from cldistill.data.triggers import check_triggers
from cldistill.errors import LaunchError, PluginError
from cldistill.manifest.checked import CheckedManifest, default_cache
from cldistill.manifest.models import Slot
from cldistill.manifest.resolved import manifest_digest, plugin_digests, resolved_text
from cldistill.precision import run_under_autocast
from cldistill.prepare import Workshop, effect_pools, general_pool, item_prompts, make_bank, prepare
from cldistill.progress.signals import never
from cldistill.progress.stages import SilentStages, Stages
from cldistill.protocols import BaseModel, OwnsModule, PromptIsolator
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, Item, Prompts
from cldistill.samples import later_rows
from cldistill.sampling.targets import TeacherSampler
from cldistill.schedule import Schedule
from cldistill.storage.tensors import TensorCache
from cldistill.training.observers import check_observers
from cldistill.training.run import LrPhase, Run, SlotConfig, Term, TermModule

DATA_PARALLEL = "MULTI_"
"""How accelerate's names of plain data parallelism begin: MULTI_CPU, MULTI_GPU, MULTI_XPU and so on."""
SHARDING = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "TP")
"""Ends of the variables ``ACCELERATE_USE_...`` by which a launcher asks for more than that."""
PRECISIONS = ("no", "bf16")
Rows = dict[str, list[tuple[Item, Prompts]]]
"""Pool -> its items, each with the prompts that its networks are told."""


def assemble(
    checked: CheckedManifest, output: Path, *, cache: Path | None = None, stages: Stages | None = None,
    observers: Sequence[object] = (), stop: Callable[[], bool] = never, choose: Callable[[Rows], Rows] | None = None,
) -> Run:  # fmt: skip
    """Build the run of a checked manifest; everything slow is cached under ``cache``.

    ``choose`` narrows the pools to the items that somebody will measure on, instead of training; these get targets
    whatever the losses need.

    Raises:
        Stopped: ``stop`` said so while teachers were trained, or pictures, prompts and targets prepared.
    """
    manifest, accelerator = checked.manifest, make_accelerator(checked)
    make_deterministic(manifest.train.deterministic)
    if not accelerator.is_main_process or stages is None:
        stages = SilentStages()
    context = BuildContext(
        root=checked.file.root, cache=cache or default_cache(), output=output,
        device=str(accelerator.device), seed=manifest.train.seed, effects=checked.effects,
        outline=checked.outline,
    )  # fmt: skip
    watching = (*observers, *(part.build(context) for part in checked.observers))
    check_observers(watching)  # before hours of preparation, not after them
    router = checked.router.build(context)  # before anything slow: it may refuse its options
    random = KeyedRandom(manifest.train.seed, accelerator.process_index, context.device)
    with stages.stage("loading the base model", 1) as advance:
        base: BaseModel = checked.base.build(context)
        base.to(context.device)
        run_under_autocast(base, accelerator)
        advance(1)
    configs = tuple(slot_config(name, slot, checked) for name, slot in manifest.slots.items())
    slots = add_slots(base, configs, checked, random)
    workshop = Workshop(
        base=base, slots=slots, encoder=Encoder(base, TensorCache(context.cache / "encodings")),
        sampler=TeacherSampler(
            base, slots, Schedule(manifest.targets.steps if manifest.targets else 40, teacher_shift(checked)),
            random.child("targets"), context.device,
        ),
        accelerator=accelerator, cache=context.cache, stages=stages, stop=stop,
    )  # fmt: skip
    isolator: PromptIsolator = checked.prompts.build(context)
    prompts = isolate_all(isolator, base, checked)
    terms = make_terms(checked, context)
    pools = effect_pools(checked.effects)
    rows, targeted = _rows(checked, isolator, prompts, pools), _target_pools(checked)
    trained = [name for name, part in checked.teachers.items() if part is not None and part.needs.rank is not None]
    if choose is not None:
        rows = choose(rows)
        targeted, trained = list(rows), [name for name in trained if name in rows]
    bank = make_bank(workshop, checked.effects, teacher_sources(checked, context), pools, trained)
    if accelerator.is_main_process:  # the exported file will be compared on it
        fixed_probe(base, prompts[checked.effects[0].name].student, workshop.encoder.cache)
    dataset = prepare(
        workshop, rows, bank, manifest.targets.origin if manifest.targets else None, targeted,
        later_rows(manifest, checked.effects, prompts),
    )  # fmt: skip
    return Run(
        name=manifest.name, output=output, total_steps=manifest.train.generator_steps, base=base, slots=slots,
        slot_configs=configs, terms=terms, router=router, dataset=dataset, teachers=bank,
        schedule=Schedule(manifest.sampler.steps, manifest.sampler.shift, manifest.sampler.integer_timesteps),
        modules=make_modules(terms, random), random=random.child("train"), accelerator=accelerator,
        effects=checked.effects, prompts=prompts,
        teacher_shift=teacher_shift(checked),
        batch_size=manifest.train.batch_size, grad_clip=manifest.train.grad_clip,
        checkpoint_every=manifest.train.checkpoint_every, keep=manifest.train.keep,
        max_bad_steps=manifest.train.max_bad_steps, manifest_digest=manifest_digest(checked), plugins=plugin_digests(checked),
        resolved_manifest=resolved_text(checked), observers=watching,
        extras={
            "workshop": workshop, "isolator": isolator, "context": context,
            "model": getattr(checked.base.settings, "model", None),
        },
    )  # fmt: skip


def teacher_shift(checked: CheckedManifest) -> float:
    """Return the shift of the teachers' own schedule: that of ``targets:``, else the student's."""
    targets = checked.manifest.targets
    return checked.manifest.sampler.shift if targets is None or targets.shift is None else targets.shift


def make_accelerator(checked: CheckedManifest) -> Accelerator:
    """Let accelerate choose device and precision; ``train.device: cpu`` and ``accelerate launch --cpu`` force the CPU.

    Raises:
        LaunchError: the launcher asked for something else than plain data parallelism in fp32 or bf16.
    """
    train = checked.manifest.train
    refuse_sharding(os.environ)
    # Ranks prepare different teachers and targets: a collective may wait for the slowest far longer than NCCL's minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=2))
    accelerator = Accelerator(
        cpu=train.device == "cpu", mixed_precision=train.mixed_precision, kwargs_handlers=[patience]
    )
    kind, precision = accelerator.distributed_type.value, accelerator.mixed_precision
    if kind != "NO" and not kind.startswith(DATA_PARALLEL):
        raise LaunchError(_no_sharding(kind))
    if precision not in PRECISIONS:
        raise LaunchError(
            f"mixed precision {precision!r}: a run knows 'no' and 'bf16' (fp16 would need its losses scaled); change "
            "`accelerate launch --mixed_precision` or the manifest's train.mixed_precision"
        )
    return accelerator


def refuse_sharding(environment: Mapping[str, str]) -> None:
    """Refuse what the launcher's configuration may ask for and a run does not do, before a process group is made.

    Raises:
        LaunchError: naming it.
    """
    for name in SHARDING:
        if environment.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1", "yes"):
            raise LaunchError(_no_sharding(name))


def _no_sharding(kind: str) -> str:
    return (
        f"accelerate is configured for {kind}, which would shard the model; every process of a cldistill run holds the "
        "whole frozen base and its small adapters, and shares only the work (plain data parallelism). Launch it with "
        "`accelerate launch --multi_gpu --num_processes N -m cldistill run ...`, or choose no distributed plugin in "
        "`accelerate config`"
    )


def make_deterministic(wanted: bool) -> None:
    """Ask torch for kernels that give the same bits every time (``train.deterministic``); what has none gives a warning.

    On the CPU a run is byte-equal anyway; on CUDA it is slower so, and cuBLAS must know before its first call.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def slot_config(name: str, slot: Slot, checked: CheckedManifest) -> SlotConfig:
    """Turn a manifest's slot into the engine's record."""
    return SlotConfig(
        name=name, rank=slot.rank, alpha=slot.scale_alpha,
        lr=tuple(LrPhase(p.from_step, p.lr, p.end_lr, p.warmup) for p in slot.phases),
        betas=slot.betas, weight_decay=slot.weight_decay, updates=slot.updates, from_step=slot.from_step,
        init=slot.init, checkpoint=slot.checkpoint, ema=slot.ema, targets=checked.slot_targets[name],
        reuse_sample=slot.reuse_sample,
    )  # fmt: skip


def add_slots(
    base: BaseModel, configs: Sequence[SlotConfig], checked: CheckedManifest, random: KeyedRandom
) -> AdapterSlots:
    """Freeze the backbone and give it its slots; a slot with a file to start from is loaded."""
    slots = AdapterSlots(base.backbone)
    for config in configs:
        slots.add(config.name, config.targets, config.rank, config.alpha, random.generator("init", config.name))
    slots.add_teacher(teacher_modules(checked))
    for config in configs:
        if isinstance(config.init, Path) and config.checkpoint is None:
            slots.start_from(config.name, load_adapter(config.init, checked.description.modules))
    if checked.manifest.train.gradient_checkpointing:
        base.enable_gradient_checkpointing(slots.run_pinned)
    return slots


def teacher_modules(checked: CheckedManifest) -> tuple[str, ...]:
    """Every module of the base that a teacher may cover: what lies outside the slots must be wrapped too."""
    covered = set(checked.description.targets)
    for part in checked.teachers.values():
        if part is not None and part.needs.adapter is not None:
            covered |= set(fit(read_header(part.needs.adapter), checked.description).names.values())
    return tuple(sorted(covered))


def isolate_all(isolator: PromptIsolator, base: BaseModel, checked: CheckedManifest) -> dict[str, Prompts]:
    """Give every effect its prompts, and see that the triggers differ after tokenisation."""
    settled = checked.settled_prompts
    prompts = {effect.name: settled.get(effect.name) or isolator.isolate(effect) for effect in checked.effects}
    check_triggers({name: p.trigger for name, p in prompts.items() if p.trigger}, base.tokenize)
    return prompts


def make_terms(checked: CheckedManifest, context: BuildContext) -> tuple[Term, ...]:
    """Build the loss terms in the manifest's order."""
    names: dict[str, int] = {}
    terms = []
    for loss in checked.losses:
        count = names[loss.part.name] = names.get(loss.part.name, 0) + 1
        name = loss.part.name if count == 1 else f"{loss.part.name}-{count}"
        needs = loss.part.needs
        term = Term(
            name=name,
            loss=loss.part.build(context),
            slot=loss.slot,
            streams=loss.streams,
            weight=loss.weight,
            from_step=loss.from_step,
            until_step=loss.until_step,
            teacher=needs.teacher,
            targets=needs.targets,
            shared=needs.forwards.shared > 0,
        )
        terms.append(term)
    return tuple(terms)


def make_modules(terms: Sequence[Term], random: KeyedRandom) -> dict[str, TermModule]:
    """Make the modules that loss terms own; ranks and runs of one seed make the same.

    Raises:
        PluginError: a module has buffers, which differ by rank and would not be saved.
    """
    modules = {}
    for term in terms:
        if not isinstance(term.loss, OwnsModule):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(random.generator("module", term.name).get_state())
            module = term.loss.module().to(random.device, torch.float32)
        if any(True for _ in module.buffers()):
            raise PluginError(f"the module of loss {term.name!r} has buffers: use layers without them (no BatchNorm)")
        modules[term.name] = TermModule(module, term.loss.optimizer)
    return modules


def teacher_sources(checked: CheckedManifest, context: BuildContext) -> dict[str, Any]:
    """Build every effect's teacher source; where the manifest names none, nothing may ask for it."""
    return {name: _NoTeacher() if part is None else part.build(context) for name, part in checked.teachers.items()}


class _NoTeacher:
    """Stands for an effect whose manifest names no teacher, in a run whose losses ask for none."""

    def adapter(self, request: object) -> None:
        """Return no adapter."""


def _rows(
    checked: CheckedManifest,
    isolator: PromptIsolator,
    prompts: Mapping[str, Prompts],
    pools: Mapping[str, Sequence[Item]],
) -> Rows:
    effects, settled = {effect.name: effect for effect in checked.effects}, checked.settled_prompts
    rows = {
        name: [(item, settled.get(name) or item_prompts(item, effects[name], prompts[name])) for item in items]
        for name, items in pools.items()
    }
    general = checked.manifest.general
    if general is not None and (checked.router.needs.general or GENERAL in checked.streams):
        rows[GENERAL] = general_pool(general.images, general.instructions, isolator.general)
    return rows


def _target_pools(checked: CheckedManifest) -> list[str]:
    """Pools whose items need targets: the effects', and the general one where a loss with targets meets it."""
    needing = [loss for loss in checked.losses if loss.part.needs.targets]
    if not needing:
        return []
    pools = [effect.name for effect in checked.effects]
    # A stream that is neither one effect's nor the general one mixes both pools.
    meets_general = any(stream != "effect" for loss in needing for stream in (loss.streams or checked.streams))
    if meets_general and checked.manifest.general is not None and checked.router.needs.general:
        pools.append(GENERAL)
    return pools
