"""Teachers trained from pairs: resumed exactly, stopped politely, made anew when what they depend on changes, never NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cldistill.adapters.slots import AdapterSlots
from cldistill.data.encodings import Encoder
from cldistill.errors import NonFiniteError, Stopped
from cldistill.storage.tensors import TensorCache
from cldistill.testing.pictures import effect_items, picture, write_pairs
from cldistill.testing.teacher_source_check import teacher_request
from cldistill.testing.tiny_base import TinyBase
from cldistill.weights import LoraWeights
from cldistill_plugins.teachers import pairs as pairs_module
from cldistill_plugins.teachers.from_pairs import FromPairs, FromPairsSettings
from cldistill_plugins.teachers.pairs import PairsJob, train_pairs, training_items

SETTINGS = FromPairsSettings(steps=9, rank=2, alpha=2.0, lr=1e-2, batch_size=2, ema=0.9, flip=True, checkpoint_every=4)


def changed(**values: Any) -> FromPairsSettings:
    return SETTINGS.model_copy(update=values)


def make_job(root: Path, folder: str = "cache", settings: FromPairsSettings = SETTINGS, **changes: Any) -> PairsJob:
    """Return a job on three pairs, one of them upright; each call stands for a new process."""
    if not (root / "pairs").is_dir():
        write_pairs(root / "pairs", 2, others=[(20, 40)])
    base = TinyBase()
    values: dict[str, Any] = {
        "base": base, "slots": AdapterSlots(base.backbone), "encoder": Encoder(base, TensorCache(root / folder / "enc")),
        "items": effect_items(root / "pairs", "invert", "invert it"), "prompt": "invert it", "settings": settings,
        "folder": root / folder / "pairs",
    }  # fmt: skip
    return PairsJob(**(values | changes))


def stop_after(steps: int, pairs: int = 6) -> Callable[[], bool]:
    """Return what asks for a stop after so many steps, before which all ``pairs`` are encoded."""
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count >= pairs + steps

    return stop


class Killed(BaseException):
    """The process died."""


def killed_at(step: int) -> Callable[..., bool]:
    """Return a step that is killed at ``step``."""
    real = pairs_module._step

    def take(job: PairsJob, optimizer: Any, dataset: Any, random: Any, at: int) -> bool:
        if at == step:
            raise Killed
        return real(job, optimizer, dataset, random, at)

    return take


@pytest.mark.slow
@pytest.mark.parametrize("kill", [1, 6])
def test_a_killed_and_resumed_training_ends_byte_for_byte_like_an_unbroken_one(
    tmp_path: Path, kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_job(tmp_path, "whole")
    train_pairs(whole)
    broken = make_job(tmp_path, "broken")
    with monkeypatch.context() as patch:
        patch.setattr(pairs_module, "_step", killed_at(kill))
        with pytest.raises(Killed):
            train_pairs(broken)
    assert not broken.file.exists()
    seen: list[int] = []
    mended = make_job(tmp_path, "broken")
    train_pairs(mended, seen.append)
    assert seen[0] == kill // 4 * 4 and sum(seen) == 9
    assert mended.file.read_bytes() == whole.file.read_bytes()


@pytest.mark.slow
def test_a_stop_saves_and_the_training_goes_on_exactly(tmp_path: Path) -> None:
    whole = make_job(tmp_path, "whole")
    train_pairs(whole)
    stopped = make_job(tmp_path, "stopped", stop=stop_after(3))
    with pytest.raises(Stopped, match=r"stopped while training the teacher of invert.*the same command goes on"):
        train_pairs(stopped)
    assert [path.name for path in stopped.checkpoints.iterdir()] == ["step-000003"]
    assert not stopped.file.exists()
    train_pairs(make_job(tmp_path, "stopped"))
    assert stopped.file.read_bytes() == whole.file.read_bytes()


def test_a_stop_at_the_last_step_is_too_late(tmp_path: Path) -> None:
    job = make_job(tmp_path, stop=stop_after(9))
    train_pairs(job)
    assert job.file.is_file()


def test_the_checkpoints_go_once_the_teacher_is_there(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    train_pairs(job)
    assert not job.checkpoints.exists()
    before = job.encoder.cache.computed
    train_pairs(make_job(tmp_path), lambda done: pytest.fail("trains again"))
    assert job.encoder.cache.computed == before


@pytest.mark.slow
def test_the_teacher_is_the_average_of_its_weights(tmp_path: Path) -> None:
    """With ema the file holds ``a_n = a_(n-1) + (1 - d_n) (w_n - a_(n-1))``, ``d_n = min(ema, (1 + n) / (10 + n))``."""
    raw = []
    for steps in range(4):
        job = make_job(tmp_path, f"raw-{steps}", changed(steps=3, flip=False, ema=None))
        weights: dict[str, Tensor] = {}
        if steps:
            job = replace(job, stop=stop_after(steps, pairs=3))
            try:
                train_pairs(job)
            except Stopped:
                found = pairs_module.checkpoint.latest(job.checkpoints, warn=lambda text: None)
                assert found is not None
                weights = found.load("weights")
            else:
                for module, lora in train_pairs(job).modules.items():
                    assert isinstance(lora, LoraWeights)
                    weights |= {f"{module}.lora_A.weight": lora.down, f"{module}.lora_B.weight": lora.up}
        raw.append(weights)
    job = make_job(tmp_path, "ema", changed(steps=3, flip=False, ema=0.9))
    name = job.base.adapter_targets[0]
    average = torch.zeros_like(raw[1][f"{name}.lora_B.weight"])  # B starts at zero
    for update in (1, 2, 3):
        decay = min(0.9, (1 + update) / (10 + update))
        average = average + (1 - decay) * (raw[update][f"{name}.lora_B.weight"] - average)
    taught = train_pairs(job).modules[name]
    assert isinstance(taught, LoraWeights)
    assert torch.allclose(taught.up, average, atol=1e-7)
    assert not torch.allclose(taught.up, raw[3][f"{name}.lora_B.weight"], atol=1e-4)


def test_flip_adds_the_mirrored_pairs(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    items = training_items(job)
    assert [item.key for item in items[3:]] == [f"{item.key}/mirrored" for item in items[:3]]
    for item, mirror in zip(items[:3], items[3:], strict=True):
        straight, turned = job.encoder.pictures(item)[0], job.encoder.pictures(mirror)[0]
        assert straight.getpixel((0, 3)) == turned.getpixel((turned.width - 1, 3)) != turned.getpixel((0, 3))
    assert training_items(make_job(tmp_path, settings=changed(flip=False))) == list(job.items)
    assert not list(tmp_path.rglob("*.partial"))


def test_each_pair_is_trained_with_its_own_prompt(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    own = replace(job.items[0], prompt="its own words")
    told = pairs_module._example(job, own)
    assert torch.equal(told.teacher()["embeds"], job.encoder.prompt(own, "its own words")["embeds"])
    common = pairs_module._example(job, replace(own, prompt=""))
    assert torch.equal(common.teacher()["embeds"], job.encoder.prompt(own, job.prompt)["embeds"])


class Counting(TinyBase):
    """Notes in which order its encoders work and go and its network is called."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def encode_prompt(self, *arguments: Any) -> Any:
        self.order.append("encoded")
        return super().encode_prompt(*arguments)

    def drop_encoders(self) -> None:
        self.order.append("dropped")
        super().drop_encoders()

    def predict(self, *arguments: Any) -> Tensor:
        self.order.append("trained")
        return super().predict(*arguments)


