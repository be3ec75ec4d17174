"""The rules by which the parts of a manifest must fit together, judged from their descriptions alone.

Every rule yields the key path of what is wrong, and what is wrong there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from cldistill.errors import ManifestError, OptionsError, nearest
from cldistill.manifest.checked import CheckedLoss, CheckedManifest, Part
from cldistill.manifest.messages import Problem, Problems, show
from cldistill.manifest.models import Effect, Sampler
from cldistill.manifest.yaml import Loc
from cldistill.records import GENERAL, STUDENT, find_block

Found = Iterator[Problem]


def check_rules(checked: CheckedManifest, required: Sequence[Part]) -> None:
    """See that everything fits together, and that the packages of the ``required`` parts are installed."""
    problems = [
        *_effects(checked),
        *_general(checked),
        *(problem for index, term in enumerate(checked.losses) for problem in _loss(checked, index, term)),
        *_untaught_streams(checked),
        *_slots(checked),
        *_metrics(checked),
        *(((*part.loc, "use"), f"{why} ({show(part.name)})") for part in required if (why := _not_installed(part))),
    ]
    if problems:
        raise Problems(ManifestError, problems)


def _effects(checked: CheckedManifest) -> Found:
    manifest, streams = checked.manifest, checked.router.needs.streams
    first: dict[str, int] = {}
    for index, effect in enumerate(manifest.effects):
        loc = ("effects", index, "name")
        if effect.name in first:
            other = checked.file.place("effects", first[effect.name], "name")
            yield loc, f"this effect was already given at {other} ({show(effect.name)})"
        first.setdefault(effect.name, index)
        if effect.name == GENERAL:
            yield loc, f"{GENERAL!r} is the name of the general pool; choose another"
    for index, effect in enumerate(manifest.effects):
        teacher, asking = checked.teachers[effect.name], checked.asking(effect.name)
        if teacher is None and asking:
            names = ", ".join(dict.fromkeys(term.loss.name for term in asking))
            text = f"is missing, and {names} asks the effect's teacher ({show(effect.name)}); {_how_taught(checked, effect)}"
            yield ("effects", index, "teacher"), text
        if effect.pairs is None and teacher is not None and teacher.needs.pairs:
            text = f"is missing, and {teacher.name} trains the teacher on them ({show(effect.name)})"
            yield ("effects", index, "pairs"), text
        elif effect.pairs is None and (streams is None or streams - {GENERAL}):  # None: the router may use them
            text = f"is missing: the effect stream draws its pictures from them ({show(effect.name)})"
            yield ("effects", index, "pairs"), text
    for index, name in enumerate((manifest.samples.effects if manifest.samples else None) or ()):
        if name not in first:
            yield ("samples", "effects", index), f"there is no such effect ({show(name)}){nearest(name, first)}"


def _how_taught(checked: CheckedManifest, effect: Effect) -> str:
    """Say how an effect gets a teacher: trained from its pairs where it has some, else from a file."""
    sources = [entry.component for entry in checked.catalogue if entry.component.kind == "teacher_source"]
    plain = [source for source in sources if not any(f.is_required() for f in source.settings.model_fields.values())]
    trains = [source.name for source in plain if source.needs(source.settings(), checked.outline).pairs]
    if effect.pairs is not None and trains:
        return (
            f"write `teacher: {{use: {trains[0]}}}`, which trains one on its pairs, beside the effect, or at the top of the "
            "manifest for every effect that names none"
        )
    fitting = ", ".join(source.name for source in sources if effect.pairs is not None or source.name not in trains)
    return f"write `teacher: {{use: ...}}` ({fitting})" + (
        "" if effect.pairs else f", or give it pairs for {trains[0]}" if trains else ""
    )


def _general(checked: CheckedManifest) -> Found:
    if checked.router.needs.general and checked.manifest.general is None:
        text = (
            f"{checked.router.name} draws from the general pool, which the manifest does not "
            "have; add `general: {images: FOLDER, instructions: FILE.jsonl}`"
        )
        yield ("router",), text


def _loss(checked: CheckedManifest, index: int, term: CheckedLoss) -> Found:
    manifest, slots, end = checked.manifest, checked.slots, checked.manifest.train.generator_steps
    loc, name = ("losses", index), term.loss.name
    if term.slot not in slots:
        text = f"{name} trains a slot that the manifest does not have ({show(term.slot)}){nearest(term.slot, slots)}"
        yield (*loc, "slot"), text
    for other in sorted(term.loss.needs.predicts - {term.slot}):
        if other not in slots:
            yield loc, f"{name} calls the slot {other!r}, which the manifest does not have{nearest(other, slots)}"
        elif term.from_step < slots[other].from_step:
            start = slots[other].from_step
            yield loc, f"{name} calls the slot {other!r} from step {term.from_step}, but it starts at {start}"
    yield from _features(checked, loc, term)
    yield from _stream_names(checked, index, term)
    yield from _low_steps(checked, index, term)
    if term.targets and manifest.targets is None:
        yield loc, f"{name} needs a target, and there are none; add `targets: {{from: teacher, steps: 40}}`"
    elif term.targets and manifest.targets and manifest.targets.origin == "pair" and GENERAL in (term.streams or ()):
        text = f"{name} needs targets in the general stream, whose pictures have no pair ('pair')"
        yield ("targets", "from"), text
    if term.until_step is not None and term.until_step <= term.from_step:
        text = f"must be greater than from_step, which is {term.from_step} ({term.until_step})"
        yield (*loc, "until_step"), text
    if term.from_step >= end:
        yield (*loc, "from_step"), f"the run ends at step {end}, before this begins ({term.from_step})"


def _features(checked: CheckedManifest, loc: Loc, term: CheckedLoss) -> Found:
    """A loss may ask for features of certain blocks, and for the module of another loss."""
    name = term.loss.name
    for at in term.loss.needs.features:
        try:
            find_block(checked.description.blocks, at)
        except OptionsError as error:
            yield loc, f"{name} asks {checked.base.name} for features ({show(at)}): {error}"
    owners = [other.name for other in checked.losses if other.loss.needs.parameters]
    for other in sorted(term.loss.needs.modules - set(owners)):
        text = (
            f"{name} calls the module of the loss {other!r}, which the manifest does not have{nearest(other, owners)}"
        )
        yield loc, text


def _stream_names(checked: CheckedManifest, index: int, term: CheckedLoss) -> Found:
    routed, made_for, router = checked.router.needs.streams, term.loss.needs.streams, checked.router.name
    written = checked.manifest.losses[index].streams
    for position, stream in enumerate(written or ()):
        loc = ("losses", index, "streams", position)
        if routed is not None and stream not in routed:
            yield loc, f"the router {router} yields no such stream ({show(stream)}){nearest(stream, routed)}"
        elif made_for is not None and stream not in made_for:
            yield loc, f"{term.loss.name} is not made for this stream ({show(stream)}){nearest(stream, made_for)}"
    if not written and made_for is not None and routed is not None and not made_for & routed:
        text = f"{term.loss.name} is made for the streams {sorted(made_for)}, but the router {router} yields {sorted(routed)}"
        yield ("losses", index), text


def _low_steps(checked: CheckedManifest, index: int, term: CheckedLoss) -> Found:
    """A loss may need low steps of the student's sampler (TS-DMD starts from targets noised to one of those)."""
    bound, sampler = term.loss.needs.sampler_below, checked.manifest.sampler
    if bound is not None and (lowest := lowest_sigma(sampler)) >= bound:
        text = (
            f"{term.loss.name} (losses.{index}) needs a step at a sigma below "
            f"{bound:.4g}, and the lowest of {sampler.steps} steps at shift {float(sampler.shift):g} is {lowest:.4g}; "
            f"raise sampler.steps, or the loss's bound ({sampler.steps})"
        )
        yield ("sampler", "steps"), text


