"""The items that systems edit: held-out pictures under every effect, held-out general instructions, and probes of triggers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cldistill.data.items import held_out_pictures, held_pairs, item_prompts
from cldistill.manifest.models import Evaluate
from cldistill.protocols import PromptIsolator
from cldistill.records import GENERAL, HELD_PAIRS, UNTRIGGERED, WRONG_TRIGGER, EffectInfo, Item, Prompts, probe_pool
from cldistill.samples import general_rows, held_out_items
from cldistill.sampling.image_generator import Row
from cldistill_plugins.evaluation.systems import OpenedSystem

NEUTRAL = "keep the picture as it is"
"""A caption that asks for nothing."""
STRANGER = "an effect that nobody has"
"""Name for which the isolator makes a trigger that belongs to no effect."""


@dataclass(frozen=True)
class Pools:
    """The held-out items by pool, made by `make_pools`: the evaluator asks every system to edit those that concern it."""

    items: Mapping[str, Sequence[Item]]
    """Pool -> its items: every effect's, ``general`` where there is one, and every probe's."""
    effects: Sequence[EffectInfo]
    wrong: str | None
    """The prompt of `WRONG_TRIGGER`; None where the isolator knows no triggers."""

    @property
    def probes(self) -> list[str]:
        """The pools of probes."""
        return [pool for pool in self.items if "/" in pool and pool.partition("/")[2] != HELD_PAIRS]

    def rows(self, system: OpenedSystem) -> dict[str, list[Row]]:
        """Return the rows of every pool that a system is measured on; effects that its collection lacks are left out."""
        found: dict[str, list[Row]] = {}
        for effect in self.effects:
            prompts = system.prompts(effect) if system.is_asked(effect.name) else None
            if prompts is None:
                continue
            found[effect.name] = [(item, prompts) for item in self.items[effect.name]]
            pool = probe_pool(effect.name, HELD_PAIRS)
            if pool in self.items:
                found[pool] = [(item, item_prompts(item, effect, prompts)) for item in self.items[pool]]
            for probe, text in self._probes(system, effect, prompts):
                pool = probe_pool(effect.name, probe)
                told = Prompts(text, text, prompts.unconditional)
                found[pool] = [(item, told) for item in self.items[pool]]
        if GENERAL in self.items and system.is_asked(GENERAL):
            found[GENERAL] = [(item, Prompts(item.prompt, item.prompt)) for item in self.items[GENERAL]]
        return found

    def _probes(self, system: OpenedSystem, effect: EffectInfo, prompts: Prompts) -> Iterable[tuple[str, str]]:
        if probe_pool(effect.name, UNTRIGGERED) in self.items:
            # Whoever has no trigger of its own hears the manifest's student without it.
            own = prompts if prompts.trigger and prompts.trigger in prompts.student else None
            text = without_trigger(own or system.setup.prompts[effect.name])
            if text:
                yield UNTRIGGERED, text
        if probe_pool(effect.name, WRONG_TRIGGER) in self.items and self.wrong is not None:
            yield WRONG_TRIGGER, self.wrong


def make_pools(
    evaluate: Evaluate, effects: Sequence[EffectInfo], probes: Iterable[str], isolator: PromptIsolator, known: set[str]
) -> Pools:
    """List everything; ``known`` are all triggers that any system may have been trained with."""
    pictures = held_out_pictures(evaluate.images, evaluate.pictures)
    items: dict[str, Sequence[Item]] = {effect.name: held_out_items(pictures, effect) for effect in effects}
    general = [item for item, _ in general_rows(evaluate)]
    if general:
        items[GENERAL] = general
    for effect in effects:
        pool = probe_pool(effect.name, HELD_PAIRS)
        held = [(item, item.key.rpartition("/")[2]) for item in held_pairs(effect)]
        if held:  # under names of their own: pictures of a report go by those
            items[pool] = [replace(item, key=f"{pool}/{effect.name}-{name}", pool=pool) for item, name in held]
    probes = set(probes)
    wrong = wrong_trigger(isolator, known) if WRONG_TRIGGER in probes else None
    for effect in effects:
        for probe in sorted(probes):
            own = held_out_items(pictures[: evaluate.probes_pictures], effect)
            pool = probe_pool(effect.name, probe)
            items[pool] = [replace(item, pool=pool) for item in own]
    return Pools(items, effects, wrong)


def without_trigger(prompts: Prompts) -> str | None:
    """Return the student's caption without its trigger word; None where there is no such word, or nothing else."""
    if not prompts.trigger or prompts.trigger not in prompts.student:
        return None
    return " ".join(prompts.student.replace(prompts.trigger, " ", 1).split()) or None


def wrong_trigger(isolator: PromptIsolator, known: set[str]) -> str | None:
    """Return a well-formed trigger that is none of the ``known`` ones, before a caption that asks for nothing."""
    for number in range(len(known) + 1):
        trigger = isolator.isolate(EffectInfo(f"{STRANGER} {number}", NEUTRAL)).trigger
        if trigger and trigger not in known:
            return f"{trigger} {NEUTRAL}"
    return None
