"""From a checked manifest to a `cldistill.training.run.Run`: build the parts, mount the slots, prepare the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from cldistill.adapters.files import load_fitted
from cldistill.collection.round_trip import fixed_probe
from cldistill.component import BuildContext
from cldistill.data.encodings import Encoder
from cldistill.errors import LaunchError, PluginError
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.models import Targets
from cldistill.manifest.prompts import isolate
from cldistill.manifest.resolved import manifest_digest, plugin_digests
from cldistill.precision import run_under_autocast
from cldistill.prepare import Preparation, Rows, encode, pool_rows, prepare, teacher_bank
from cldistill.progress.signals import never
from cldistill.progress.stages import SilentStages, Stages
from cldistill.protocols import BaseModel, OwnsModule, PromptIsolator
from cldistill.random import KeyedRandom
from cldistill.samples import later_rows
from cldistill.storage.files import default_cache
from cldistill.storage.tensors import TensorCache
from cldistill.training.observers import check_observers
from cldistill.training.run import Run, Term, TermModule


def assemble(
    checked: CheckedManifest, output: Path, *, cache: Path | None = None, stages: Stages | None = None,
    observers: Callable[[BuildContext], Sequence[object]] = lambda context: (), stop: Callable[[], bool] = never,
    choose: Callable[[Rows], Rows] | None = None,
) -> Run:  # fmt: skip
    """Build the run of a checked manifest; everything slow is cached under ``cache``.

    ``choose`` narrows the pools to the items that somebody will measure on, instead of training; these get targets
    whatever the losses need.  `Stopped` where ``stop`` says so while something is prepared.
    """
    manifest, train = checked.manifest, checked.manifest.train
    accelerator, context = start(checked, output, cache)
    watching = observers(context)
    check_observers(watching)  # before hours of preparation, not after them
    router = checked.router.build(context)  # before anything slow: it may refuse its options
    random = KeyedRandom(train.seed, accelerator.process_index, context.device)
    preparation = load_base(checked, accelerator, context, stages, stop)
    base = preparation.base
    bank = teacher_bank(checked, preparation)
    isolator: PromptIsolator = checked.prompts.build(context)
    prompts = isolate(checked, isolator, base.tokenize)
    terms = tuple(cast(Term, replace(loss, loss=loss.loss.build(context))) for loss in checked.losses)
    modules = make_modules(terms, random)
    rows, targeted, needless = pool_rows(checked, isolator, prompts), checked.targeted_pools, checked.needless_teachers
    if choose is not None:
        rows = choose(rows)
        targeted, needless = list(rows), {*checked.teachers} - {*rows}
    if accelerator.is_main_process:  # the exported file will be compared on it
        fixed_probe(base, prompts[checked.effects[0].name].student, preparation.encoder.cache)
    encode(preparation, rows, later_rows(manifest, checked.effects, prompts), checked.paired)
    add_slots(preparation, checked, random)
    trained = [name for name in checked.trained_teachers if name not in needless]
    for name in trained[accelerator.process_index :: accelerator.num_processes]:
        bank.state(name)
    accelerator.wait_for_everyone()
    base.drop_encoders()  # a teacher that was trained may have had more to encode
    dataset = prepare(preparation, rows, bank, checked.paired, targeted)
    return Run(
        name=manifest.name, output=output, total_steps=train.generator_steps, base=base, slots=preparation.slots,
        slot_configs=tuple(checked.slots.values()), terms=terms, router=router, dataset=dataset, teachers=bank,
        schedule=checked.student_schedule,
        modules=modules, random=random.child("train"), accelerator=accelerator,
        effects=checked.effects, prompts=prompts,
        teacher_schedule=checked.teacher_schedule, batch_size=train.batch_size, grad_clip=train.grad_clip,
        micro_batches=None if train.global_batch is None else train.micro_batches(accelerator.num_processes),
        checkpoint_every=train.checkpoint_every, keep=train.keep, max_bad_steps=train.max_bad_steps,
        manifest_digest=manifest_digest(checked), plugins=plugin_digests(checked), observers=watching,
        preparation=preparation,
    )  # fmt: skip


def start(checked: CheckedManifest, output: Path, cache: Path | None = None) -> tuple[Accelerator, BuildContext]:
    """Choose device and precision, and say what every builder may know; raises as `make_accelerator` does."""
    accelerator = make_accelerator(checked)
    make_deterministic(checked.manifest.train.deterministic)
    return accelerator, checked.context(output, cache or default_cache(), device=str(accelerator.device))


def load_base(
    checked: CheckedManifest, accelerator: Accelerator, context: BuildContext, stages: Stages | None = None,
    stop: Callable[[], bool] = never,
) -> Preparation:  # fmt: skip
    """Load the base model and put everything beside it that preparing, sampling and measuring need; no slot is added."""
    if not accelerator.is_main_process or stages is None:
        stages = SilentStages()
    with stages.stage("loading the base model", 1) as advance:
        base: BaseModel = checked.base.build(context)
        base.to(context.device)
        run_under_autocast(base, accelerator)
        advance(1)
    schedule = checked.teacher_schedule((checked.manifest.targets or Targets()).steps)
    encoder = Encoder(base, TensorCache(context.cache / "encodings"))
    return Preparation(base, encoder, schedule, accelerator, context, stages, stop)


def make_accelerator(checked: CheckedManifest) -> Accelerator:
    """Let accelerate choose device and precision; ``train.device: cpu`` and ``accelerate launch --cpu`` force the CPU.

    LaunchError where the launcher asked for something else than data parallelism or FSDP in fp32 or bf16.
    """
    train = checked.manifest.train
    # Ranks prepare different teachers and targets: a collective may wait for the slowest far longer than NCCL's minutes.
    group = InitProcessGroupKwargs(timeout=timedelta(days=2))
    accelerator = Accelerator(cpu=train.device == "cpu", mixed_precision=train.mixed_precision, kwargs_handlers=[group])
    kind, precision, ranks = accelerator.distributed_type.value, accelerator.mixed_precision, accelerator.num_processes
    if not train.micro_batches(ranks):
        each = f"{ranks} processes with train.batch_size: {train.batch_size}"
        raise LaunchError(f"train.global_batch: {train.global_batch} is no multiple of {each}: change one of the three")
    if kind in ("DEEPSPEED", "MEGATRON_LM", "XLA"):
        raise LaunchError(f"accelerate is configured for {kind}: a run knows data parallelism (--multi_gpu) and FSDP2")
    if precision not in ("no", "bf16"):
        raise LaunchError(
            f"mixed precision {precision!r}: a run knows 'no' and 'bf16' (fp16 would need its losses scaled); change "
            "`accelerate launch --mixed_precision` or the manifest's train.mixed_precision"
        )
    return accelerator


def make_deterministic(wanted: bool) -> None:
    """Ask torch for kernels that give the same bits every time (``train.deterministic``); what has none gives a warning.

    On the CPU a run is byte-equal anyway; on CUDA it is slower so, and cuBLAS must know before its first call.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def add_slots(preparation: Preparation, checked: CheckedManifest, random: KeyedRandom) -> None:
    """Give the frozen backbone the slots of a run; a slot with a file to start from is loaded."""
    slots = preparation.slots
    for config in checked.slots.values():
        slots.add(config.name, config.targets, config.rank, config.alpha, random.generator("init", config.name))
    for name, fitted in checked.starts.items():
        if name in checked.slots:
            adapter = load_fitted(fitted)
            slots.start_from(name, adapter)
    fits = [fit for effect, fit in checked.teacher_fits.items() if checked.teachers[effect] is not None]
    # What a teacher covers outside of the slots must be wrapped too.
    covered = tuple(sorted({*checked.description.targets, *(to for fit in fits for to in fit.modules)}))
    ranks = checked.teacher_ranks.values() if getattr(preparation.base, "compiled", False) else ()
    slots.add_teacher(covered, padded_rank=max(ranks, default=None))


def make_modules(terms: Sequence[Term], random: KeyedRandom) -> dict[str, TermModule]:
    """Make the modules that loss terms own, the same on all ranks; PluginError for buffers or frozen parameters in one."""
    modules = {}
    for term in terms:
        if not isinstance(term.loss, OwnsModule):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(random.generator("module", term.name).get_state())
            module = term.loss.module().to(random.device, torch.float32)
        if any(True for _ in module.buffers()):
            raise PluginError(f"the module of loss {term.name!r} has buffers: use layers without them (no BatchNorm)")
        if not all(parameter.requires_grad for parameter in module.parameters()):
            raise PluginError(
                f"the module of loss {term.name!r} has frozen parameters: keep those outside of the module"
            )
        modules[term.name] = TermModule(module, term.loss.optimizer)
    return modules