def lowest_sigma(sampler: Sampler) -> float:
    """Return the last sigma of the student's sampler, as `cldistill.schedule.Schedule.sigmas` has it (without torch)."""
    sigma = float(sampler.shift) / (sampler.steps + float(sampler.shift) - 1.0)
    return math.floor(sigma * 1000.0 + 1e-9) / 1000.0 if sampler.integer_timesteps else sigma


def _untaught_streams(checked: CheckedManifest) -> Found:
    """A stream on which no loss ever trains the student makes updates that leave it as it is."""
    router, end = checked.router, checked.manifest.train.generator_steps
    for stream in sorted(router.needs.streams or ()) if STUDENT in checked.slots else ():
        until = router.needs.ends.get(stream)
        taught = any(
            term.slot == STUDENT and term.weight > 0 and (term.streams is None or stream in term.streams)
            and checked.meets(stream, term.from_step, end if term.until_step is None else term.until_step)
            for term in checked.losses
        )  # fmt: skip
        if not taught and checked.meets(stream, 0, end):
            end_of_it = "" if until is None else f" until step {until}"
            text = f"none trains the {STUDENT} on the stream {stream!r}, which the router {router.name} yields"
            yield ("losses",), f"{text}{end_of_it}; add the stream to a loss, or give it no share in the router"


