"""What the parts of a manifest need of one another, judged from their descriptions alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec

from cldistill.errors import OptionsError, nearest
from cldistill.manifest.checked import STUDENT, CheckedLoss, CheckedManifest, Part
from cldistill.manifest.messages import show
from cldistill.manifest.models import Sampler
from cldistill.records import GENERAL, find_block


def mutual_problems(checked: CheckedManifest, *, measuring: bool = False) -> list[str]:
    """Return one line for everything that does not fit together; ``measuring``: for ``cldistill eval``."""
    return [
        *_effects(checked),
        *_general(checked),
        *(line for index, term in enumerate(checked.losses) for line in _loss(checked, index, term)),
        *_untaught_streams(checked),
        *_slots(checked),
        *_metrics(checked),
        *_packages(checked, measuring),
    ]


def _names(losses: list[CheckedLoss]) -> str:
    return ", ".join(dict.fromkeys(term.loss.name for term in losses))


def uses_effects(checked: CheckedManifest) -> bool:
    """Whether any stream draws from the effects (a router that does not say may)."""
    return checked.router.needs.streams is None or any(stream != GENERAL for stream in checked.router.needs.streams)


def _effects(checked: CheckedManifest) -> Iterator[str]:
    file, manifest = checked.file, checked.manifest
    first: dict[str, int] = {}
    for index, effect in enumerate(manifest.effects):
        where = file.where("effects", index, "name")
        if effect.name in first:
            other = file.place("effects", first[effect.name], "name")
            yield f"{where}: this effect was already given at {other} ({show(effect.name)})"
        first.setdefault(effect.name, index)
        if effect.name == GENERAL:
            yield f"{where}: {GENERAL!r} is the name of the general pool; choose another"
    asking = [term for term in checked.losses if term.loss.needs.teacher and _reaches_effects(term)]
    sampled = [term for term in checked.losses if term.loss.needs.targets and _reaches_effects(term)]
    if manifest.targets is not None and manifest.targets.origin == "teacher":
        asking += sampled
    for index, effect in enumerate(manifest.effects):
        teacher = checked.teachers[effect.name]
        if teacher is None and asking:
            place = file.where("effects", index, "teacher")
            yield (
                f"{place}: is missing, and {_names(asking)} asks the effect's teacher ({show(effect.name)}); "
                "write `teacher: {use: base}` if the bare base is its teacher"
            )
        where = file.where("effects", index, "pairs")
        if effect.pairs is None and teacher is not None and teacher.needs.pairs:
            yield f"{where}: is missing, and {teacher.name} trains the teacher on them ({show(effect.name)})"
        elif effect.pairs is None and uses_effects(checked):
            yield f"{where}: is missing: the effect stream draws its pictures from them ({show(effect.name)})"
    for index, name in enumerate((manifest.samples.effects if manifest.samples else None) or ()):
        if name not in first:
            where = file.where("samples", "effects", index)
            yield f"{where}: there is no such effect ({show(name)}){nearest(name, first)}"


def _reaches_effects(term: CheckedLoss) -> bool:
    return term.streams is None or term.streams != {GENERAL}


def _general(checked: CheckedManifest) -> Iterator[str]:
    manifest, router = checked.manifest, checked.router
    if router.needs.general and manifest.general is None:
        yield (
            f"{checked.file.where('router')}: {router.name} draws from the general pool, which the manifest does not "
            "have; add `general: {images: FOLDER, instructions: FILE.jsonl}`"
        )


def _loss(checked: CheckedManifest, index: int, term: CheckedLoss) -> Iterator[str]:
    file, manifest, needs = checked.file, checked.manifest, term.loss.needs
    where, name = file.where("losses", index), term.loss.name
    if term.slot not in manifest.slots:
        place = file.where("losses", index, "slot")
        yield f"{place}: {name} trains a slot that the manifest does not have ({show(term.slot)})" + nearest(
            term.slot, manifest.slots
        )
    for other in sorted(needs.predicts - {term.slot}):
        if other not in manifest.slots:
            yield f"{where}: {name} calls the slot {other!r}, which the manifest does not have" + nearest(
                other, manifest.slots
            )
        elif term.from_step < manifest.slots[other].from_step:
            start = manifest.slots[other].from_step
            yield f"{where}: {name} calls the slot {other!r} from step {term.from_step}, but it starts at {start}"
    yield from _features(checked, where, term)
    yield from _stream_names(checked, index, term)
    yield from _mixed_streams(checked, index, term)
    yield from _low_steps(checked, index, term)
    if needs.targets and manifest.targets is None:
        yield f"{where}: {name} needs a target, and there are none; add `targets: {{from: teacher, steps: 40}}`"
    elif needs.targets and _only_pairs(checked) and term.streams is not None and GENERAL in term.streams:
        place = file.where("targets", "from")
        yield f"{place}: {name} needs targets in the general stream, whose pictures have no pair ('pair')"
    if term.until_step is not None and term.until_step <= term.from_step:
        place = file.where("losses", index, "until_step")
        yield f"{place}: must be greater than from_step, which is {term.from_step} ({term.until_step})"
    if term.from_step >= manifest.train.generator_steps:
        place = file.where("losses", index, "from_step")
        yield f"{place}: the run ends at step {manifest.train.generator_steps}, before this begins ({term.from_step})"


def _features(checked: CheckedManifest, where: str, loss: CheckedLoss) -> Iterator[str]:
    """A loss may ask for features of certain blocks, and for the module of another loss."""
    for at in loss.loss.needs.features:
        try:
            find_block(checked.description.blocks, at)
        except OptionsError as error:
            yield f"{where}: {loss.loss.name} asks {checked.base.name} for features ({show(at)}): {error}"
    owners = [other.name for other in checked.losses if other.loss.needs.parameters]
    for other in sorted(loss.loss.needs.modules - set(owners)):
        yield (
            f"{where}: {loss.loss.name} calls the module of the loss {other!r}, which the manifest does not have"
            + nearest(other, owners)
        )


def _only_pairs(checked: CheckedManifest) -> bool:
    return checked.manifest.targets is not None and checked.manifest.targets.origin == "pair"


def _low_steps(checked: CheckedManifest, index: int, term: CheckedLoss) -> Iterator[str]:
    """A loss may need low steps of the student's sampler (TS-DMD starts from targets noised to one of those)."""
    bound, lowest = term.loss.needs.sampler_below, lowest_sigma(checked.manifest.sampler)
    if bound is not None and lowest >= bound:
        sampler = checked.manifest.sampler
        yield (
            f"{checked.file.where('sampler', 'steps')}: {term.loss.name} (losses.{index}) needs a step at a sigma below "
            f"{bound:.4g}, and the lowest of {sampler.steps} steps at shift {sampler.shift:g} is {lowest:.4g}; "
            f"raise sampler.steps, or the loss's bound ({sampler.steps})"
        )


