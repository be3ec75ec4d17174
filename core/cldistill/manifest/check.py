"""Judging a manifest before anything is loaded; no torch in here.

Order: names exist -> settings of each part -> what the parts need of one another -> files exist and adapters fit the
base.  A phase reports all of its mistakes; the next phase starts only if there were none.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import TypeAdapter, ValidationError

from cldistill.catalogue import Catalogue, Entry, load_catalogue
from cldistill.component import Kind, Needs, RunOutline, Settings
from cldistill.errors import CldistillError, ManifestError, OptionsError, PluginLoadError, nearest
from cldistill.manifest.checked import STUDENT, CheckedLoss, CheckedManifest, Part
from cldistill.manifest.files import check_files
from cldistill.manifest.load import ManifestFile, load_manifest
from cldistill.manifest.messages import describe_errors, show
from cldistill.manifest.models import PartRef, part_refs
from cldistill.manifest.rules import mutual_problems
from cldistill.manifest.yaml import Loc, Text
from cldistill.records import BaseDescription, EffectInfo

KIND_OF: dict[str, Kind] = {
    "base": "base_model",
    "effects": "teacher_source",
    "router": "stream_router",
    "prompts": "prompt_isolator",
    "losses": "loss_term",
    "observers": "observer",
    "evaluate": "metric",
}
"""First key of a part's path -> the kind of component that stands there."""

E = TypeVar("E", bound=CldistillError)


def check_manifest(
    reference: str, overrides: Sequence[str] = (), *, catalogue: Catalogue | None = None, files: bool = True,
    measuring: bool = False,
) -> CheckedManifest:  # fmt: skip
    """Load and validate a manifest: what `cldistill check` does. See `validate`."""
    return validate(load_manifest(reference, overrides), catalogue, files=files, measuring=measuring)


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
    _raise(ManifestError, requirement_problems(file))
    entries = _find(file, catalogue)
    parts = _read_options(file, entries)
    checked = _combine(file, catalogue, parts)
    _raise(ManifestError, mutual_problems(checked, measuring=measuring))
    return check_files(checked, measuring=measuring) if files else checked


def _raise(error: type[E], problems: Sequence[str]) -> None:
    if problems:
        raise error("\n".join(problems))


def requirement_problems(file: ManifestFile) -> list[str]:
    """Return what is wrong with ``requires:``: distributions that are missing or have another version."""
    problems = []
    for index, text in enumerate(file.manifest.requires):
        where = file.where("requires", index)
        try:
            requirement = Requirement(text)
            installed = version(requirement.name)
        except InvalidRequirement as error:
            problems.append(f"{where}: not a requirement ({show(text)}): {str(error).splitlines()[0]}")
        except PackageNotFoundError:
            problems.append(f"{where}: {requirement.name} is not installed; pip install {show(text)}")
        else:
            if not requirement.specifier.contains(installed, prereleases=True):
                problems.append(f"{where}: needs {text}, but {installed} is installed; pip install {show(text)}")
    return problems


def _find(file: ManifestFile, catalogue: Catalogue) -> dict[Loc, tuple[PartRef, Entry]]:
    found: dict[Loc, tuple[PartRef, Entry]] = {}
    problems = []
    for loc, ref in part_refs(file.manifest):
        try:
            found[loc] = ref, catalogue.find(KIND_OF[str(loc[0])], ref.use)
        except PluginLoadError as error:
            problems.append(f"{file.where(*loc, 'use')}: {error}")
    _raise(PluginLoadError, [*problems, *catalogue.first_failure()] if problems else [])
    return found


def _read_options(file: ManifestFile, entries: dict[Loc, tuple[PartRef, Entry]]) -> dict[Loc, Part]:
    parts: dict[Loc, Part] = {}
    problems = []
    for loc, (ref, entry) in entries.items():
        settings_type = entry.component.settings
        try:
            settings = read_settings(file, loc, ref, settings_type)
            base = parts.get(("base",))  # it comes first
            outline = RunOutline(file.manifest.train.generator_steps, base.needs.base if base is not None else None)
            parts[loc] = Part(loc, entry, settings, _describe(file, loc, entry, settings, outline))
        except ValidationError as error:
            problems.append(describe_errors(error, settings_type, file.tree, (*loc, "options")))
        except OptionsError as error:
            problems.append(str(error))
    _raise(OptionsError, problems)
    return parts