def _slots(checked: CheckedManifest) -> Found:
    slots, end = checked.slots, checked.manifest.train.generator_steps
    if STUDENT not in slots:
        yield ("slots",), f"there is no slot {STUDENT!r}, from which the collection is made{nearest(STUDENT, slots)}"
    trained = {term.slot for term in checked.losses}
    called = {name for term in checked.losses for name in term.loss.needs.predicts} - {STUDENT}
    for name, slot in slots.items():
        loc = ("slots", name)
        if name not in trained | called:
            yield loc, f"no loss trains this slot, or calls it; give one `slot: {name}` or remove it"
        if slot.from_step >= end:
            yield (*loc, "from_step"), f"the run ends before this slot starts ({slot.from_step})"
        steps = [phase.from_step for phase in slot.lr]
        if steps != sorted(set(steps)) or steps[0] > slot.from_step:
            yield (*loc, "lr"), f"phases must rise and begin by the slot's from_step, {slot.from_step} ({steps})"
        if slot.reuse_sample and STUDENT in [name, *list(slots)[list(slots).index(name) :]]:
            text = f"only a slot listed after {STUDENT!r} can take over the sample of its update (true)"
            yield (*loc, "reuse_sample"), text
        if isinstance(slot.init, str):
            yield from _copied(checked, name, slot.init)


def _copied(checked: CheckedManifest, name: str, init: str) -> Found:
    """A slot that starts as a copy of another needs one of the same shape."""
    slots, other, loc = checked.slots, init.removeprefix("slot:"), ("slots", name, "init")
    if other not in slots or other == name:
        yield loc, f"there is no other slot of that name ({show(init)}){nearest(other, set(slots) - {name})}"
    elif (slots[other].rank, slots[other].targets) != (slots[name].rank, slots[name].targets):
        yield loc, f"to be copied, {other!r} must have the same rank and targets as {name!r} ({show(init)})"


def _metrics(checked: CheckedManifest) -> Found:
    """The report has one column for each name of a metric."""
    first: dict[str, int] = {}
    for index, metric in enumerate(checked.metrics):
        if metric.name in first:
            other = checked.file.place("evaluate", "metrics", first[metric.name], "use")
            text = f"was already given at {other}, and a report has one place for it ({show(metric.name)})"
            yield ("evaluate", "metrics", index, "use"), text
        first.setdefault(metric.name, index)


def _not_installed(part: Part) -> str | None:
    missing = [package for package in part.needs.packages if find_spec(package) is None]
    how = part.needs.install or "pip install it"
    return f"needs {', '.join(missing)}, which is not installed: {how}" if missing else None


def lacking(part: Part) -> str | None:
    """Return why a part cannot work on this machine: packages or files are missing, or its description says so."""
    files = [str(path) for path in part.needs.files if not path.exists()]
    return _not_installed(part) or (f"needs {', '.join(files)}, which is not there" if files else part.needs.lacks)


def blind(checked: CheckedManifest) -> list[str]:
    """Warn of the metrics that cannot measure."""
    told = ((part.name, lacking(part)) for part in checked.metrics)
    return [f"warning: the metric {name} will not be measured: {why}" for name, why in told if why]


def unserved(checked: CheckedManifest) -> list[str]:
    """Warn of metrics that lack something, and of keys that no observer serves: a plugin was left out, or failed to load."""
    served = {entry.component.serves for entry in checked.catalogue}
    keys = [key for key in ("samples", "evaluate") if getattr(checked.manifest, key) and key not in served]
    lines = [f"warning: no plugin that works serves `{key}:`, so nothing will come of it" for key in keys]
    return [*blind(checked), *lines, *(checked.catalogue.first_failure() if lines else ())]
