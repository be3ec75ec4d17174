"""The manifest of a growing run, made from that of the collection (torch-free, plain data in and out).

The collection's own losses, sampler, prompts and slots stay.  What changes: the student starts as the collection, which
also teaches the old effects; the router mixes new effects, rehearsal and the general stream; the run is short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.records import GENERAL, STUDENT
from cldistill.training.checkpoint import Checkpoint
from cldistill_plugins.collectionlora.api import LORA_FILE
from cldistill_plugins.incremental.effects import NewEffect
from cldistill_plugins.incremental.folder import CollectionFolder
from cldistill_plugins.incremental.names import COLLECTION, EFFECT, MIXED, RECALL, REHEARSAL, ROUTER
from cldistill_plugins.teachers.api import FROM_PAIRS

BEFORE, TAUGHT = "before", "taught"
"""Names of the systems that it is compared with."""
STEPS = 100
"""Generator steps (arXiv 2605.25378, table 5)."""
REHEARSED = (5, 20)
"""Pictures on which an old effect is rehearsed, fewest and most: as many as the run's batches will ask for."""
REHEARSED_SHARE, FIRST_RATE = 0.6, 0.6
"""Values of a first phase on mixed batches: the old effects' share (against 0.5 of new ones), and the rate at which it begins,
in units of the one at which its last run on mixed batches began (the figures are in this plugin's README)."""
MIXED_SHARE = 0.6
"""Of the steps, where the collection began on mixed batches and ``--mixed`` says nothing else."""
EMA_SHARE = 10
"""About as many times the average's memory, 1 / (1 - ema) updates, fits into the run."""
RECALLED = {"use": RECALL, "streams": [REHEARSAL], "weight": 10.0}
"""The loss of old effects, from the first step on: what the few-step collection samples are no targets for flow matching, which
puts their mean in place of their detail.  Weight: the recalled difference is small, and the gradients of distribution matching,
with which it shares the steps, are not."""


@dataclass(frozen=True)
class Growth:
    """The parts of a growing run, collected by `prepare_growth`: `growing_manifest` makes the manifest of them."""

    collection: CollectionFolder
    known: Mapping[str, Any]
    """The collection's manifest, with the paths of this machine where they are known."""
    new: Sequence[NewEffect]
    old_pictures: Mapping[str, Path]
    """Old effect -> its pairs, or pictures for its rehearsal."""
    new_pictures: Mapping[str, Path]
    checkpoint: Checkpoint | None
    steps: int = STEPS
    rehearsed: int | None = None
    """Pictures of each old effect; None: see `rehearsed_pictures`."""
    taught_by: Mapping[str, Any] | None = None
    """Manifest of the collection that taught this one, where one did and is still there."""
    begun_by: Mapping[str, Any] | None = None
    """Manifest of the run on mixed batches that the collection's own run went on from, where one did and is still there."""
    mixed: int | None = None
    """Steps of the first phase; None: `MIXED_SHARE` of all."""
    given: bool = False
    """Whether ``begun_by`` was named, so that what its run left in a cache may not be in this one."""

    @property
    def general(self) -> bool:
        """Return whether the general pool is there to be drawn from."""
        return self.known.get("general") is not None

    @property
    def first(self) -> Mapping[str, Any] | None:
        """Return the manifest that says how the collection began on mixed batches: its own, or that of the run before."""
        return next((found for found in (self.known, self.begun_by) if found and begins_mixed(found)), None)


