"""The method, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cldistill.component import BuildContext, Component, loss_term, prompt_isolator, stream_router, teacher_source
from cldistill.markers import hookimpl
from cldistill.protocols import LossTerm, PromptIsolator, StreamRouter, TeacherSource
from cldistill_plugins.collectionlora.aop import AopSettings, build_aop, describe_aop
from cldistill_plugins.collectionlora.api import LORA_FILE
from cldistill_plugins.collectionlora.bare_base import BareBase, BareBaseSettings, describe_bare_base
from cldistill_plugins.collectionlora.bs_dmd import BsDmd, BsDmdSettings, describe_bs_dmd
from cldistill_plugins.collectionlora.fake_score import FakeScore, FakeScoreSettings, describe_fake_score
from cldistill_plugins.collectionlora.lora_file import LoraFile, LoraFileSettings, describe_lora_file
from cldistill_plugins.collectionlora.lora_files import LoraFiles, LoraFilesSettings, describe_lora_files
from cldistill_plugins.collectionlora.pdsr import PdsrSettings, build_pdsr, describe_pdsr
from cldistill_plugins.collectionlora.ta_fm import TaFm, TaFmSettings, describe_ta_fm
from cldistill_plugins.collectionlora.teacher_prompts import (
    TeacherPromptsSettings,
    build_teacher_prompts,
    describe_teacher_prompts,
)
from cldistill_plugins.collectionlora.ts_dmd import TsDmd, TsDmdSettings, describe_ts_dmd


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, TeacherSource]]:
    """Teachers that exist already: ``lora-file``, ``lora-files`` and ``base``."""
    return [
        teacher_source(
            LORA_FILE,
            "an adapter file of any common key format",
            LoraFileSettings,
            describe_lora_file,
            lambda settings, context: LoraFile(settings, _names(context)),
        ),
        teacher_source(
            "lora-files",
            "several adapter files with strengths of their own, added up",
            LoraFilesSettings,
            describe_lora_files,
            lambda settings, context: LoraFiles(settings, _names(context)),
        ),
        teacher_source(
            "base",
            "the bare base model",
            BareBaseSettings,
            describe_bare_base,
            lambda settings, context: BareBase(),
        ),
    ]


def _names(context: BuildContext) -> Mapping[str, tuple[str, ...]] | None:
    return context.outline.base.adapter_names if context.outline.base is not None else None


@hookimpl
def register_stream_routers() -> Sequence[Component[Any, StreamRouter]]:
    """PDSR."""
    return [
        stream_router(
            "pdsr",
            "probabilistic dual-stream routing: an effect with its teacher, or the general stream",
            PdsrSettings,
            describe_pdsr,
            build_pdsr,
        )
    ]


@hookimpl
def register_prompt_isolators() -> Sequence[Component[Any, PromptIsolator]]:
    """AOP, and what it is measured against."""
    return [
        prompt_isolator(
            "aop",
            "asymmetric orthogonal prompting: a unique trigger and a caption for the student",
            AopSettings,
            describe_aop,
            build_aop,
        ),
        prompt_isolator(
            "teacher-prompts",
            "no isolation: the student hears each teacher's own prompt (AOP's ablation)",
            TeacherPromptsSettings,
            describe_teacher_prompts,
            build_teacher_prompts,
        ),
    ]


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, LossTerm]]:
    """The three losses of the student and the critic's."""
    return [
        loss_term(
            "bs-dmd",
            "distribution matching on the student's own trajectory",
            BsDmdSettings,
            describe_bs_dmd,
            lambda settings, context: BsDmd(settings),
        ),
        loss_term(
            "ts-dmd",
            "distribution matching on outputs simulated from the target: keeps texture",
            TsDmdSettings,
            describe_ts_dmd,
            lambda settings, context: TsDmd(settings),
        ),
        loss_term(
            "ta-fm",
            "trajectory anchoring: flow matching on the target",
            TaFmSettings,
            describe_ta_fm,
            lambda settings, context: TaFm(settings),
        ),
        loss_term(
            "fake-score",
            "the critic: flow matching on the student's samples",
            FakeScoreSettings,
            describe_fake_score,
            lambda settings, context: FakeScore(settings),
        ),
    ]