def lowest_sigma(sampler: Sampler) -> float:
    """Return the last sigma of the student's sampler, as `cldistill.schedule.Schedule.sigmas` has it (without torch)."""
    sigma = sampler.shift / (sampler.steps + sampler.shift - 1.0)
    return math.floor(sigma * 1000.0 + 1e-9) / 1000.0 if sampler.integer_timesteps else sigma


def _slots(checked: CheckedManifest) -> Iterator[str]:
    file, slots = checked.file, checked.slots
    if STUDENT not in slots:
        yield f"{file.where('slots')}: there is no slot {STUDENT!r}, from which the collection is made" + nearest(
            STUDENT, slots
        )
    trained = {term.slot for term in checked.losses}
    for name, slot in slots.items():
        if name not in trained:
            yield f"{file.where('slots', name)}: no loss trains this slot; give one `slot: {name}` or remove it"
        if slot.from_step >= checked.manifest.train.generator_steps:
            place = file.where("slots", name, "from_step")
            yield f"{place}: the run ends before this slot starts ({slot.from_step})"
        steps = [phase.from_step for phase in slot.lr]
        if steps != sorted(set(steps)) or steps[0] > slot.from_step:
            place = file.where("slots", name, "lr")
            yield f"{place}: phases must rise and begin by the slot's from_step, {slot.from_step} ({steps})"
        if slot.reuse_sample and STUDENT in [name, *list(slots)[list(slots).index(name) :]]:
            place = file.where("slots", name, "reuse_sample")
            yield f"{place}: only a slot listed after {STUDENT!r} can take over the sample of its update (true)"
        if isinstance(slot.init, str):
            yield from _copied(checked, name, slot.init)


def _copied(checked: CheckedManifest, name: str, init: str) -> Iterator[str]:
    """A slot that starts as a copy of another needs one of the same shape."""
    file, slots = checked.file, checked.slots
    other, where = init.removeprefix("slot:"), file.where("slots", name, "init")
    if other not in slots or other == name:
        yield f"{where}: there is no other slot of that name ({show(init)}){nearest(other, set(slots) - {name})}"
    elif (slots[other].rank, slots[other].targets) != (slots[name].rank, slots[name].targets):
        yield f"{where}: to be copied, {other!r} must have the same rank and targets as {name!r} ({show(init)})"


