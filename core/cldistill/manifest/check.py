"""Judging a manifest before anything is loaded; no torch in here.

Order: names exist -> settings of each part -> what the parts need of one another -> files exist and adapters fit the
base.  A phase reports all of its mistakes; the next phase starts only if there were none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import ValidationError

from cldistill.catalogue import Catalogue, Entry, load_catalogue
from cldistill.component import Kind, RunOutline
from cldistill.errors import CldistillError, ManifestError, OptionsError, PluginLoadError, nearest
from cldistill.manifest.checked import CheckedLoss, CheckedManifest, Part
from cldistill.manifest.files import check_files
from cldistill.manifest.load import ManifestFile, load_manifest
from cldistill.manifest.messages import BadData, Problem, Problems, show, tell
from cldistill.manifest.models import LossRef, Manifest, PartRef, Slot
from cldistill.manifest.rules import check_rules
from cldistill.manifest.yaml import Loc
from cldistill.records import STUDENT, BaseDescription, EffectInfo
from cldistill.training.run import LrPhase, SlotConfig


def check_manifest(
    reference: str, overrides: Sequence[str] = (), *, catalogue: Catalogue | None = None, files: bool = True,
    measuring: bool = False,
) -> CheckedManifest:  # fmt: skip
    """Load and validate a manifest: what `cldistill check` does. See `validate`."""
    expected: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError)  # a name too long, links in a ring
    try:
        file = load_manifest(reference, overrides)
        # Overflows of huge numbers; from here on plugins run, and their bugs keep a traceback.
        expected = (OSError, OverflowError)
        return validate(file, catalogue, files=files, measuring=measuring)
    except expected as error:
        if isinstance(error, CldistillError):
            raise
        what = f"{str(error.filename)[:80]}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ManifestError(f"{reference}: {what}") from error


def validate(
    file: ManifestFile, catalogue: Catalogue | None = None, *, files: bool = True, measuring: bool = False
) -> CheckedManifest:
    """Validate everything that can be judged without loading anything.

    ``files=False`` leaves out the last phase: pictures, teacher files and adapters need not exist.  ``measuring``: for
    ``cldistill eval``, which trains nothing and goes on without metrics that lack packages or files.

    Raises:
        PluginLoadError: a part that nobody offers.
        OptionsError: options that do not fit a part's settings.
        ManifestError: everything else. Each line has file, line, key path and the value.
    """
    catalogue = load_catalogue() if catalogue is None else catalogue
    try:
        check_requirements(file.manifest)
        entries = _find(file.manifest, catalogue)
        parts = _read_options(file, entries)
        checked = _combine(file, catalogue, parts)
        required = required_parts(checked, measuring)
        check_rules(checked, required)
        return check_files(checked, required, measuring=measuring) if files else checked
    except Problems as problems:  # the one place where key paths become files and lines
        raise problems.error(tell(problems, file.tree)) from problems


def check_requirements(manifest: Manifest) -> None:
    """See that the distributions that ``requires:`` names are there, in the versions that it asks for."""
    problems: list[Problem] = []
    for index, text in enumerate(manifest.requires):
        loc = ("requires", index)
        try:
            requirement = Requirement(text)
            installed = version(requirement.name)
        except InvalidRequirement as error:
            problems.append((loc, f"not a requirement ({show(text)}): {str(error).splitlines()[0]}"))
        except PackageNotFoundError:
            problems.append((loc, f"{requirement.name} is not installed; pip install {show(text)}"))
        else:
            if not requirement.specifier.contains(installed, prereleases=True):
                problems.append((loc, f"needs {text}, but {installed} is installed; pip install {show(text)}"))
    if problems:
        raise Problems(ManifestError, problems)


def part_refs(manifest: Manifest) -> Iterator[tuple[Loc, Kind, PartRef]]:
    """Yield every part that a manifest names, with its key path and kind, in the order of validation."""
    yield ("base",), "base_model", manifest.base
    for index, effect in enumerate(manifest.effects):
        if effect.teacher is not None:
            yield ("effects", index, "teacher"), "teacher_source", effect.teacher
    yield ("router",), "stream_router", manifest.router
    yield ("prompts",), "prompt_isolator", manifest.prompts
    yield from ((("losses", index), "loss_term", loss) for index, loss in enumerate(manifest.losses))
    yield from ((("observers", index), "observer", observer) for index, observer in enumerate(manifest.observers))
    for index, metric in enumerate(manifest.evaluate.metrics if manifest.evaluate else ()):
        yield ("evaluate", "metrics", index), "metric", metric


def _find(manifest: Manifest, catalogue: Catalogue) -> dict[Loc, tuple[PartRef, Entry]]:
    found: dict[Loc, tuple[PartRef, Entry]] = {}
    problems: list[Problem] = []
    for loc, kind, ref in part_refs(manifest):
        try:
            found[loc] = ref, catalogue.find(kind, ref.use)
        except PluginLoadError as error:
            problems.append(((*loc, "use"), str(error)))
    if problems:
        raise Problems(PluginLoadError, problems, catalogue.first_failure())
    return found


def _read_options(file: ManifestFile, entries: dict[Loc, tuple[PartRef, Entry]]) -> dict[Loc, Part]:
    parts: dict[Loc, Part] = {}
    problems: list[Problem] = []
    for loc, (ref, entry) in entries.items():
        component, where = entry.component, (*loc, "options")
        base = parts[("base",)].needs.base if parts else None  # it comes first
        outline = RunOutline(file.manifest.train.generator_steps, base, file.manifest)
        effect = file.manifest.effects[int(loc[1])].name if loc[0] == "effects" else None  # the one that it teaches
        try:
            settings = component.settings.model_validate(ref.options, context={"root": file.root, "effect": effect})
        except ValidationError as error:
            problems.append((where, BadData(error, component.settings)))
            continue
        try:
            parts[loc] = Part(loc, entry, settings, component.needs(settings, outline))
        except Exception as error:  # a plugin's own code, on a user's values: say whose and where
            cause = str(error) if isinstance(error, CldistillError) else f"{type(error).__name__}: {error}"
            shown = where if component.settings.model_fields else (*loc, "use")
            problems.append((shown, f"{component.name} ({entry.owner}): {cause}"))
    if problems:
        raise Problems(OptionsError, problems)
    return parts


def _combine(file: ManifestFile, catalogue: Catalogue, parts: dict[Loc, Part]) -> CheckedManifest:
    manifest, base = file.manifest, parts[("base",)]
    description = base.needs.base
    if description is None:
        text = f"{base.name} ({base.entry.owner}) does not describe a base model"
        raise Problems(ManifestError, [(("base", "use"), text)])
    file = _settle_shift(file, description)
    return CheckedManifest(
        file=file, catalogue=catalogue, base=base, description=description,
        router=parts[("router",)], prompts=parts[("prompts",)],
        teachers={e.name: parts.get(("effects", index, "teacher")) for index, e in enumerate(manifest.effects)},
        losses=tuple(_loss(manifest.losses, index, parts["losses", index]) for index in range(len(manifest.losses))),
        observers=tuple(part for loc, part in parts.items() if loc[0] == "observers"),
        metrics=tuple(part for loc, part in parts.items() if loc[0] == "evaluate"),
        effects=tuple(
            EffectInfo(
                effect.name, effect.prompt, effect.pairs, effect.take, manifest.data.on_error == "skip",
                manifest.evaluate.pairs if manifest.evaluate is not None else 0,
            )
            for effect in manifest.effects
        ),
        slots=_slots(manifest, description),
    )  # fmt: skip


def _settle_shift(file: ManifestFile, base: BaseDescription) -> ManifestFile:
    """Replace the student's ``shift: auto`` by the number; teachers then follow the stock schedule unless told otherwise."""
    manifest, sampler, targets = file.manifest, file.manifest.sampler, file.manifest.targets
    autos = [key for key in ("sampler", "targets") if getattr(getattr(manifest, key), "shift", None) == "auto"]
    if autos and base.shift is None:
        text = f"the base {manifest.base.use} has no rule for its shift; give a number, such as 3.0"
        raise Problems(ManifestError, [((key, "shift"), text) for key in autos])
    if sampler.shift != "auto" or base.shift is None:
        return file
    sampler = sampler.model_copy(update={"shift": round(base.shift(base.latent_tokens, sampler.steps), 6)})
    if targets is not None and targets.shift is None:
        targets = targets.model_copy(update={"shift": "auto"})
    return replace(file, manifest=manifest.model_copy(update={"sampler": sampler, "targets": targets}))