def _describe(file: ManifestFile, loc: Loc, entry: Entry, settings: Settings, outline: RunOutline) -> Needs:
    try:
        return entry.component.needs(settings, outline)
    except Exception as error:  # a plugin's own code, on a user's values: say whose and where
        cause = str(error) if isinstance(error, CldistillError) else f"{type(error).__name__}: {error}"
        where = file.where(*loc, "options" if entry.component.settings.model_fields else "use")
        raise OptionsError(f"{where}: {entry.component.name} ({entry.owner}): {cause}") from error


def _combine(file: ManifestFile, catalogue: Catalogue, parts: dict[Loc, Part]) -> CheckedManifest:
    manifest, base = file.manifest, parts[("base",)]
    description = base.needs.base
    if description is None:
        raise ManifestError(
            f"{file.where('base', 'use')}: {base.name} ({base.entry.owner}) does not describe a base model"
        )
    metrics = len(manifest.evaluate.metrics) if manifest.evaluate else 0
    return CheckedManifest(
        file=file,
        catalogue=catalogue,
        base=base,
        description=description,
        router=parts[("router",)],
        prompts=parts[("prompts",)],
        teachers={
            effect.name: parts.get(("effects", index, "teacher")) for index, effect in enumerate(manifest.effects)
        },
        losses=tuple(_loss(file, index, parts[("losses", index)]) for index in range(len(manifest.losses))),
        observers=tuple(parts[("observers", index)] for index in range(len(manifest.observers))),
        metrics=tuple(parts[("evaluate", "metrics", index)] for index in range(metrics)),
        effects=tuple(EffectInfo(effect.name, effect.prompt, effect.pairs, effect.take) for effect in manifest.effects),
        slot_targets=_slot_targets(file, description),
    )


def _loss(file: ManifestFile, index: int, part: Part) -> CheckedLoss:
    refs = file.manifest.losses
    ref, earlier = refs[index], sum(other.use == part.name for other in refs[:index])
    streams = part.needs.streams if ref.streams is None else frozenset(ref.streams)
    slot = ref.slot or part.needs.slot or STUDENT
    name = f"{part.name}-{earlier + 1}" if earlier else part.name
    return CheckedLoss(part, name, slot, streams, ref.weight, ref.from_step, ref.until_step)


def _slot_targets(file: ManifestFile, description: BaseDescription) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    problems = []
    for name, slot in file.manifest.slots.items():
        found[name] = description.targets
        if slot.targets is None:
            continue
        for index, target in enumerate(slot.targets):
            if not any(_matches(module, target) for module in description.modules):
                endings = {module.rsplit(".", 1)[-1] for module in description.modules}
                where = file.where("slots", name, "targets", index)
                problems.append(f"{where}: the base has no such module ({show(target)}){nearest(target, endings)}")
        wanted = slot.targets
        found[name] = tuple(module for module in description.modules if any(_matches(module, t) for t in wanted))
    _raise(ManifestError, problems)
    return found


def _matches(module: str, target: str) -> bool:
    """A target is a full name, or the end of one at a dot: ``to_q`` or ``img_mlp.net.2``."""
    return module == target or module.endswith(f".{target}")


def read_settings(file: ManifestFile, loc: Loc, ref: PartRef, settings: type[Settings]) -> Settings:
    """Validate the options of a part; each relative path starts from the folder of the file in which it was written.

    Raises:
        OptionsError, pydantic.ValidationError: the options do not fit.
    """
    root = file.place(*loc, "options").root
    options = dict(ref.options)
    try:
        for key, value in options.items():
            other = _root_of(value)
            if other is not None and other != root and key in settings.model_fields:
                # Merged in by `extends` from another folder: resolve it there first; resolved, it stays as it is.
                options[key] = _resolve_in(settings, key, value, other)
        return settings.model_validate(options, context={"root": root})
    except ModuleNotFoundError as error:
        raise OptionsError(f"{file.where(*loc, 'options')}: {error}, which a `package:` path names") from error


def _root_of(value: Any) -> Path | None:
    if isinstance(value, Text):
        return value.root
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((root for root in map(_root_of, inner) if root is not None), None)


def _resolve_in(settings: type[Settings], key: str, value: Any, root: Path) -> Any:
    field = settings.model_fields[key]
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        return TypeAdapter(annotation).validate_python(value, context={"root": root})
    except ValidationError:
        return value  # the whole model reports it, with its place