def required_parts(checked: CheckedManifest, measuring: bool) -> list[Part]:
    """Return the parts whose packages and files must be there.

    An evaluation reports a metric that lacks something as not measured; a run should not train for hours to find that out.
    """
    optional = measuring or (checked.manifest.evaluate is not None and bool(checked.manifest.evaluate.systems))
    return [part for part in checked.parts() if not (optional and part in checked.metrics)]


def _metrics(checked: CheckedManifest) -> Iterator[str]:
    """The report has one column for each name of a metric."""
    first: dict[str, int] = {}
    for index, metric in enumerate(checked.metrics):
        if metric.name in first:
            where = checked.file.where("evaluate", "metrics", index, "use")
            other = checked.file.place("evaluate", "metrics", first[metric.name], "use")
            yield f"{where}: was already given at {other}, and a report has one place for it ({show(metric.name)})"
        first.setdefault(metric.name, index)


def _packages(checked: CheckedManifest, measuring: bool) -> Iterator[str]:
    for part in required_parts(checked, measuring):
        missing = [package for package in part.needs.packages if find_spec(package) is None]
        if missing:
            where = checked.file.where(*part.loc, "use")
            how = part.needs.install or "pip install it"
            yield f"{where}: needs {', '.join(missing)}, which is not installed; {how} ({show(part.name)})"


def _untaught_streams(checked: CheckedManifest) -> Iterator[str]:
    """A stream on which no loss ever trains the student makes updates that leave it as it is."""
    router, end = checked.router, checked.manifest.train.generator_steps
    for stream in sorted(router.needs.streams or ()):
        until = router.needs.mixed.get(stream)
        teaching = (
            term
            for term in checked.losses
            if term.slot == STUDENT and term.weight > 0 and (term.streams is None or stream in term.streams)
            if checked.meets(stream, term.from_step, end if term.until_step is None else term.until_step)
        )
        if STUDENT in checked.manifest.slots and checked.meets(stream, 0, end) and next(teaching, None) is None:
            yield (
                f"{checked.file.where('losses')}: none trains the {STUDENT} on the stream {stream!r}, which the router "
                f"{router.name} yields{'' if until is None else f' until step {until}'}; add the stream to a loss, or give "
                "it no share in the router"
            )


def _stream_names(checked: CheckedManifest, index: int, term: CheckedLoss) -> Iterator[str]:
    file, routed, made_for = checked.file, checked.router.needs.streams, term.loss.needs.streams
    written = checked.manifest.losses[index].streams
    for position, stream in enumerate(written or ()):
        where = file.where("losses", index, "streams", position)
        if routed is not None and stream not in routed:
            yield f"{where}: the router {checked.router.name} yields no such stream ({show(stream)})" + nearest(
                stream, routed
            )
        elif made_for is not None and stream not in made_for:
            yield f"{where}: {term.loss.name} is not made for this stream ({show(stream)})" + nearest(stream, made_for)
    if not written and made_for is not None and routed is not None and not made_for & routed:
        yield (
            f"{file.where('losses', index)}: {term.loss.name} is made for the streams {sorted(made_for)}, but the "
            f"router {checked.router.name} yields {sorted(routed)}"
        )


def _mixed_streams(checked: CheckedManifest, index: int, term: CheckedLoss) -> Iterator[str]:
    """A batch that mixes pools has no teacher: a loss that asks for one must start later, or keep to other streams."""
    router, written = checked.router, checked.manifest.losses[index].streams
    if not term.loss.needs.teacher:
        return
    for stream, until in sorted(router.needs.mixed.items()):
        meets = term.streams is None or stream in term.streams
        if not meets or (until is not None and term.from_step >= until):
            continue
        others = sorted((term.streams or router.needs.streams or frozenset()) - router.needs.mixed.keys())
        advice = [f"streams: [{', '.join(others)}]"] if others else []
        advice += (
            [f"from_step: {until}"] if until is not None and until < checked.manifest.train.generator_steps else []
        )
        where = checked.file.where("losses", index, *(() if written is None else ("streams", written.index(stream))))
        yield (
            f"{where}: {term.loss.name} asks the teacher, and a batch of the stream {stream!r}, which {router.name} yields "
            f"{'always' if until is None else f'until step {until}'}, mixes several effects and has none"
            f"{'; give it ' if advice else ''}{' or '.join(f'`{text}`' for text in advice)}"
        )