def test_the_encoders_are_gone_before_the_first_step(tmp_path: Path) -> None:
    base = Counting()
    encoder = Encoder(base, TensorCache(tmp_path / "enc"))
    train_pairs(
        make_job(tmp_path, settings=changed(steps=2), base=base, slots=AdapterSlots(base.backbone), encoder=encoder)
    )
    assert list(dict.fromkeys(base.order)) == ["encoded", "dropped", "trained"]
    assert base.order[-3:] == ["dropped", "trained", "trained"]


def test_the_key_follows_everything_that_the_weights_depend_on(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert make_job(tmp_path).key == job.key
    fewer, other = TinyBase(), TinyBase()
    fewer.adapter_targets = fewer.adapter_targets[:-1]
    other.fingerprint = "another"
    items = list(job.items)
    changes = {
        "prompt": {"prompt": "other"}, "targets": {"base": fewer}, "base": {"base": other},
        "an item's prompt": {"items": [replace(items[0], prompt="own"), *items[1:]]}, "fewer": {"items": items[1:]},
        "a picture": {"items": [replace(items[0], target=items[1].target), *items[1:]]},
        **{f"{n}={v}": {"settings": changed(**{n: v})} for n, v in {
            "steps": 10, "rank": 4, "alpha": 4.0, "lr": 1e-3, "end_lr": 0.0, "warmup": 1, "batch_size": 1, "shift": 1.0,
            "ema": None, "grad_clip": 2.0, "flip": False, "seed": 1,
        }.items()},
    }  # fmt: skip
    keys = {name: make_job(tmp_path, **change).key for name, change in changes.items()}  # type: ignore[arg-type]
    assert len({job.key, *keys.values()}) == len(keys) + 1
    assert make_job(tmp_path, settings=changed(checkpoint_every=1)).key == job.key
    picture(seed=99).save(items[0].sources[0])
    assert make_job(tmp_path).key != job.key


class Sick(TinyBase):
    """Predicts NaN at some of its calls."""

    def __init__(self, when: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls, self.when = 0, when

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        return super().predict(*args, **kwargs) * (math.nan if self.when(self.calls) else 1.0)


def test_a_step_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    base = Sick(lambda call: call in (1, 2, 5))
    state = train_pairs(make_job(tmp_path, base=base, slots=AdapterSlots(base.backbone)))
    assert base.calls == 9
    values = [value for weights in state.modules.values() for value in vars(weights).values()]
    assert all(value.isfinite().all() for value in values if isinstance(value, Tensor))


@pytest.mark.slow
def test_a_training_that_diverged_says_so_and_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    base, settings = Sick(lambda call: call > 3), changed(steps=40)
    job = make_job(tmp_path, base=base, slots=AdapterSlots(base.backbone), settings=settings)
    with pytest.raises(NonFiniteError, match=r"teacher of 'invert'.*10 steps in a row.*Lower `lr` \(now 0\.01\)"):
        train_pairs(job)
    assert base.calls == 13
    assert not job.file.exists()
    with pytest.raises(ValueError, match="no adapter slot"):
        job.slots.rank("teacher-training")
    assert train_pairs(make_job(tmp_path, settings=settings)).modules


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path)
    poisoned = {name: torch.full((2, 2), math.inf) for name in ("a", "b")}
    monkeypatch.setattr(pairs_module, "_train", lambda job, advance: poisoned)
    with pytest.raises(NonFiniteError, match="its weights are not finite"):
        train_pairs(job)
    assert not job.file.exists()


class Stages:
    """Writes down what is announced."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, total: int) -> Any:
        from contextlib import nullcontext

        self.names.append(name)
        return nullcontext(lambda done: None)


def test_only_a_real_training_is_announced(tmp_path: Path) -> None:
    request, stages = teacher_request(tmp_path), Stages()
    request = replace(request, stages=stages)
    source = FromPairs(FromPairsSettings(steps=2, rank=2, alpha=2.0))
    first, again = source.adapter(request), source.adapter(request)
    assert first is not None and again is not None
    assert stages.names == ["training the teacher of invert"]
    assert first.digest == again.digest
