"""Who is told what, at the network itself, and the whole DMD step against scores that are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cldistill.protocols import LossTerm
from cldistill.records import GENERAL, Tensors
from cldistill.schedule import add_noise, expand
from cldistill.testing import ObservedContext, TinyBase, TinyBaseSettings, picture, tiny_run, update_context
from cldistill.training.run import Run
from cldistill_plugins.collectionlora.bs_dmd import BsDmd, BsDmdSettings
from cldistill_plugins.collectionlora.fake_score import FakeScore, FakeScoreSettings
from cldistill_plugins.collectionlora.score import distribution_matching
from cldistill_plugins.collectionlora.ta_fm import TaFm, TaFmSettings, draw_sigma
from cldistill_plugins.collectionlora.ts_dmd import TsDmd, TsDmdSettings

torch.set_num_threads(1)
STUDENT, TEACHER = "<invert> invert the colours", "invert the colours"
INSTRUCTION = "make it darker"


@dataclass(frozen=True)
class Heard:
    """One call of the backbone: under which adapter, on which prompt, on the right source."""

    slot: str | None
    mounted: bool
    prompt: str
    right_source: bool


class RecordingBase(TinyBase):
    """Writes down every call; prompts are told from one another by their encodings."""

    run: Run

    def listen(self, run: Run, *prompts: str) -> list[Heard]:
        self.run, self.heard = run, list[Heard]()
        pictures = [[picture(index)] for index in range(2)]
        self.sources = self.collate([self.encode_source(p) for p in pictures])["latents"]
        self.known = {text: self.collate([self.encode_prompt(text, p) for p in pictures])["embeds"] for text in prompts}
        return self.heard

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        slots = self.run.slots
        (text,) = (text for text, embeds in self.known.items() if torch.equal(embeds, prompt["embeds"]))
        self.heard.append(
            Heard(slots.active, slots.mounted is not None, text, torch.equal(source["latents"], self.sources))
        )
        return super().predict(x, sigma, source, prompt)


TERMS: dict[str, tuple[LossTerm, str]] = {
    "bs-dmd": (BsDmd(BsDmdSettings()), "student"),
    "ts-dmd": (TsDmd(TsDmdSettings()), "student"),
    "ta-fm": (TaFm(TaFmSettings()), "student"),
    "fake-score": (FakeScore(FakeScoreSettings()), "critic"),
}


def heard_in(name: str, stream: str, *prompts: str) -> list[Heard]:
    base = RecordingBase(TinyBaseSettings(guidance_scale=4.0))
    term, trains = TERMS[name]
    context = update_context(base, trains=trains, stream=stream)
    heard = base.listen(context.run, *prompts)
    term(context)
    assert heard and all(call.right_source for call in heard)
    return heard


@pytest.mark.parametrize("name", TERMS)
def test_in_the_effect_stream_each_network_hears_its_own_prompt(name: str) -> None:
    heard = heard_in(name, "effect", STUDENT, TEACHER, "")
    for call in heard:
        if call.slot in ("student", "critic"):
            assert call.prompt == STUDENT, call
    teacher = [call for call in heard if call.slot == "teacher"]
    if name in ("bs-dmd", "ts-dmd"):
        assert [call.prompt for call in teacher] == [TEACHER, ""], (
            "conditional, then unconditional: both by the teacher"
        )
        assert all(call.mounted for call in teacher)
        assert {call.slot for call in heard} == {"student", "critic", "teacher"}
    else:
        assert not teacher
        assert {call.slot for call in heard} == ({"student"} if name == "ta-fm" else {"student", "critic"})


@pytest.mark.parametrize("name", ["bs-dmd", "fake-score"])
def test_in_the_general_stream_all_hear_the_instruction_and_the_bare_base_teaches(name: str) -> None:
    heard = heard_in(name, GENERAL, INSTRUCTION, "")
    assert {call.prompt for call in heard if call.slot != "teacher"} == {INSTRUCTION}
    teacher = [call for call in heard if call.slot == "teacher"]
    assert [call.prompt for call in teacher] == ([INSTRUCTION, ""] if name == "bs-dmd" else [])
    assert not any(call.mounted for call in teacher)


def test_the_teacher_of_the_general_stream_is_the_bare_backbone_to_the_bit() -> None:
    context = update_context(TinyBase(), stream=GENERAL)
    x, sigma = torch.randn(2, *context.batch.latent_shape), torch.tensor([0.3, 0.9])
    with torch.no_grad(), context.run.slots.scope(None):
        bare = context.run.base.predict(x, sigma, context.batch.teacher.source, context.batch.teacher.prompt)
    assert torch.equal(context.teacher(x, sigma), bare)
    with torch.no_grad():
        assert not torch.equal(context.student(x, sigma), bare)


# --- the DMD step, on a case whose scores are known


MEANS = {"critic": 0.5, "teacher": 2.0, "unconditional": -1.0}


class GaussianBase(TinyBase):
    """Each network believes in ``x0 ~ N(mean, 1)`` of its own: its velocity follows in closed form."""

    means: Mapping[str, float] = MEANS
    run: Run
    empty: Tensor

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        who = self.run.slots.active or "base"
        if who == "teacher" and torch.equal(prompt["embeds"], self.empty):
            who = "unconditional"
        return (x - posterior_mean(x, sigma, self.means[who])) / expand(sigma, x)


def posterior_mean(x: Tensor, sigma: Tensor, mean: float) -> Tensor:
    """``E[x0 | x]`` for ``x0 ~ N(mean, 1)``, ``x = (1 - s) x0 + s eps``: ``m + (1-s) (x - (1-s) m) / ((1-s)^2 + s^2)``."""
    s = expand(sigma, x)
    return mean + (1 - s) * (x - (1 - s) * mean) / ((1 - s) ** 2 + s**2)


@pytest.mark.parametrize("guidance", [5.0, 0.5, 1.0])
def test_distribution_matching_is_the_papers_equation_by_hand(guidance: float) -> None:
    base = GaussianBase(TinyBaseSettings(guidance_scale=guidance))
    run = base.run = tiny_run(base)
    context = update_context(run=run, seed=4)
    base.empty = context.batch.unconditional.prompt["embeds"]
    sigma = torch.tensor([0.25, 0.8])
    student = torch.randn(2, *context.batch.latent_shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    output = distribution_matching(context, student, sigma, "critic")
    output.loss.backward()  # type: ignore[no-untyped-call]

    y = student.detach()
    noised = add_noise(y, context.random.normal(y.shape, "score-noise"), sigma)
    fake = posterior_mean(noised, sigma, 0.5)
    conditional, unconditional = posterior_mean(noised, sigma, 2.0), posterior_mean(noised, sigma, -1.0)
    real = unconditional + guidance * (conditional - unconditional)
    normaliser = torch.stack([(y[i] - real[i]).abs().mean() for i in range(2)])
    gradient = (fake - real) / expand(normaliser, y)
    assert float(output.loss.detach()) == pytest.approx(float(0.5 * (gradient**2).mean()), rel=1e-5)
    assert student.grad is not None
    assert torch.allclose(student.grad, gradient / y.numel(), rtol=1e-4, atol=1e-7)
    assert output.metrics["distance"] == pytest.approx(float(normaliser.mean()), rel=1e-5)
    assert len([call for call in context.calls if call.slot == "teacher"]) == (1 if guidance == 1.0 else 2)


def test_where_critic_and_guided_teacher_agree_nothing_pulls() -> None:
    base = GaussianBase(TinyBaseSettings(guidance_scale=3.0))
    base.means = {
        "critic": 3.0,
        "teacher": 1.0,
        "unconditional": 0.0,
    }  # 0 + 3 (1 - 0) = 3: CFG of Gaussians of one width
    context = update_context(run=tiny_run(base), seed=4)
    base.run, base.empty = context.run, context.batch.unconditional.prompt["embeds"]
    student = torch.randn(2, *context.batch.latent_shape).requires_grad_()
    output = distribution_matching(context, student, torch.tensor([0.25, 0.8]), "critic")
    assert float(output.loss.detach()) < 1e-10


# --- the released code's TA-FM draws above the very sigma of BS-DMD


class Sigmas(TinyBase):
    """Keeps the sigma of each call by the adapter that it was made under."""

    run: Run

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        self.seen.setdefault(self.run.slots.active, []).append(sigma)
        return super().predict(x, sigma, source, prompt)

    seen: dict[str | None, list[Tensor]]


@pytest.mark.slow
@pytest.mark.parametrize("order", [("bs-dmd", "ta-fm"), ("ta-fm", "bs-dmd")])
@pytest.mark.parametrize("seed", range(4))
def test_the_released_rule_bounds_by_the_sigma_that_bs_dmd_drew(order: tuple[str, str], seed: int) -> None:
    base = Sigmas(TinyBaseSettings())
    context: ObservedContext = update_context(base, seed=seed)
    base.run, base.seen = context.run, {}
    terms = {"bs-dmd": BsDmd(BsDmdSettings()), "ta-fm": TaFm(TaFmSettings(sigma="released"))}
    outputs, anchored = {}, []
    for name in order:
        before = len(base.seen.get("student", []))
        outputs[name] = terms[name](context.for_term(name))
        if name == "ta-fm":
            anchored = base.seen["student"][before:]
    (sigma,), (critic,) = anchored, base.seen["critic"]
    own = torch.rand(2, generator=context.random_of("ta-fm").generator("sigma", per_rank=True))
    low = critic + own * (1.0 - critic)
    assert torch.allclose(sigma, 3.0 * low / (1.0 + 2.0 * low), atol=1e-6)
    assert outputs["ta-fm"].metrics["sigma"] > outputs["bs-dmd"].metrics["sigma"]
    assert replace(context).random_of("bs-dmd") == context.for_term("bs-dmd").random
    assert not torch.equal(sigma, draw_sigma("uniform", context.schedule, own, own))