def growing_manifest(growth: Growth) -> dict[str, Any]:
    """Return the manifest of the growing run."""
    known = growth.known
    mixed = mixed_steps(growth)
    data = {key: value for key, value in known.items() if value is not None}
    data |= {
        "name": grown_name(str(known["name"]), len(growth.new)),
        "effects": [*_old_effects(growth), *_new_effects(growth)],
        "router": {"use": ROUTER, "options": router_options(growth, mixed)},
        "losses": [*losses(growth, mixed), RECALLED],
        "slots": {name: _slot(growth, name, slot, mixed) for name, slot in known["slots"].items()},
        "train": _train(known["train"], growth.steps),
    }
    if data.get("targets") is None and mixed and growth.first and growth.first.get("targets"):
        data["targets"] = growth.first["targets"]  # distribution matching alone had none
    if known.get("evaluate") is not None:  # the collection's own report compared other systems
        data["evaluate"] = {**known["evaluate"], "systems": systems(growth), "compare": [], "not_run": []}
    if known.get("samples") is not None:
        data["samples"] = {**known["samples"], "every": max(1, min(known["samples"]["every"], growth.steps // 2))}
    return data


def systems(growth: Growth) -> list[dict[str, Any]]:
    """Return what the grown collection will be compared with: the old one, and the new effects' own teachers."""
    path, new = str(growth.collection.path.resolve()), [effect.name for effect in growth.new]
    return [
        {"name": BEFORE, "title": "the collection before", "adapter": path},
        {"name": TAUGHT, "title": "the new effects' own teachers", "adapter": "teacher", "effects": new},
    ]


def grown_name(name: str, count: int) -> str:
    """Return ``name-plus-2``; what is added to ``name-plus-2`` counts on."""
    before = re.fullmatch(r"(.+)-plus-(\d+)", name)
    return f"{before[1]}-plus-{int(before[2]) + count}" if before else f"{name}-plus-{count}"


def _old_effects(growth: Growth) -> list[dict[str, Any]]:
    path = str(growth.collection.path.resolve())
    return [
        {
            "name": effect.name, "prompt": effect.teacher_prompt or effect.prompt,
            "teacher": {"use": COLLECTION, "options": {"path": path, "effect": effect.name}},
            "pairs": str(growth.old_pictures[effect.name]), "take": growth.rehearsed or rehearsed_pictures(growth),
            "targets": "teacher",  # their after-pictures may be gone, and they shall stay as the collection has them
        }
        for effect in growth.collection.index.effects
    ]  # fmt: skip


def _new_effects(growth: Growth) -> list[dict[str, Any]]:
    return [
        {
            "name": effect.name, "prompt": effect.prompt, "teacher": _teacher(growth, effect),
            "pairs": str(growth.new_pictures[effect.name]),
            "targets": None if effect.after else "teacher",
        }
        for effect in growth.new
    ]  # fmt: skip


def _teacher(growth: Growth, new: NewEffect) -> dict[str, Any]:
    if new.teacher is not None:
        return {"use": LORA_FILE, "options": {"path": str(new.teacher)}}
    # A new teacher is trained as the collection's own were, or those of the collection that taught it, where from pairs.
    old = [*(growth.taught_by or {"effects": ()})["effects"], *growth.known["effects"]]
    found = [effect["teacher"] for effect in old if (effect.get("teacher") or {}).get("use") == FROM_PAIRS]
    return {"use": FROM_PAIRS, "options": dict(found[-1].get("options") or {}) if found else {}}


def rehearsed_pictures(growth: Growth) -> int:
    """Return how many items of each old effect the run draws, within the bounds of `REHEARSED`."""
    train = growth.known["train"]
    drawn = growth.steps * int(train.get("global_batch") or train["batch_size"]) * 0.5
    drawn /= len(growth.collection.index.effects)
    return min(max(round(drawn), REHEARSED[0]), REHEARSED[1])


def begins_mixed(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run's batches were mixed at first, or all along."""
    return any(MIXED in (loss.get("streams") or ()) for loss in manifest["losses"])


def mixed_steps(growth: Growth) -> int:
    """Return the generator steps of the first phase: 0 where the collection did not begin on mixed batches either."""
    if growth.first is None:
        return 0
    wanted = round(MIXED_SHARE * growth.steps) if growth.mixed is None else growth.mixed
    return min(wanted, growth.steps - 1)


def router_options(growth: Growth, mixed: int) -> dict[str, Any]:
    """Return the router's options; shares are its defaults but for what is not there to be drawn."""
    new = [effect.name for effect in growth.new]
    options: dict[str, Any] = {"new_effects": new, "mixed_until": mixed, "rehearsal_stream": True}
    options |= {"rehearsal": REHEARSED_SHARE} if mixed else {}
    return options if growth.general else {**options, "general": 0.0}


def losses(growth: Growth, mixed: int) -> list[dict[str, Any]]:
    """Move the losses that counted at the end of the collection's run to the beginning of this one.

    Those of its first phase alone count in this run's first phase, where it has one; where another run was the first phase,
    that run's.  On the rehearsal stream none counts: what teaches there is a few-step sampler, to be imitated by `RECALLED` and
    by nothing that compares scores.
    """
    known, found = growth.known, []
    end, first = known["train"]["generator_steps"], _first_losses(growth, mixed)
    apart = bool(first)
    streams = [*((MIXED,) if mixed and not apart else ()), EFFECT, *((GENERAL,) if growth.general else ())]
    for loss in known["losses"]:
        until = loss.get("until_step")
        over = until is not None and until < end
        known_streams = loss.get("streams")
        left = [stream for stream in streams if known_streams is None or stream in known_streams]
        if not left or (over and not mixed) or loss["use"] == RECALL:
            continue
        if apart:
            if not over:
                found.append(_joined(loss, left, first, mixed))
            continue
        moved = {**loss, "streams": left, "from_step": mixed if loss.get("from_step") else 0}
        found.append({**moved, "until_step": mixed if over else None})
    return [*({**loss, "streams": [MIXED], "from_step": 0, "until_step": mixed} for loss in first.values()), *found]


def _joined(
    loss: Mapping[str, Any], streams: list[str], first: dict[tuple[str, str | None], Mapping[str, Any]], mixed: int
) -> dict[str, Any]:
    """Return a loss of the second run, in the first phase too where it is one of the first run's (which is taken out)."""
    key = (loss["use"], loss.get("slot"))
    if key in first and all(first[key].get(what) == loss.get(what) for what in ("weight", "options")):
        del first[key]
        return {**loss, "streams": [MIXED, *streams], "from_step": 0, "until_step": None}
    return {**loss, "streams": streams, "from_step": mixed, "until_step": None}


def _first_losses(growth: Growth, mixed: int) -> dict[tuple[str, str | None], Mapping[str, Any]]:
    """Return the losses on mixed batches of the run that the collection's went on from; none where that was one run."""
    if not mixed or growth.first is growth.known or growth.first is None:
        return {}
    on = [loss for loss in growth.first["losses"] if MIXED in (loss.get("streams") or ())]
    return {(loss["use"], loss.get("slot")): loss for loss in on}


def _slot(growth: Growth, name: str, slot: Mapping[str, Any], mixed: int) -> dict[str, Any]:
    checkpoint = growth.checkpoint
    apart = growth.first is not growth.known and name != STUDENT  # what the first run had is the student alone
    begins = mixed if slot.get("from_step") or apart else 0
    moved = {
        **slot,
        "lr": rates(slot["lr"], mixed - begins, _first_rate(growth, name)),
        "warmup": 0,
        "from_step": begins,
    }
    moved["checkpoint"] = None
    if slot.get("ema") is not None:  # a longer memory would export mostly what was there before
        moved["ema"] = min(float(slot["ema"]), growth.steps / (growth.steps + EMA_SHARE))
    student = growth.known["slots"].get(STUDENT, {})  # one without is refused by the check
    same = (slot["rank"], slot.get("targets")) == (student.get("rank"), student.get("targets"))
    # After a first phase that it did not see, a critic's last weights are a critic of another student.
    if begins and same and name != STUDENT:
        return {**moved, "init": f"slot:{STUDENT}"}
    if checkpoint is not None and {name, f"optimizer-{name}"} <= set(checkpoint.groups):
        return {**moved, "init": None, "checkpoint": str(checkpoint.path)}
    if name == STUDENT:
        return {**moved, "init": str(growth.collection.path.resolve())}
    return {**moved, "init": f"slot:{STUDENT}" if same else None}


def _first_rate(growth: Growth, name: str) -> float | None:
    """Return the rate at which a slot's first phase begins; None where it keeps the one that it has."""
    first = growth.first
    lr = first["slots"].get(name, {}).get("lr") if first is not None else None
    if first is None or lr is None or (first is growth.known and not isinstance(lr, list)):
        return None
    rate = float(lr[0]["lr"] if isinstance(lr, list) else lr)
    # A collection that was grown itself began at a rate lowered for that already.
    return rate if first["router"]["use"] == ROUTER else rate * FIRST_RATE


def rates(lr: Any, mixed: int, first: float | None) -> float | list[dict[str, Any]]:
    """Return a slot's rates: a cosine over the ``mixed`` first steps from the rate ``first``, then its last one."""
    last = last_rate(lr)
    if not mixed or first is None:
        return last
    begun = {"from_step": 0, "lr": max(last, first), "end_lr": last, "warmup": mixed // 12}
    return [begun, {"from_step": mixed, "lr": last}]


def last_rate(lr: Any) -> float:
    """Return the learning rate with which a run ended; where a cosine took it to zero, the one that began the phase."""
    if not isinstance(lr, list):
        return float(lr)
    return float(lr[-1].get("end_lr") or lr[-1]["lr"])


def _train(train: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {
        **train,
        "generator_steps": steps,
        "checkpoint_every": max(1, min(train["checkpoint_every"], steps // 4)),
    }  # the seed stays: targets of the general pool that the collection's run sampled are found in the cache


PATHS = (
    ("base", "options", "model"),
    ("general", "images"),
    ("general", "instructions"),
    ("samples", "images"),
    ("evaluate", "images"),
    ("evaluate", "general"),
)
"""Key paths of a manifest's own files, beside the effects'."""


def recovered(portable: Mapping[str, Any], absolute: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the exported manifest with the paths that the run's own has at the same places.

    Effects are found again by what they are taught with, for they may have been renamed or removed since.
    """
    data = deepcopy(dict(portable))
    if absolute is None:
        return data
    for loc in PATHS:
        found = _get(absolute, loc)
        if isinstance(found, str) and Path(found).is_absolute() and Path(found).name == _get(data, loc):
            _put(data, loc, found)
    for effect in data["effects"]:
        same = [other for other in absolute["effects"] if _same_effect(effect, other)]
        same = [other for other in same if other["name"] == effect["name"]] or same
        if len({str(other.get("pairs")) for other in same}) == 1:
            effect["pairs"] = same[0].get("pairs")
    return data


def _same_effect(portable: Mapping[str, Any], absolute: Mapping[str, Any]) -> bool:
    return portable["prompt"] == absolute["prompt"] and _names(portable) == _names(absolute)


def _names(effect: Mapping[str, Any]) -> tuple[str, ...]:
    options = (effect.get("teacher") or {}).get("options") or {}
    return tuple(Path(str(value)).name for value in (effect.get("pairs"), options.get("path")))


def _get(data: Any, loc: tuple[str, ...]) -> Any:
    for key in loc:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _put(data: dict[str, Any], loc: tuple[str, ...], value: Any) -> None:
    for key in loc[:-1]:
        data = data[key]
    data[loc[-1]] = value