def _loss(refs: Sequence[LossRef], index: int, part: Part) -> CheckedLoss:
    ref, earlier = refs[index], sum(other.use == part.name for other in refs[:index])
    return CheckedLoss(
        name=f"{part.name}-{earlier + 1}" if earlier else part.name, loss=part,
        slot=ref.slot or part.needs.slot or STUDENT,
        streams=part.needs.streams if ref.streams is None else frozenset(ref.streams),
        weight=ref.weight, from_step=ref.from_step, until_step=ref.until_step,
        teacher=part.needs.teacher, targets=part.needs.targets, shared=part.needs.forwards.shared > 0,
    )  # fmt: skip


def required_parts(checked: CheckedManifest, measuring: bool) -> list[Part]:
    """Return the parts whose packages and files must be there.

    An evaluation reports a metric that lacks something as not measured; a run should not train for hours to find that out.
    """
    optional = measuring or (checked.manifest.evaluate is not None and bool(checked.manifest.evaluate.systems))
    return [part for part in checked.parts() if not (optional and part in checked.metrics)]


def _slots(manifest: Manifest, description: BaseDescription) -> dict[str, SlotConfig]:
    found: dict[str, SlotConfig] = {}
    problems: list[Problem] = []
    for name, slot in manifest.slots.items():
        targets = description.targets
        for index, target in enumerate(slot.targets or ()):
            if not any(_matches(module, target) for module in description.modules):
                endings = {module.rsplit(".", 1)[-1] for module in description.modules}
                text = f"the base has no such module ({show(target)}){nearest(target, endings)}"
                problems.append((("slots", name, "targets", index), text))
        if (wanted := slot.targets) is not None:
            targets = tuple(module for module in description.modules if any(_matches(module, t) for t in wanted))
        found[name] = replace(slot_config(name, slot, targets), ema_device=manifest.train.ema_device)
    if problems:
        raise Problems(ManifestError, problems)
    return found


def slot_config(name: str, slot: Slot, targets: tuple[str, ...]) -> SlotConfig:
    """Return a slot as the loop knows it: alpha and phases of the learning rate told, whichever way they were written."""
    written = dict(slot)
    warmup, lr = written.pop("warmup"), slot.lr
    phases = (
        tuple(LrPhase(**dict(phase)) for phase in lr) if isinstance(lr, tuple) else (LrPhase(0, lr, warmup=warmup),)
    )
    alpha = float(slot.rank if slot.alpha is None else slot.alpha)
    return SlotConfig(**written | {"name": name, "alpha": alpha, "lr": phases, "targets": targets})


def _matches(module: str, target: str) -> bool:
    """A target is a full name, or the end of one at a dot: ``to_q`` or ``img_mlp.net.2``."""
    return module == target or module.endswith(f".{target}")
